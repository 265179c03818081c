//! Each limit: the last size that passes, and the message of the first that does not.

use std::{fmt::Write, time::Duration};

use hodei_pipeline_file::{Limits, load, parse};

/// Under `limits`, `good` is accepted and `bad` is refused with `expected`.
fn check(limits: &Limits, good: &str, bad: &str, expected: &str) {
    if let Err(error) = parse(good.as_bytes(), "p.yaml", limits) {
        panic!("{error}\nfor:\n{good}");
    }
    match parse(bad.as_bytes(), "p.yaml", limits) {
        Ok(_) => panic!("accepted: {expected}"),
        Err(error) => assert_eq!(error.to_string(), expected),
    }
}

fn step(fields: &str) -> String {
    format!("steps:\n- id: a\n  run: x\n  {fields}\n")
}

fn base() -> Limits {
    Limits::default()
}

#[test]
fn sizes() {
    let fits = step("");
    let limits = Limits { file_bytes: fits.len(), ..base() };
    check(&limits, &fits, &format!("{fits} "), "p.yaml: the file is larger than the limit of 27 bytes");
    let limits = Limits { string_bytes: 5, ..base() };
    let message = "p.yaml:3: a string has 6 bytes, above the limit of 5";
    check(&limits, &step(""), "steps:\n- id: a\n  run: sixsix\n", message);
    let limits = Limits { depth: 4, ..base() };
    let message = "p.yaml:4: lists and mappings are nested deeper than the limit of 4";
    check(&limits, &step("env: {A: x}"), &step("env: {A: [[x]]}"), message);
}

#[test]
fn counts() {
    let limits = Limits { steps: 1, ..base() };
    let two = "steps:\n- {id: a, run: x}\n- {id: b, run: x}\n";
    check(&limits, &step(""), two, "p.yaml:2: the file has 2 steps, above the limit of 1");
    let limits = Limits { needs_per_step: 1, ..base() };
    let needs = |needs: &str| format!("{two}- {{id: c, run: x, needs: {needs}}}\n");
    let message = r#"p.yaml:4: step "c": needs has 2 ids, above the limit of 1"#;
    check(&limits, &needs("[a]"), &needs("[a, b]"), message);
    let limits = Limits { env_entries: 1, ..base() };
    let message = r#"p.yaml:4: step "a": env has 2 variables, above the limit of 1"#;
    check(&limits, &step("env: {A: x}"), &step("env: {A: x, B: x}"), message);
    let limits = Limits { outputs_per_step: 1, ..base() };
    let message = r#"p.yaml:4: step "a": outputs has 2 names, above the limit of 1"#;
    check(&limits, &step("outputs: [a]"), &step("outputs: [a, b]"), message);
    let limits = Limits { argv_items: 1, ..base() };
    let message = r#"p.yaml:1: step "a": run has 2 arguments, above the limit of 1"#;
    check(&limits, "steps: [{id: a, run: [x]}]", "steps: [{id: a, run: [x, y]}]", message);
    let limits = Limits { string_bytes: 7, ..base() };
    let message = r#"p.yaml:4: step "a": env: A has 8 bytes with its name, above the limit of 7"#;
    check(&limits, &step("env: {A: 1234x}"), &step("env: {A: 12345x}"), message);
}

#[test]
fn quantities() {
    let limits = Limits { timeout: Duration::from_millis(1_500), ..base() };
    let message = r#"p.yaml:4: step "a": timeout 1.501 is above the limit of 1500ms"#;
    check(&limits, &step("timeout: 1.5"), &step("timeout: 1.501"), message);
    let limits = Limits { retries: 3, ..base() };
    let message = r#"p.yaml:4: step "a": retries must be an integer from 0 to 3, not the integer 4"#;
    check(&limits, &step("retries: 3"), &step("retries: 4"), message);
    let limits = Limits { cpu_millis: 1_000, ..base() };
    let message = r#"p.yaml:4: step "a": resources: cpu "1001m" is above the limit of 1000m"#;
    check(&limits, &step("resources: {cpu: 1}"), &step("resources: {cpu: 1001m}"), message);
    let limits = Limits { memory_bytes: 1_024, ..base() };
    let message = r#"p.yaml:4: step "a": resources: memory 1025 is above the limit of 1024 bytes"#;
    check(&limits, &step("resources: {memory: 1KiB}"), &step("resources: {memory: 1025}"), message);
    let limits = Limits { gpus: 1, ..base() };
    let message = r#"p.yaml:4: step "a": resources: gpu must be an integer from 0 to 1, not the integer 2"#;
    check(&limits, &step("resources: {gpu: 1}"), &step("resources: {gpu: 2}"), message);
}

#[test]
fn aliases() {
    let limits = Limits { alias_nodes: 3, ..base() };
    let shared = |uses: &str| format!("env: &e {{A: x}}\nsteps:\n- id: a\n  run: x\n{uses}");
    let twice = "  env: *e\n- id: b\n  run: x\n  env: *e\n";
    let message = "p.yaml:8: aliases expand to more than the limit of 3 nodes";
    check(&limits, &shared("  env: *e\n"), &shared(twice), message);
    let limits = Limits { alias_bytes: 3, ..base() };
    let message = "p.yaml:8: aliases expand to more than the limit of 3 bytes";
    check(&limits, &shared("  env: *e\n"), &shared(twice), message);
}

#[test]
fn bombs() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..12 {
        let uses = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(laughs, "a{level}: &a{level} [{uses}]").unwrap();
    }
    let message = "p.yaml:6: aliases expand to more than the limit of 100000 nodes";
    check(&base(), &step(""), &laughs, message);
    let deep = format!("steps: {}", "[".repeat(500_000));
    let message = "p.yaml:1: lists and mappings are nested deeper than the limit of 16";
    check(&base(), &step(""), &deep, message);
    check(&base(), &step(""), &format!("steps: {}", "{a: ".repeat(200_000)), message);
    check(&base(), &step(""), &format!("steps:\n{}", "- ".repeat(200_000)), &message.replace(":1:", ":2:"));
}

/// The largest graphs of the default limits: a chain, a ring and a fan.
#[test]
fn ten_thousand_steps() {
    let chain = |first: &str| {
        let rest = (1..10_000).map(|at| format!("- {{id: s{at}, run: x, needs: [s{}]}}\n", at - 1));
        format!("steps:\n- {{id: s0, run: x, needs: [{first}]}}\n{}", rest.collect::<String>())
    };
    let expected = format!(
        "p.yaml:2: cycle: s0 -> {}(9968 more) -> s0",
        (0..31).map(|back| format!("s{} -> ", 9_999 - back)).collect::<String>()
    );
    check(&base(), &chain(""), &chain("s9999"), &expected);
}

#[test]
fn reading_stops_at_the_limit() {
    let limits = Limits { file_bytes: 64, ..base() };
    let error = load("/dev/zero", &limits).unwrap_err();
    assert_eq!(error.to_string(), "/dev/zero: the file is larger than the limit of 64 bytes");
}
