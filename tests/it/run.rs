//! The program `run`, from its command line to its exit code.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::Signal;

use crate::program::{Ended, Program, example, marked, until};

const SUCCEEDED: Option<i32> = Some(0);
const FAILED: Option<i32> = Some(1);
const BAD_INPUT: Option<i32> = Some(2);
const INTERRUPTED: Option<i32> = Some(130);

/// A directory with a pipeline file, in which `run` runs.
struct Place(tempfile::TempDir);

impl Place {
    fn new(file: impl AsRef<[u8]>) -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        place.write(file);
        place
    }

    fn write(&self, file: impl AsRef<[u8]>) {
        fs::write(self.path("p.yaml"), file).expect("the pipeline file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, args: &[&str]) -> Program {
        static RUN: OnceLock<PathBuf> = OnceLock::new();
        Program::start(RUN.get_or_init(|| example("run")), self.0.path(), "run", args)
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.start(args).wait()
    }

    /// Returns the lines of a file that the steps write.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Returns the words of a step's line in the summary table.
fn row<'a>(ended: &'a Ended, step: &str) -> Vec<&'a str> {
    let table = ended.stdout.rsplit("\n\n").next().unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|row| row.first() == Some(&step)).expect("a line of the table")
}

#[test]
fn the_shipped_pipelines_succeed() {
    let pipelines = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pipelines"));
    let files = fs::read_dir(pipelines).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let place = Place::new("");
        let ended = place.run(&[file.to_str().unwrap(), "--store", place.path("store").to_str().unwrap()]);
        assert_eq!(ended.code(), SUCCEEDED, "{}: {ended:?}", file.display());
        let table = ended.stdout.rsplit("\n\n").next().unwrap();
        assert!(
            table.lines().skip(1).all(|line| line.contains("succeeded") && line.ends_with(" 0")),
            "{table}"
        );
    }
}

#[test]
fn a_failed_step_is_code_1_and_what_needs_it_is_not_run() {
    let place = Place::new(
        "steps:\n- {id: good, run: 'echo out; echo err >&2'}\n- {id: bad, run: 'exit 7'}\n\
         - {id: after, needs: [bad], run: 'touch after'}\n",
    );
    let ended = place.run(&["p.yaml"]);
    assert_eq!(ended.code(), FAILED, "{ended:?}");
    assert!(ended.line("good | out").is_some() && ended.line("good | err").is_some(), "{ended:?}");
    assert_eq!(row(&ended, "good")[1..3], ["succeeded", "1"]);
    assert_eq!((row(&ended, "bad")[1], row(&ended, "bad").last()), ("failed", Some(&"7")));
    assert_eq!(row(&ended, "after")[1..3], ["failed", "0"]);
    assert!(!place.path("after").exists());
}

