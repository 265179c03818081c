//! The program, started several times on a real server.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use hodei_core::testkit::lines;
use hodei_test_servers::{Database, Postgres};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process of the program, killed when it is dropped.
struct Node {
    child: Child,
    lines: Receiver<String>,
}

impl Node {
    fn start(database: &Database, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hodei-example-nodes"));
        command.arg(database.url()).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let lines = lines(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// Waits until it prints a line with this in it.
    fn prints(&self, text: &str) {
        while !self.lines.recv_timeout(PATIENCE).expect("it goes on").contains(text) {}
    }

    /// Waits until it ends well, and returns what it had left to print.
    fn ends(mut self) -> Vec<String> {
        let mut printed = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            printed.push(line);
        }
        assert!(self.child.wait().expect("a child").success(), "{printed:?}");
        printed
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_jobs_of_a_node_that_is_killed_run_at_others() {
    let database = Postgres::shared().expect("a server").database().expect("a database");
    let [dies, stays] = [(); 2].map(|()| Node::start(&database, &[]));
    [&dies, &stays].into_iter().for_each(|node| node.prints(" works"));
    let submits = Node::start(&database, &["200"]);
    dies.prints("resized");
    drop(dies);
    let printed = submits.ends();
    let ran: Vec<u32> = printed.iter().filter_map(|line| line.split_once(" ran ")?.1.parse().ok()).collect();
    assert_eq!(ran.iter().sum::<u32>(), 200, "{printed:?}");
    assert!(ran.len() >= 2, "others ran some of them: {printed:?}");
    let interrupt = rustix::process::Signal::INT;
    rustix::process::kill_process(rustix::process::Pid::from_child(&stays.child), interrupt)
        .expect("it works");
    stays.ends();
}
