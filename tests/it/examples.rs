//! The small programs of `examples/` that show one thing each.

use crate::program::{Ended, Program, example};

fn run(name: &str) -> Ended {
    let directory = tempfile::tempdir().expect("a directory");
    let none = std::iter::empty::<&str>();
    let ended = Program::start(&example(name), directory.path(), name, none).wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    ended
}

#[test]
fn a_pipeline_grows_is_gathered_and_is_resumed_where_it_failed() {
    let ended = run("dynamic");
    assert_eq!(ended.line("first: "), Some("Failed, 6 steps"), "{ended:?}");
    assert_eq!(ended.line("resumed: "), Some("Succeeded, 2 steps"), "{ended:?}");
    assert_eq!(ended.line("words: "), Some("16"), "{ended:?}");
}

#[test]
fn a_schedule_fires_each_second_once_and_is_paused() {
    let ended = run("cron");
    let seconds: Vec<i64> = ended
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("report of second ")?.strip_suffix(".000000")?.parse().ok())
        .collect();
    assert!(seconds.len() == 2 && seconds[0] < seconds[1], "{ended:?}");
    assert_eq!(ended.line("report: "), Some("paused: true, next: None"), "{ended:?}");
}

#[test]
fn another_life_of_a_program_hears_what_the_last_one_did_not() {
    let ended = run("events");
    let lives: Vec<&str> = ended.stdout.split("another life\n").collect();
    let [first, second] = lives[..] else { panic!("two lives: {ended:?}") };
    let told = |life: &str| {
        life.lines().filter(|line| line.starts_with("log: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let events = |of_ours: bool| {
        let states = ["Pending", "Scheduled", "Running", "Succeeded"];
        let line = move |(n, state): (usize, &str)| {
            format!("log: version {} is {state}, of our job: {of_ours}", n + 1)
        };
        states.into_iter().enumerate().map(line).collect::<Vec<_>>()
    };
    assert_eq!(told(first), events(true)[..2], "{ended:?}");
    assert_eq!(told(second), [&events(false)[2..], &events(true)].concat(), "each once, in order: {ended:?}");
    for life in [first, second] {
        assert!(life.starts_with("live: Succeeded of our job: true\n"), "{ended:?}");
    }
}
