//! Commands: what they are given, how they end, what is kept of them and what is left.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hodei_agent::{Agent, AgentHandle, ProcessExecutor};
use hodei_core::gateway::StopCause;
use hodei_core::job::{Exit, FailureClass, JobSpec, JobSpecBuilder, Outcome, Secret, Stream};
use hodei_core::security::{MaskStream, SecretMasker};

use crate::node::{Node, input, log_of};

async fn agent(node: &Node, executor: ProcessExecutor) -> AgentHandle {
    Agent::builder(node.gateway()).slots(8).commands(executor).start().await.expect("the agent starts")
}

fn executor(directory: &Path) -> ProcessExecutor {
    ProcessExecutor::new().work_dir(directory)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn shell(script: &str) -> JobSpecBuilder {
    JobSpec::shell(script)
}

#[tokio::test]
async fn each_end_of_a_command_is_reported_as_what_it_is() {
    use FailureClass as F;
    let (node, work) = (Node::new(), directory());
    let _agent = agent(&node, executor(work.path())).await;
    for (spec, class, exit) in [
        (shell("exit 3"), F::Exit, Some(Exit::Code(3))),
        (shell("kill -KILL $$"), F::Signal, Some(Exit::Signal(9))),
        (shell("sleep 600").timeout(Duration::from_millis(50)), F::Timeout, Some(Exit::Signal(15))),
        (JobSpec::command(["/no/such/program"]), F::Spawn, None),
        (shell("true").output("x"), F::BadOutput, Some(Exit::Code(0))),
        (shell("echo nonsense > $HODEI_OUTPUT"), F::BadOutput, Some(Exit::Code(0))),
        (shell("true").secret("TOKEN", "vault:x"), F::BadInput, None),
        (shell("true").image("alpine"), F::BadInput, None),
    ] {
        let text = format!("{spec:?}");
        let finish = node.finish_of(node.assign(spec)).await;
        let Outcome::Failed(failure) = finish.outcome else { panic!("{text}: {:?}", finish.outcome) };
        assert_eq!((failure.class, failure.exit), (class, exit), "{text}");
    }
    assert_eq!(node.finish_of(node.assign(shell("exit 0"))).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_command_reads_what_its_parents_gave_back_and_gives_back_what_it_writes() {
    let (node, work) = (Node::new(), directory());
    let _agent = agent(&node, executor(work.path())).await;
    let script = "printf '{\"seen\":\"%s\"}' \"$(tr -d '\\\"' < $HODEI_INPUTS) $HODEI_ATTEMPT $HODEI_EPOCH\" > $HODEI_OUTPUT";
    let job = node.assign_with(shell(script).output("seen"), vec![input("first", "{\"n\":\"7\"}")]);
    let finish = node.finish_of(job).await;
    let output = finish.output.inline().expect("it is short").clone();
    assert_eq!(output, "{\"seen\":\"{first:{n:7}} 1 1\"}");
}

#[tokio::test]
async fn a_command_gets_the_environment_it_asked_for_and_nothing_of_the_agents() {
    let (node, work) = (Node::new(), directory());
    let agent = agent(&node, executor(work.path())).await;
    let job = node.assign(JobSpec::command(["/usr/bin/env"]).env("GREETING", "a=b c"));
    node.finish_of(job).await;
    let read = agent.logs().read(&log_of(job, Stream::Stdout), 0, 100_000).await.expect("it reads");
    let text = String::from_utf8(read.bytes.to_vec()).expect("text");
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.retain(|name| !["HOME", "LANG", "PATH", "TMPDIR"].contains(name));
    names.sort_unstable();
    let own = [
        "GREETING",
        "HODEI_ATTEMPT",
        "HODEI_EPOCH",
        "HODEI_INPUTS",
        "HODEI_JOB",
        "HODEI_MARK",
        "HODEI_OUTPUT",
    ];
    assert_eq!(names, own);
    assert!(text.contains("GREETING=a=b c\n"));
}

#[tokio::test]
async fn what_a_command_prints_is_kept_stream_by_stream_and_counted() {
    let (node, work, logs) = (Node::new(), directory(), directory());
    let builder = Agent::builder(node.gateway()).commands(executor(work.path())).logs(logs.path());
    let agent = builder.start().await.expect("the agent starts");
    let job = node.assign(shell("echo out; echo err >&2; echo more"));
    let manifest = node.finish_of(job).await.manifest.expect("there are logs");
    for (stream, expected) in [(Stream::Stdout, "out\nmore\n"), (Stream::Stderr, "err\n")] {
        let read = agent.logs().read(&log_of(job, stream), 0, 100).await.expect("it reads");
        assert_eq!((&read.bytes[..], read.ended), (expected.as_bytes(), true));
        let end = manifest.logs.iter().find(|end| end.stream == stream).expect("its end is told");
        assert_eq!((end.kept, end.dropped), (expected.len() as u64, 0));
    }
    let remarks = agent.logs().read(&log_of(job, Stream::System), 0, 1_000).await.expect("it reads");
    assert!(remarks.bytes.starts_with(b"exit code 0 after "), "{:?}", remarks.bytes);
}

#[tokio::test]
async fn a_log_is_followed_while_its_command_runs() {
    let (node, work) = (Node::new(), directory());
    let agent = agent(&node, executor(work.path())).await;
    let gate = work.path().join("gate");
    let job = node.assign(shell(&format!(
        "echo one; while [ ! -e {} ]; do sleep 0.01; done; echo two",
        gate.display()
    )));
    node.started(job).await;
    let (logs, key) = (agent.logs(), log_of(job, Stream::Stdout));
    let read = logs.follow(&key, 0, 100).await.expect("it reads");
    assert_eq!((&read.bytes[..], read.ended), (&b"one\n"[..], false), "it runs, and is read");
    std::fs::write(&gate, "").expect("the gate opens");
    let read = logs.follow(&key, read.next, 100).await.expect("it reads");
    assert_eq!(&read.bytes[..], b"two\n");
    assert!(logs.follow(&key, read.next, 100).await.expect("it reads").ended);
}

/// Hides one word, also where it stands across chunks.
#[derive(Debug)]
struct Hide(&'static str);

#[derive(Debug)]
struct Hiding(&'static str, BytesMut);

impl SecretMasker for Hide {
    fn begin(&self, _secrets: &[Secret]) -> Box<dyn MaskStream> {
        Box::new(Hiding(self.0, BytesMut::new()))
    }
}

impl MaskStream for Hiding {
    fn push(&mut self, chunk: Bytes) -> Bytes {
        self.1.extend_from_slice(&chunk);
        Bytes::new()
    }

    fn finish(&mut self) -> Bytes {
        String::from_utf8_lossy(&self.1).replace(self.0, "***").into()
    }
}

#[tokio::test]
async fn everything_that_is_kept_has_passed_the_mask() {
    let (node, work) = (Node::new(), directory());
    let agent = agent(&node, executor(work.path()).masker(Arc::new(Hide("hunter2")))).await;
    let job = node.assign(shell("printf hun; sleep 0.05; echo ter2; echo hunter2 >&2"));
    node.finish_of(job).await;
    for stream in [Stream::Stdout, Stream::Stderr] {
        let read = agent.logs().read(&log_of(job, stream), 0, 100).await.expect("it reads");
        assert_eq!(&read.bytes[..], b"***\n", "{stream:?}");
    }
}

#[tokio::test]
async fn a_cancelled_command_may_clean_up_and_ends_cancelled() {
    let (node, work) = (Node::new(), directory());
    let agent = agent(&node, executor(work.path())).await;
    let job = node.assign(shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done"));
    let key = log_of(job, Stream::Stdout);
    node.started(job).await;
    assert_eq!(&agent.logs().follow(&key, 0, 100).await.expect("it reads").bytes[..], b"ready\n");
    node.stop(job, StopCause::Cancelled);
    assert_eq!(node.finish_of(job).await.outcome, Outcome::Cancelled);
    assert_eq!(&agent.logs().read(&key, 0, 100).await.expect("it reads").bytes[..], b"ready\nbye\n");
}

#[tokio::test]
async fn a_command_that_does_not_heed_is_killed_after_its_grace() {
    let (node, work) = (Node::new(), directory());
    let agent = agent(&node, executor(work.path()).grace(Duration::from_millis(100))).await;
    let job = node.assign(shell("trap '' TERM; echo ready; while :; do sleep 0.01; done"));
    let key = log_of(job, Stream::Stdout);
    node.started(job).await;
    agent.logs().follow(&key, 0, 100).await.expect("it reads");
    node.stop(job, StopCause::Cancelled);
    assert_eq!(node.finish_of(job).await.outcome, Outcome::Cancelled);
    let remarks = agent.logs().read(&log_of(job, Stream::System), 0, 1_000).await.expect("it reads");
    assert!(remarks.bytes.starts_with(b"signal 9 after "), "{:?}", remarks.bytes);
}

#[tokio::test]
async fn a_run_leaves_no_file_behind() {
    let (node, work) = (Node::new(), directory());
    let _agent = agent(&node, executor(work.path())).await;
    node.finish_of(node.assign(shell("mkdir -p a/b; echo x > a/b/c; pwd > d"))).await;
    let left: Vec<_> = std::fs::read_dir(work.path()).expect("the directory lists").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn an_agent_that_starts_ends_what_its_last_life_left_running() {
    let (node, work) = (Node::new(), directory());
    let orphan = |mark: &Path| {
        let mut command = std::process::Command::new("sleep");
        command.arg("60").env("HODEI_MARK", mark).env("HODEI_JOB", "job-1");
        // Whoever waits for the end of this program's output does not wait for them.
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    };
    let (mut own, mut other) = (orphan(work.path()), orphan(&work.path().join("other")));
    let _agent = agent(&node, executor(work.path())).await;
    let ended =
        tokio::task::spawn_blocking(move || own.wait().expect("it ends")).await.expect("it is waited for");
    assert_eq!(ended.signal(), Some(9));
    assert_eq!(other.try_wait().expect("it is looked at"), None, "another agent's is spared");
    other.kill().expect("it is killed");
    other.wait().expect("it ends");
}
