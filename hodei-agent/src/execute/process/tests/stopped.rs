//! How processes are stopped, and that nothing of theirs goes on.

use std::time::Duration;

use super::support::{Env, eventually, lives, plan, script, text};
use crate::{
    execute::process::{EndedBy, Escapees, Stop},
    sys::Exit,
};

const KILLED: Exit = Exit::Signal { number: 9, core_dumped: false };
const TERMINATED: Exit = Exit::Signal { number: 15, core_dumped: false };

#[tokio::test]
async fn a_timeout_terminates() {
    let mut wanted = plan(["sleep", "600"]);
    wanted.timeout = Some(Duration::from_millis(50));
    let (finished, _) = Env::new().run(wanted).await;
    assert_eq!((finished.exit, finished.ended_by), (TERMINATED, EndedBy::Timeout));
}

#[tokio::test]
async fn what_ignores_sigterm_is_killed_after_the_grace() {
    let mut wanted = script("trap '' TERM; while :; do sleep 600; done");
    // Long enough for a busy machine to have started it by then.
    wanted.timeout = Some(Duration::from_secs(3));
    wanted.grace = Duration::from_millis(200);
    let (finished, _) = Env::new().run(wanted).await;
    assert_eq!((finished.exit, finished.ended_by), (KILLED, EndedBy::Timeout));
    assert!(finished.duration >= Duration::from_millis(3_200), "{finished:?}");
}

#[tokio::test]
async fn a_stop_lets_it_clean_up() {
    let env = Env::new();
    let mut going =
        env.start(script("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done"));
    going.first_print().await;
    going.stop.send_replace(Stop::Terminate);
    let (finished, stdout) = going.finish().await;
    assert_eq!((finished.exit, finished.ended_by), (Exit::Code(3), EndedBy::Stop));
    assert_eq!(text(&stdout), "ready\nbye");
}

#[tokio::test]
async fn a_second_stop_kills_at_once() {
    let env = Env::new();
    let mut wanted = script("trap 'echo no' TERM; echo ready; while :; do sleep 0.01; done");
    wanted.grace = Duration::from_secs(600);
    let mut going = env.start(wanted);
    going.first_print().await;
    going.stop.send_modify(|stop| *stop = stop.escalated());
    assert_eq!(&going.first_print().await[..], b"no\n");
    going.stop.send_modify(|stop| *stop = stop.escalated());
    let (finished, _) = going.finish().await;
    assert_eq!((finished.exit, finished.ended_by), (KILLED, EndedBy::Stop));
}

#[tokio::test]
async fn a_stop_before_the_start_counts() {
    let env = Env::new();
    let going = env.start(plan(["sleep", "600"]));
    going.stop.send_replace(Stop::Kill);
    assert_eq!(going.finish().await.0.exit, KILLED);
}

#[tokio::test]
async fn a_stopped_process_takes_notice() {
    let env = Env::new();
    let mut going = env.start(script("echo ready; kill -STOP $$; sleep 600"));
    going.first_print().await;
    going.stop.send_replace(Stop::Terminate);
    assert_eq!(going.finish().await.0.exit, TERMINATED);
}

#[tokio::test]
async fn a_run_nobody_controls_is_killed() {
    let env = Env::new();
    let mut going = env.start(script("echo ready; exec sleep 600"));
    going.first_print().await;
    going.stop = tokio::sync::watch::Sender::new(Stop::Run);
    assert_eq!(going.finish().await.0.exit, KILLED);
}

#[tokio::test]
async fn the_rest_of_the_group_dies_with_the_leader() {
    let env = Env::new();
    let mut wanted = script("sleep 600 >/dev/null 2>&1 & echo $!");
    wanted.escapees = Escapees::OnSuspicion;
    let (finished, stdout) = env.run(wanted).await;
    assert_eq!((finished.exit, finished.leaked), (Exit::Code(0), false));
    eventually("the grandchild dies", || !lives(&text(&stdout))).await;
}

/// Starts a process in a session of its own and prints its id once it holds no pipe any more.
const ESCAPE: &str = "echo $(setsid -f sh -c 'echo $$; exec sleep 600 >/dev/null 2>&1')";

#[tokio::test]
async fn one_who_leaves_the_group_is_swept() {
    let env = Env::new();
    let (finished, stdout) = env.run(script(ESCAPE)).await;
    assert_eq!((finished.exit, finished.escapees, finished.contained), (Exit::Code(0), 1, true));
    eventually("the escapee dies", || !lives(&text(&stdout))).await;
    assert_eq!(env.marked(), 0);
}

#[tokio::test]
async fn a_sweep_spares_other_jobs_and_other_agents() {
    let (env, other) = (Env::new(), Env::new());
    let mut wanted = script("echo ready; exec sleep 600");
    wanted.job = "job-2".to_owned();
    let (mut neighbour, mut stranger) = (env.start(wanted.clone()), other.start(wanted));
    neighbour.first_print().await;
    stranger.first_print().await;
    assert_eq!(env.run(script(ESCAPE)).await.0.escapees, 1);
    assert_eq!((env.marked(), other.marked()), (1, 1));
    let swept = env.processes.sweep_all().await.unwrap();
    assert_eq!((swept.total(), swept.clean, swept.killed.contains_key("job-2")), (1, true, true));
    assert_eq!(neighbour.finish().await.0.exit, KILLED);
    assert_eq!(other.marked(), 1);
    stranger.stop.send_replace(Stop::Kill);
    stranger.finish().await;
}

#[tokio::test]
async fn an_escapee_that_runs_ahead_of_the_sweep_is_caught() {
    // Each generation starts the next in a session of its own and is gone; bounded, should nothing catch it.
    let chain = "[ $1 -gt 0 ] && exec setsid -f sh -c \"$0\" \"$0\" $(($1-1)); exec sleep 600";
    // The leader goes on when the first one has left its group, and with it the pipe.
    let leader = "x=$(setsid -f sh -c 'exec sh -c \"$0\" \"$0\" 2000 >/dev/null 2>&1' \"$0\"); :";
    let env = Env::new();
    let (finished, _) = env.run(plan(["sh", "-c", leader, chain])).await;
    assert!(finished.contained && finished.escapees >= 1, "{finished:?}");
    assert_eq!(env.marked(), 0);
}

#[tokio::test]
async fn a_run_that_is_dropped_is_killed_and_reaped() {
    let env = Env::new();
    let mut going = env.start(script("sleep 600 & echo $$ $!; wait"));
    let printed = text(&going.first_print().await);
    going.abandon().await;
    for pid in printed.split(' ') {
        eventually("it dies", || !lives(pid)).await;
    }
    let leader = format!("/proc/{}", printed.split(' ').next().unwrap());
    eventually("it is reaped", || !std::path::Path::new(&leader).exists()).await;
}
