//! What the agent keeps: the output, in bounds; its memory, its descriptors; and nothing after its own death.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::support::{Env, eventually, lives, plan, script, text};
use crate::{
    execute::process::{Control, Escapees, OutputSink, Stop, Stream},
    sys::Exit,
};

/// Set in a test process that runs one test alone.
const ALONE: &str = "HODEI_TEST_ALONE";

/// The command that runs one test of this file in a process of its own.
fn alone(test: &str) -> Command {
    let module = module_path!().split_once("::").unwrap().1;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{test}"), "--nocapture"]).env(ALONE, "1");
    command
}

fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

fn own_status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Counts, keeps nothing.
#[derive(Default)]
struct Counting {
    bytes: AtomicU64,
    largest: AtomicU64,
}

#[async_trait]
impl OutputSink for Counting {
    async fn accept(&self, _stream: Stream, chunk: Bytes) {
        // Relaxed: read after the run, which joined everything.
        self.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        self.largest.fetch_max(chunk.len() as u64, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_flood_is_read_in_bounded_chunks_and_memory() {
    if !is_alone() {
        assert!(alone("a_flood_is_read_in_bounded_chunks_and_memory").status().unwrap().success());
        return;
    }
    let counting = Arc::new(Counting::default());
    let (_wish, stop) = watch::channel(Stop::Run);
    let control = Control { stop, output: Arc::clone(&counting) as Arc<dyn OutputSink> };
    let before = own_status("VmHWM");
    let env = Env::new();
    let finished = env.processes.run(plan(["head", "-c", "200M", "/dev/zero"]), control).await.unwrap();
    assert_eq!((finished.exit, finished.leaked), (Exit::Code(0), false));
    assert_eq!(counting.bytes.load(Ordering::Relaxed), 200 << 20);
    assert!(counting.largest.load(Ordering::Relaxed) <= 64 << 10);
    let grown = own_status("VmHWM") - before;
    assert!(grown < 4096, "{grown} KiB for 200 MiB of output");
}

/// Takes nothing until told.
struct Blocked(watch::Receiver<bool>);

#[async_trait]
impl OutputSink for Blocked {
    async fn accept(&self, _stream: Stream, _chunk: Bytes) {
        let _ = self.0.clone().wait_for(|open| *open).await;
    }
}

#[tokio::test]
async fn a_slow_sink_slows_the_process_and_not_the_ladder() {
    let (open, opened) = watch::channel(false);
    let (_wish, stop) = watch::channel(Stop::Run);
    let mut wanted = plan(["cat", "/dev/zero"]);
    wanted.timeout = Some(Duration::from_millis(100));
    let env = Env::new();
    let run = env.processes.run(wanted, Control { stop, output: Arc::new(Blocked(opened)) });
    tokio::pin!(run);
    let dead = eventually("the process is killed", || env.marked() == 0);
    tokio::select! {
        biased;
        _ = &mut run => panic!("the sink still holds a chunk"),
        () = async { tokio::time::sleep(Duration::from_millis(100)).await; dead.await } => {}
    }
    open.send_replace(true);
    let finished = run.await.unwrap();
    assert!(!finished.leaked && finished.stdout_bytes <= 256 << 10, "{finished:?}");
}

#[tokio::test]
async fn closing_its_output_does_not_end_a_process() {
    let env = Env::new();
    let (finished, _) = env.run(script("exec >&- 2>&-; sleep 0.2; exit 7")).await;
    assert_eq!((finished.exit, finished.leaked), (Exit::Code(7), false));
    assert!(finished.duration >= Duration::from_millis(200));
}

#[tokio::test]
async fn output_held_open_by_an_unmarked_process_is_given_up() {
    let env = Env::new();
    // The substitution ends when the sleeper has let go of its pipe: by then it is in a session of its own, without
    // the mark, and holds the job's own output.
    let wanted = script("exec 3>&1; echo $(env -i setsid -f sh -c 'echo $$; exec sleep 600 >&3 2>&1')");
    let (finished, stdout) = env.run(wanted).await;
    assert!(finished.leaked && finished.escapees == 0, "{finished:?}");
    // What no mark reaches the test has to end itself.
    let pid = rustix::process::Pid::from_raw(text(&stdout).parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn output_held_open_by_an_escapee_is_a_suspicion() {
    let mut wanted = script("exec 3>&1; echo $(setsid -f sh -c 'echo $$; exec sleep 600 >&3 2>&1')");
    wanted.escapees = Escapees::OnSuspicion;
    let (finished, stdout) = Env::new().run(wanted).await;
    assert!(finished.leaked && finished.escapees == 1, "{finished:?}");
    eventually("the escapee dies", || !lives(&text(&stdout))).await;
}

#[tokio::test]
async fn two_streams_keep_their_order() {
    let (finished, stdout) =
        Env::new().run(script("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo $i; echo x >&2; done")).await;
    let expected: String = (1..=2000).map(|n| format!("{n}\n")).collect();
    assert_eq!(stdout, expected.as_bytes());
    assert_eq!(finished.stderr_bytes, 4000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_runs_leave_nothing() {
    if !is_alone() {
        assert!(alone("thousands_of_runs_leave_nothing").status().unwrap().success());
        return;
    }
    let env = Env::new();
    let mut quick = plan(["/bin/true"]);
    quick.escapees = Escapees::OnSuspicion;
    env.run(quick.clone()).await;
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..125 {
        let going: Vec<_> = (0..16).map(|_| env.start(quick.clone())).collect();
        for going in going {
            assert_eq!(going.finish().await.0.exit, Exit::Code(0));
        }
    }
    assert_eq!(open(), before);
    let children = fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    assert_eq!(children.collect::<String>(), "");
}

#[tokio::test]
async fn a_killed_agent_takes_its_children_along() {
    if is_alone() {
        let env = Env::new();
        let mut going = env.start(script("setsid sleep 600 & echo $$ $!; wait"));
        let printed = text(&going.first_print().await);
        eprintln!("\nmark {} {printed}", env.mark);
        going.finish().await;
    }
    let mut agent = alone("a_killed_agent_takes_its_children_along")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stderr.take().unwrap()).lines();
    let line = lines.find_map(|line| line.unwrap().strip_prefix("mark ").map(str::to_owned)).unwrap();
    let words: Vec<_> = line.split(' ').collect();
    assert!(lives(words[1]) && lives(words[2]));
    agent.kill().unwrap();
    agent.wait().unwrap();
    eventually("the leader dies by the death signal", || !lives(words[1])).await;
    // What the leader started lives on, until the agent is back and sweeps.
    let processes = crate::execute::process::Processes::start(words[0]).unwrap();
    let swept = processes.sweep_all().await.unwrap();
    assert!(swept.clean);
    eventually("the orphan dies", || !lives(words[2])).await;
}
