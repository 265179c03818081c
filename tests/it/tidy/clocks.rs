//! The SQL of the PostgreSQL store goes by one clock, `hodei.now()`, which is the one that tests stop and set.

use std::fs;

use crate::house::root;

/// Where the SQL of the schema is.
const SCHEMA: &str = "hodei-store-pg/src/schema";

/// What tells the time in PostgreSQL, in small letters.
const CLOCKS: [&str; 9] = [
    "now(",
    "clock_timestamp",
    "statement_timestamp",
    "transaction_timestamp",
    "current_timestamp",
    "localtimestamp",
    "current_time",
    "localtime",
    "timeofday",
];

/// Which files read a clock of the server, which, and how often: the one clock itself, and how long a search that gives up
/// has taken.
const MAY: [(&str, &str, usize); 2] =
    [("now.sql", "clock_timestamp", 1), ("retention.sql", "clock_timestamp", 4)];

/// The lines of a script that read a clock of the server, with that clock.
fn clocks_of(sql: &str) -> Vec<(usize, &'static str)> {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default().to_lowercase());
    let mut found = Vec::new();
    for (number, line) in lines.enumerate() {
        let line = line.replace("hodei.now()", "");
        for clock in CLOCKS {
            let whole = |at: usize, word: &str| {
                let is_word = |letter: char| letter == '_' || letter.is_alphanumeric();
                !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word)
            };
            let times =
                line.match_indices(clock).filter(|(at, word)| word.ends_with('(') || whole(*at, word));
            found.extend(times.map(|_| (number + 1, clock)));
        }
    }
    found
}

#[test]
fn the_schema_knows_one_clock() {
    let mut read = Vec::new();
    for entry in fs::read_dir(root().join(SCHEMA)).expect("the schema is there") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|ending| ending == "sql") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let sql = fs::read_to_string(&path).expect("it is text");
            read.extend(clocks_of(&sql).into_iter().map(|(line, clock)| (name.clone(), line, clock)));
        }
    }
    let strange =
        |(name, _, clock): &&(String, usize, &str)| !MAY.iter().any(|may| (may.0, may.1) == (name, clock));
    assert_eq!(read.iter().filter(strange).collect::<Vec<_>>(), Vec::<&(String, usize, &str)>::new());
    for (name, clock, times) in MAY {
        let count = read.iter().filter(|read| (read.0.as_str(), read.2) == (name, clock)).count();
        assert_eq!(count, times, "{name} reads {clock}");
    }
}

#[test]
fn a_clock_that_is_none_of_ours_is_found() {
    let clocks = |sql| clocks_of(sql).into_iter().map(|(_, clock)| clock).collect::<Vec<_>>();
    assert_eq!(clocks("a := hodei.now(); -- now()"), Vec::<&str>::new());
    assert_eq!(clocks("SELECT date_trunc('minute', NOW()), hodei.now()"), ["now("]);
    assert_eq!(clocks("a int8 DEFAULT pg_catalog.clock_timestamp()"), ["clock_timestamp"]);
    assert_eq!(
        clocks("current_time_of = CURRENT_TIMESTAMP(3) + localtime"),
        ["current_timestamp", "localtime"]
    );
}