#[test]
fn retries_timeouts_env_outputs_and_argv_are_honoured() {
    let place = Place::new(
        "env: {WHO: world, LEFT: here}\nsteps:\n\
         - {id: again, retries: 2, run: 'echo x >> tries; [ $(wc -l < tries) = 3 ]'}\n\
         - {id: slow, timeout: 200ms, run: 'sleep 60'}\n\
         - {id: argv, env: {LEFT: over}, run: [printenv, LEFT]}\n\
         - id: give\n  run: 'echo \"{\\\"word\\\": \\\"$WHO\\\"}\" > $HODEI_OUTPUT'\n  outputs: [word]\n\
         - {id: take, needs: [give], run: 'cat $HODEI_INPUTS'}\n",
    );
    let ended = place.run(&["p.yaml", "--jobs", "2"]);
    assert_eq!(ended.code(), FAILED, "{ended:?}");
    assert_eq!(row(&ended, "again")[1..3], ["succeeded", "3"]);
    assert_eq!(row(&ended, "slow")[1], "failed");
    assert!(ended.line("argv | over").is_some(), "{ended:?}");
    assert_eq!(ended.line("take | "), Some(r#"{"give":{"word":"world"}}"#));
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let mark = format!("run-{}", std::process::id());
    let place = Place::new(format!(
        "env: {{RUN_TEST_MARK: {mark}}}\nsteps:\n- {{id: first, run: 'echo x >> first'}}\n\
         - {{id: second, needs: [first], run: 'echo x >> second; [ -e go ] || sleep 600'}}\n"
    ));
    let running = place.start(&["p.yaml"]);
    until("the second step runs", || place.path("second").exists());
    running.signal(Signal::INT);
    let ended = running.wait();
    assert_eq!(ended.code(), INTERRUPTED, "{ended:?}");
    assert_eq!(marked("RUN_TEST_MARK", &mark), Vec::<i32>::new(), "the step lives on");
    let id = ended.line("run ").expect("an id").to_owned();

    fs::write(place.path("go"), "").unwrap();
    let ended = place.run(&["p.yaml"]);
    assert_eq!((ended.code(), ended.line("run ")), (SUCCEEDED, Some(id.as_str())), "{ended:?}");
    assert_eq!((place.lines("first").len(), place.lines("second").len()), (1, 2));

    let ended = place.run(&["p.yaml"]);
    assert_eq!(ended.code(), SUCCEEDED);
    assert_ne!(ended.line("run "), Some(id.as_str()), "a finished run is not resumed");
    assert_eq!(place.lines("first").len(), 2);
}

#[test]
fn a_run_that_is_killed_again_and_again_is_still_resumed() {
    const KILLS: usize = 5;
    let place = Place::new(
        "steps:\n- {id: first, run: 'echo x >> first'}\n\
         - {id: second, needs: [first], run: 'echo x >> second; [ -e go ] || sleep 600'}\n",
    );
    let mut ids = Vec::new();
    for kill in 1..=KILLS {
        let running = place.start(&["p.yaml"]);
        until("the second step runs once more", || place.lines("second").len() == kill);
        ids.push(running.kill().line("run ").expect("an id").to_owned());
    }
    fs::write(place.path("go"), "").unwrap();
    let ended = place.run(&["p.yaml"]);
    assert_eq!(ended.code(), SUCCEEDED, "{ended:?}");
    ids.push(ended.line("run ").expect("an id").to_owned());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!((place.lines("first").len(), place.lines("second").len()), (1, KILLS + 1));
    assert_eq!(row(&ended, "second")[1..3], ["succeeded", "1"], "a lost run costs no attempt");
    let left = fs::read_dir(place.path(".hodei/p/work")).unwrap().count();
    assert_eq!(left, 0, "killed runs leave no directories behind");
}

#[test]
fn a_supervisor_and_a_closed_terminal_end_a_run_like_its_user() {
    for (n, signal) in [Signal::TERM, Signal::HUP].into_iter().enumerate() {
        let mark = format!("end-{n}-{}", std::process::id());
        let place = Place::new(format!(
            "env: {{RUN_TEST_MARK: {mark}}}\nsteps:\n- {{id: a, run: 'sleep 600 & touch began; wait'}}\n"
        ));
        let running = place.start(&["p.yaml"]);
        until("the step runs", || place.path("began").exists());
        running.signal(signal);
        let ended = running.wait();
        assert_eq!(ended.code(), INTERRUPTED, "{ended:?}");
        assert_eq!(marked("RUN_TEST_MARK", &mark), Vec::<i32>::new(), "the step lives on");
    }
}

#[test]
fn whatever_a_step_puts_in_place_of_its_output_is_refused_at_once() {
    let place = Place::new(
        "steps:\n- {id: link, run: 'ln -s /dev/zero $HODEI_OUTPUT'}\n\
         - {id: pipe, run: 'mkfifo $HODEI_OUTPUT'}\n- {id: folder, run: 'mkdir $HODEI_OUTPUT'}\n\
         - {id: large, run: 'head -c 65537 /dev/zero > $HODEI_OUTPUT'}\n\
         - {id: text, run: 'echo text > $HODEI_OUTPUT'}\n\
         - {id: less, outputs: [word], run: 'true'}\n",
    );
    let ended = place.run(&["p.yaml"]);
    assert_eq!(ended.code(), FAILED, "{ended:?}");
    for (step, said) in [
        ("link", "the output file cannot be read"),
        ("pipe", "the output file cannot be read: it is not a regular file"),
        ("folder", "the output file cannot be read: it is not a regular file"),
        ("large", "the output file has more than the 65536 bytes that are kept"),
        ("text", "the output file is not a JSON object of strings"),
        ("less", "it did not write word"),
    ] {
        let row = row(&ended, step).join(" ");
        assert!(row.contains("failed 1 ") && row.contains(said), "{row}");
    }
}

#[test]
fn a_terminal_that_stands_still_does_not_stop_the_steps() {
    let place = Place::new(
        "steps:\n- {id: noisy, run: 'seq 100000'}\n- {id: steady, run: 'echo x >> steady; sleep 8; touch done'}\n",
    );
    let mut running = Command::new(example("run"))
        .args(["p.yaml", "--jobs", "2"])
        .current_dir(place.0.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Nobody reads: the pipe is full long before the steady step has outlived what a silent node may live.
    until("the steady step has ended", || place.path("done").exists());
    let mut shown = String::new();
    running.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert_eq!((running.wait().unwrap().code(), place.lines("steady").len()), (SUCCEEDED, 1), "it ran again");
    assert_eq!(shown.lines().filter(|line| line.starts_with("noisy | ")).count(), 100_000);
}

#[test]
fn changed_bytes_are_refused_unless_new() {
    let place = Place::new("steps:\n- {id: a, run: 'touch began; sleep 600'}\n");
    let running = place.start(&["p.yaml"]);
    until("the step runs", || place.path("began").exists());
    running.signal(Signal::INT);
    assert_eq!(running.wait().code(), INTERRUPTED);

    place.write("steps:\n- {id: a, run: 'touch changed'}\n");
    let ended = place.run(&["p.yaml"]);
    assert_eq!(ended.code(), BAD_INPUT, "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.starts_with("p.yaml: ") && ended.stderr.contains("--new"), "{ended:?}");
    assert!(!place.path("changed").exists());

    let ended = place.run(&["p.yaml", "--new"]);
    assert_eq!(ended.code(), SUCCEEDED, "{ended:?}");
    assert!(place.path("changed").exists());
}

#[test]
fn a_store_is_open_once() {
    let place = Place::new("steps:\n- {id: a, run: 'touch began; while [ ! -e go ]; do sleep 0.01; done'}\n");
    let first = place.start(&["p.yaml"]);
    until("the step runs", || place.path("began").exists());
    let program = example("run");
    let second = Program::start(&program, place.0.path(), "second", ["p.yaml"]).wait();
    fs::write(place.path("go"), "").unwrap();
    assert_eq!(second.code(), BAD_INPUT, "{second:?}");
    assert!(second.stderr.to_lowercase().contains("locked"), "{second:?}");
    assert_eq!(first.wait().code(), SUCCEEDED);
}

/// Bad pipeline files, and what is said of them after the name of the file.
fn bad_files() -> Vec<(Vec<u8>, &'static str)> {
    let many = (0..10_001).fold("steps:\n".to_owned(), |text, n| text + &format!("- {{id: s{n}, run: x}}\n"));
    vec![
        (b"".to_vec(), ":1: the file is empty"),
        (b"steps: []\n".to_vec(), ":1: steps is empty; a pipeline has at least one step"),
        (
            b"steps:\n- {id: a, needs: [b], run: x}\n- {id: b, needs: [a], run: x}\n".to_vec(),
            ":2: cycle: a -> b -> a",
        ),
        (
            b"steps:\n- {id: a, needs: [b], run: x}\n".to_vec(),
            ":2: step \"a\" needs \"b\", which no step has",
        ),
        (
            b"steps:\n- {id: a, run: x}\n- {id: a, run: y}\n".to_vec(),
            ":3: the id \"a\" is there twice; first at line 2",
        ),
        (b"steps: 7\n".to_vec(), ":1: steps must be a list of steps, not the integer 7"),
        (
            b"steps:\n- {id: a, run: 7}\n".to_vec(),
            ":2: step \"a\": run must be a string (a script) or a list (an argv), not the integer 7",
        ),
        (
            b"steps:\n- {id: a, run: x, colour: red}\n".to_vec(),
            ":2: step \"a\" has the unknown field \"colour\"; the fields are \
             id, run, needs, env, timeout, retries, resources, outputs",
        ),
        (
            b"steps:\n- {id: a, run: x}\ncolour: red\n".to_vec(),
            ":3: the file has the unknown field \"colour\"; the fields are name, env, steps",
        ),
        (b"name: a\nname: b\n".to_vec(), ":2: the key \"name\" is there twice; first at line 1"),
        (
            b"steps: [\n".to_vec(),
            ":1: not valid YAML: while parsing a node, did not find expected node content",
        ),
        (many.into_bytes(), ":2: the file has 10001 steps, above the limit of 10000"),
        (b"steps:\n- {id: a, run: \"\xff\"}\n".to_vec(), ":2: the file is not UTF-8 at byte 23"),
        (vec![b'#'; 2 << 20], ": the file is larger than the limit of 1048576 bytes"),
    ]
}

#[test]
fn bad_files_get_one_line_and_code_2_and_no_store() {
    let place = Place::new("");
    for (file, said) in bad_files() {
        place.write(file);
        let ended = place.run(&["p.yaml"]);
        let expected = format!("p.yaml{said}\n");
        assert_eq!((ended.code(), ended.stdout.as_str(), &ended.stderr), (BAD_INPUT, "", &expected));
        assert!(!place.path(".hodei").exists(), "{said}: a store was made");
    }
}

#[test]
fn a_step_that_the_machine_can_never_run_is_refused_at_once() {
    let place = Place::new("steps:\n- {id: a, run: x}\n- {id: b, run: x, resources: {gpu: 1000}}\n");
    let ended = place.run(&["p.yaml"]);
    assert_eq!(ended.code(), BAD_INPUT, "{ended:?}");
    assert!(ended.stderr.starts_with("p.yaml:3: step \"b\" needs 1000 gpus, this machine has "), "{ended:?}");
    assert!(!place.path(".hodei").exists(), "a store was made");
}

#[test]
fn bad_command_lines_get_one_line_and_code_2() {
    let place = Place::new("steps:\n- {id: a, run: 'true'}\n");
    let cases: [(&[&str], &str); 8] = [
        (&[], "usage: run FILE"),
        (&["absent.yaml"], "absent.yaml: "),
        (&["."], ".: "),
        (&["p.yaml", "q.yaml"], "one FILE, please"),
        (&["p.yaml", "--jobs"], "--jobs wants a value"),
        (&["p.yaml", "--jobs", "0"], "--jobs wants a number from 1 to 1024, not \"0\""),
        (&["p.yaml", "--jobs", "many"], "--jobs wants a number from 1 to 1024, not \"many\""),
        (&["p.yaml", "--colour"], "unknown option \"--colour\""),
    ];
    for (args, said) in cases {
        let ended = place.run(args);
        assert_eq!((ended.code(), ended.stderr.lines().count()), (BAD_INPUT, 1), "{args:?}: {ended:?}");
        assert!(ended.stderr.starts_with(said), "{args:?}: {ended:?}");
        assert!(!place.path(".hodei").exists(), "{args:?}: a store was made");
    }
}

#[test]
fn a_store_that_can_write_no_more_ends_the_run_which_goes_on_when_it_can() {
    let step = |n: u32| {
        let text = "printf '{\"a\": \"%060000d\"}' 0 > $HODEI_OUTPUT";
        format!("- id: s{n}\n  needs: [s{}]\n  run: |\n    {text}\n", n - 1)
    };
    let first = "steps:\n- {id: s0, run: 'echo x >> ran'}\n".to_owned();
    let file = (1..20).fold(first, |file, n| file + &step(n));
    let place = Place::new(file);
    // No file may grow beyond 512 KiB, and trying is an error instead of a signal.
    let limited = format!("trap '' XFSZ; ulimit -f 1024; exec {} p.yaml", example("run").display());
    let ended = Program::start(Path::new("/bin/sh"), place.0.path(), "run", ["-c", &limited]).wait();
    assert_eq!((ended.code(), ended.stderr.lines().count()), (FAILED, 1), "{ended:?}");
    assert!(ended.stderr.contains("input/output error"), "{ended:?}");
    let id = ended.line("run ").expect("an id").to_owned();

    let ended = place.run(&["p.yaml"]);
    assert_eq!((ended.code(), ended.line("run ")), (SUCCEEDED, Some(id.as_str())), "{ended:?}");
    assert_eq!(place.lines("ran").len(), 1);
}

#[test]
fn arguments_and_pipes_may_be_anything() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new("name: odd\nsteps:\n- {id: a, run: 'touch ran'}\n");
    let odd = std::ffi::OsStr::from_bytes(b"odd-\xff.yaml");
    fs::rename(place.path("p.yaml"), place.0.path().join(odd)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut run = Command::new(example("run"));
    run.arg(odd).args(["--store", "st"]).current_dir(place.0.path()).stdout(writer);
    let code = run.status().unwrap().code();
    assert_eq!(
        (code, place.path("ran").exists()),
        (SUCCEEDED, true),
        "nobody listens, and it runs all the same"
    );
}

#[test]
fn the_quickstart_is_short() {
    let text = include_str!("../../examples/quickstart.rs");
    let code = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    assert!(code.count() <= 40);
}

#[test]
fn the_quickstart_shows_all_three_kinds_of_work() {
    let directory = tempfile::tempdir().unwrap();
    let ended =
        Program::start(&example("quickstart"), directory.path(), "quickstart", std::iter::empty::<&str>())
            .wait();
    assert_eq!(ended.code(), SUCCEEDED, "{ended:?}");
    assert!(ended.line("handler:  ").is_some_and(|line| line.contains("hello, world")), "{ended:?}");
    assert_eq!(ended.line("pipeline: "), Some("Succeeded"));
    assert!(ended.line("command: ").is_some_and(|line| line.starts_with("Linux ")), "{ended:?}");
    assert_eq!(ended.line("test: "), Some(r#"testing with {"build":{"file":"app"}}"#));
}
