//! Files that are right, and what they become.

use std::{path::Path, time::Duration};

use hodei_pipeline_file::{Limits, PipelineFile, Resources, Run, load, parse};

fn accept(input: &str) -> PipelineFile {
    match parse(input.as_bytes(), "dir/p.yaml", &Limits::default()) {
        Ok(file) => file,
        Err(error) => panic!("{error}\nfor:\n{input}"),
    }
}

#[test]
fn every_field() {
    let file = accept(
        "name: build\nenv: {A: a, B: b}\nsteps:\n- id: fetch\n  run: |\n    set -x\n    true\n\n\
         - id: compile\n  run: [cc, -o, x]\n  needs: [fetch]\n  env: {B: \"2\"}\n  timeout: 1h30m\n  retries: 2\n\
         \x20 resources: {cpu: 500m, memory: 256MiB, gpu: 1}\n  outputs: [binary, log]\n",
    );
    assert_eq!(file.name, "build");
    let [fetch, compile] = &file.steps[..] else { panic!("{file:?}") };
    assert_eq!((fetch.line, compile.line), (4, 9));
    assert_eq!(fetch.run, Run::Shell("set -x\ntrue\n".to_owned()));
    assert_eq!((fetch.timeout, fetch.retries, fetch.resources), (None, 0, Resources::default()));
    assert_eq!(compile.run, Run::Argv(["cc", "-o", "x"].map(String::from).to_vec()));
    assert_eq!(compile.needs, ["fetch"]);
    assert_eq!(compile.timeout, Some(Duration::from_secs(5_400)));
    assert_eq!(compile.retries, 2);
    assert_eq!(compile.resources, Resources { cpu_millis: 500, memory_bytes: 256 << 20, gpus: 1 });
    assert_eq!(compile.outputs, ["binary", "log"]);
    let env = file.env_of(compile);
    assert_eq!(env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["A=a", "B=2"]);
}

#[test]
fn quantities() {
    let step = |fields: &str| accept(&format!("steps: [{{id: a, run: x, {fields}}}]")).steps.remove(0);
    for (text, millis) in [
        ("500ms", 500),
        ("30s", 30_000),
        ("30", 30_000),
        ("'30'", 30_000),
        ("0.25", 250),
        ("1.5h", 5_400_000),
        ("1h2m3s4ms", 3_723_004),
        ("168h", 604_800_000),
    ] {
        assert_eq!(step(&format!("timeout: {text}")).timeout, Some(Duration::from_millis(millis)), "{text}");
    }
    for (text, millis) in [("500m", 500), ("2", 2_000), ("0.5", 500), ("'1.250'", 1_250), ("0", 0)] {
        assert_eq!(step(&format!("resources: {{cpu: {text}}}")).resources.cpu_millis, millis, "{text}");
    }
    for (text, bytes) in
        [("1GiB", 1 << 30), ("512MB", 512_000_000), ("4096", 4_096), ("1.5KiB", 1_536), ("7B", 7)]
    {
        assert_eq!(step(&format!("resources: {{memory: {text}}}")).resources.memory_bytes, bytes, "{text}");
    }
}

#[test]
fn notations_of_yaml() {
    let file =
        accept("\u{feff}%YAML 1.2\n---\r\nsteps:\r\n- &a {id: \"x\", run: &r 'true', env: &e {K: no}}\r\n");
    assert_eq!(file.steps[0].env["K"], "no");
    let file =
        accept("steps:\n- {id: a, run: &r [echo], env: &e {K: v}}\n- {id: b, run: *r, env: *e}\n...\n");
    assert_eq!(file.steps[0].run, file.steps[1].run);
    assert_eq!(file.steps[1].env["K"], "v");
}

#[test]
fn the_name_is_the_stem() {
    let text = b"steps: [{id: a, run: x}]";
    let limits = Limits::default();
    assert_eq!(parse(text, "/tmp/my.build.yaml", &limits).unwrap().name, "my.build");
    let error = parse(text, "my build\n.yaml", &limits).unwrap_err();
    let rule = r#"1 to 128 of A-Z a-z 0-9 _ . -, and not "." or "..""#;
    assert_eq!(
        error.to_string(),
        format!(r#"my build\n.yaml: the file needs a "name": its stem is not one ({rule})"#)
    );
    assert_eq!((error.file(), error.line()), (r"my build\n.yaml", None));
}

#[test]
fn files() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    for name in ["c-project", "report", "checks"] {
        let file = load(here.join(format!("{name}.yaml")), &Limits::default()).unwrap();
        assert_eq!(file.name, name);
    }
    let missing = load("no/such.yaml", &Limits::default()).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "no/such.yaml: cannot read the file: No such file or directory (os error 2)"
    );
}
