//! What a process is given: exactly what was asked for.

use std::{collections::BTreeMap, ffi::OsString, io, os::unix::ffi::OsStringExt};

use super::support::{Env, plan, script, text};
use crate::{
    execute::process::{Finished, RunError},
    sys::{Exit, SpawnError},
};

#[tokio::test]
async fn the_environment_is_the_specified_one() {
    let env = Env::new();
    let mut wanted = plan(["/usr/bin/env", "-0"]);
    wanted.env = BTreeMap::from([
        ("A".into(), "1\n2=3 '\"".into()),
        ("B".into(), OsString::from_vec(vec![0xff, 0xfe])),
    ]);
    let (_, stdout) = env.run(wanted).await;
    let mark = format!("HODEI_MARK={}", env.mark);
    let expected: [&[u8]; 4] = [b"A=1\n2=3 '\"", b"B=\xff\xfe", b"HODEI_JOB=job-1", mark.as_bytes()];
    let mut expected = expected.join(&0);
    expected.push(0);
    assert_eq!(stdout, expected);
}

#[tokio::test]
async fn arguments_arrive_byte_for_byte() {
    let strange: [&[u8]; 6] = [b"-rf", b"two\nlines", b"'\"$(id)`id`\\", b"", b"\xff\xfe\x01", b"--"];
    let mut wanted = script(r#"printf '%s\0' "$@""#);
    wanted.argv.push("sh".into());
    wanted.argv.extend(strange.iter().map(|arg| OsString::from_vec(arg.to_vec())));
    let (_, stdout) = Env::new().run(wanted).await;
    assert_eq!(stdout, [strange.join(&0), vec![0]].concat());
}

#[tokio::test]
async fn only_the_standard_streams_are_open() {
    // Not close-on-exec, as a careless host may have it; nobody uses it.
    let leaky = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    // Asked one by one: to list the folder, the shell would open it.
    let text_of_it = "i=0; while [ $i -lt 256 ]; do [ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done; readlink /proc/$$/fd/0";
    let (_, stdout) = Env::new().run(script(text_of_it)).await;
    drop(leaky);
    assert_eq!(text(&stdout), "0\n1\n2\n/dev/null");
}

#[tokio::test]
async fn signals_are_as_after_login() {
    let (_, stdout) = Env::new().run(script("grep -E '^Sig(Blk|Ign)|NoNewPrivs' /proc/self/status")).await;
    let zero = "0000000000000000";
    assert_eq!(text(&stdout), format!("SigBlk:\t{zero}\nSigIgn:\t{zero}\nNoNewPrivs:\t1"));
}

#[tokio::test]
async fn group_and_session_are_its_own_and_the_directory_the_given_one() {
    let mut wanted = script("pwd; cut -d' ' -f1,5,6 /proc/$$/stat");
    wanted.cwd = "/usr".into();
    let (_, stdout) = Env::new().run(wanted).await;
    let stdout = text(&stdout);
    let words: Vec<_> = stdout.split_whitespace().collect();
    assert_eq!(words[0], "/usr");
    assert_eq!((words[1], words[1]), (words[2], words[3]));
}

#[tokio::test]
async fn the_exit_is_told() {
    let env = Env::new();
    let exit = async |text| env.run(script(text)).await.0.exit;
    assert_eq!(exit("exit 0").await, Exit::Code(0));
    assert_eq!(exit("exit 42").await, Exit::Code(42));
    assert_eq!(exit("ulimit -c 0; kill -SEGV $$").await, Exit::Signal { number: 11, core_dumped: false });
    assert_eq!(exit("kill -PIPE $$; exit 1").await, Exit::Signal { number: 13, core_dumped: false });
}

#[tokio::test]
async fn usage_is_told() {
    let busy =
        "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; head -c 200M /dev/zero | tail -c 150M >/dev/null";
    let (Finished { usage, duration, .. }, _) = Env::new().run(script(busy)).await;
    assert!(!usage.user.is_zero() && usage.user + usage.system < duration * 8, "{usage:?} in {duration:?}");
    // `None` where another test has made this process as large.
    assert!(usage.max_resident_bytes.is_none_or(|bytes| bytes > 100 << 20), "{usage:?}");
}

/// The kind of the error below a refusal to execute.
fn execution_error(error: &RunError) -> Option<io::ErrorKind> {
    let RunError::Spawn(SpawnError::Execute { source, .. }) = error else { return None };
    Some(source.kind())
}

#[tokio::test]
async fn what_can_not_be_executed_is_an_error_and_no_exit_code() {
    let env = Env::new();
    let directory = tempfile::tempdir().unwrap();
    let text_file = directory.path().join("no-program");
    std::fs::write(&text_file, "hello").unwrap();
    let path = text_file.to_str().unwrap();
    let missing = env.refused(plan(["/no/such/program"])).await;
    assert_eq!(execution_error(&missing), Some(io::ErrorKind::NotFound));
    assert_eq!(missing.to_string(), "execute /no/such/program");
    assert_eq!(execution_error(&env.refused(plan(["no-such-program"])).await), Some(io::ErrorKind::NotFound));
    assert_eq!(execution_error(&env.refused(plan([path])).await), Some(io::ErrorKind::PermissionDenied));
    std::fs::set_permissions(&text_file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let RunError::Spawn(SpawnError::Execute { source, .. }) = env.refused(plan([path])).await else {
        panic!()
    };
    assert_eq!(source.raw_os_error(), Some(rustix::io::Errno::NOEXEC.raw_os_error()));
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let mut wanted = plan(["true"]);
    wanted.cwd = "/no/such/directory".into();
    let error = Env::new().refused(wanted).await;
    assert!(matches!(error, RunError::Spawn(SpawnError::WorkingDirectory { .. })), "{error:?}");
}

#[tokio::test]
async fn what_the_kernel_can_not_be_told_is_refused() {
    let env = Env::new();
    let invalid = async |plan| matches!(env.refused(plan).await, RunError::Spawn(SpawnError::Invalid(_)));
    assert!(invalid(plan([])).await);
    assert!(invalid(plan([""])).await);
    assert!(invalid(plan(["true", "a\0b"])).await);
    let mut equals = plan(["true"]);
    equals.env.insert("A=B".into(), "c".into());
    assert!(invalid(equals).await);
}

#[tokio::test]
async fn a_program_is_looked_for_in_the_path_of_the_job() {
    let mut wanted = plan(["sh", "-c", "echo found"]);
    wanted.env.insert("PATH".into(), "/no/such:/etc/passwd::/bin".into());
    assert_eq!(text(&Env::new().run(wanted).await.1), "found");
}
