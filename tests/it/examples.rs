//! The small programs of `examples/` that show one thing each.

use hodei_test_servers::Postgres;

use crate::program::{Ended, Program, example, example_of};

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
    let told =
        |life: &str| life.lines().filter_map(|line| line.strip_prefix("log: ")).map(str::to_owned).collect();
    let (first_log, second_log): (Vec<String>, Vec<String>) = (told(first), told(second));
    assert_eq!(
        first_log,
        ["version 1 is Pending, of our job: true", "version 2 is Scheduled, of our job: true"]
    );
    // A run that is short enough ends with the same report with which it begins.
    let end = |ours: bool| {
        let line = |n: u32, state: &str| format!("version {n} is {state}, of our job: {ours}");
        [vec![line(3, "Running"), line(4, "Succeeded")], vec![line(3, "Succeeded")]]
    };
    let [old, new] = [false, true]
        .map(|ours| end(ours).into_iter().find(|end| second_log.join("\n").contains(&end.join("\n"))));
    let expected = [old.unwrap_or_default(), first_log, new.unwrap_or_default()].concat();
    assert_eq!(second_log, expected, "each once, in order: {ended:?}");
    assert!(
        second_log.last().is_some_and(|line| line.ends_with("is Succeeded, of our job: true")),
        "{ended:?}"
    );
    for life in [first, second] {
        assert!(life.starts_with("live: Succeeded of our job: true\n"), "{ended:?}");
    }
}

#[test]
fn a_database_is_migrated_once_and_its_password_is_told_to_nobody() {
    let postgres = Postgres::shared().expect("PostgreSQL");
    let database = postgres.database().expect("a database");
    let (program, directory) =
        (example_of("hodei-store-pg", "migrate"), tempfile::tempdir().expect("a directory"));
    let migrate = |url: Option<String>| {
        let ended = Program::start(&program, directory.path(), "migrate", url).wait();
        (ended.code(), ended.stdout, ended.stderr)
    };
    let steps = "SELECT max(version) FROM hodei.schema_step";
    let (code, told, _) = migrate(Some(database.url()));
    let to = postgres.sql(database.name(), steps).expect("there is a schema");
    assert_eq!((code, told), (Some(0), format!("schema 0 is now {to}\n")));
    let again = migrate(Some(database.url()));
    assert_eq!(again, (Some(0), format!("schema {to} is up to date\n"), String::new()));
    let (code, told, said) = migrate(Some(database.url_as("postgres", "not the password")));
    assert_eq!((code, told.as_str()), (Some(1), ""));
    assert!(said.starts_with("failed to migrate: ") && !said.contains("not the password"), "{said}");
    let (code, _, said) = migrate(None);
    assert_eq!((code, said.as_str()), (Some(2), "the url of a database is missing\n"));
}
