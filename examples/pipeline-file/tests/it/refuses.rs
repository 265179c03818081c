//! Every way in which a file is wrong, and the exact line that says so.

use hodei_pipeline_file::{Limits, parse};

/// Parses each file as `p.yaml` and compares the whole message.
fn check(table: &[(&str, &str)]) {
    for (input, expected) in table {
        match parse(input.as_bytes(), "p.yaml", &Limits::default()) {
            Ok(_) => panic!("accepted:\n{input}\nexpected: {expected}"),
            Err(error) => assert_eq!(error.to_string(), *expected, "\nfor:\n{input}"),
        }
    }
}

/// As [`check`], for the fields of one step whose `id` and `run` are fine.
fn check_step(table: &[(&str, &str)]) {
    for (fields, expected) in table {
        let input = format!("steps:\n- id: a\n  run: x\n  {fields}\n");
        check(&[(&input, &format!("p.yaml:4: step \"a\": {expected}"))]);
    }
}

#[test]
fn shape_of_the_file() {
    check(&[
        ("", "p.yaml:1: the file is empty"),
        ("# a comment\n", "p.yaml:1: the file is empty"),
        ("---\n...\n", "p.yaml:1: the file is empty"),
        ("~", "p.yaml:1: the file is empty"),
        ("a\n", r#"p.yaml:1: the file must be a mapping with "steps", not the string "a""#),
        ("- a\n", r#"p.yaml:1: the file must be a mapping with "steps", not a list"#),
        ("\n\nname: x\n", r#"p.yaml:3: the file has no "steps""#),
        ("name: x\nsteps:\n", "p.yaml:2: steps must be a list of steps, not null"),
        ("steps: []\n", "p.yaml:1: steps is empty; a pipeline has at least one step"),
        ("steps: {a: b}\n", "p.yaml:1: steps must be a list of steps, not a mapping"),
        ("steps: 7\n", "p.yaml:1: steps must be a list of steps, not the integer 7"),
        ("name: [x]\nsteps: []", "p.yaml:1: name must be a string, not a list"),
        ("name: 1.5\nsteps: []", r#"p.yaml:1: name must be a string, not the number 1.5; quote it: "1.5""#),
        (
            "name: a/b\nsteps: []",
            r#"p.yaml:1: name "a/b" is not a name: 1 to 128 of A-Z a-z 0-9 _ . -, and not "." or "..""#,
        ),
        ("a: 1\n---\nb: 2\n", r#"p.yaml:2: the file has a second document; a pipeline file has one"#),
    ]);
}

#[test]
fn yaml_itself() {
    check(&[
        ("steps: [\n", "p.yaml:1: not valid YAML: while parsing a node, did not find expected node content"),
        (
            "steps:\n- id: a\n run: x\n",
            "p.yaml:3: not valid YAML: while parsing a block mapping, did not find expected key",
        ),
        (
            "steps:\n\t- id: a\n",
            "p.yaml:2: not valid YAML: tabs disallowed within this context (block indentation)",
        ),
        (
            "a: b\r\n\r\nb: [\r\n",
            "p.yaml:3: not valid YAML: while parsing a node, did not find expected node content",
        ),
        ("steps: *none\n", "p.yaml:1: not valid YAML: while parsing node, found unknown anchor"),
        ("name: a: b\n", "p.yaml:1: not valid YAML: mapping values are not allowed in this context"),
        ("steps: &a [*a]\n", "p.yaml:1: an alias refers to a node that it is part of"),
        ("name: a\nname: b\n", r#"p.yaml:2: the key "name" is there twice; first at line 1"#),
        ("steps:\n- id: a\n  run: x\n  id: b\n", r#"p.yaml:4: the key "id" is there twice; first at line 2"#),
        ("env: {A: x,\n  \"A\": y}\n", r#"p.yaml:2: the key "A" is there twice; first at line 1"#),
        ("1: x\n", "p.yaml:1: a key must be a string, not the integer 1"),
        ("true: x\n", "p.yaml:1: a key must be a string, not the boolean true"),
        ("steps: []\n~: x\n", "p.yaml:2: a key must be a string, not null"),
        ("? [a]\n: x\n", "p.yaml:1: a key must be a string, not a list"),
        ("{a: b}: x\n", "p.yaml:1: a key must be a string, not a mapping"),
        ("env:\n  <<: {A: x}\n", r#"p.yaml:2: merge keys ("<<") are not part of YAML 1.2"#),
        ("name: !!str x\n", r#"p.yaml:1: a tag ("!…") has no meaning in a pipeline file"#),
        ("name: \"a\\0b\"\n", r#"p.yaml:1: the string "a\0b" has a NUL character"#),
        ("steps:\n\n# \0\n", "p.yaml:3: the file has the character U+0000 at byte 10, which YAML forbids"),
        ("name: \u{1b}[31m\n", "p.yaml:1: the file has the character U+001B at byte 6, which YAML forbids"),
    ]);
}

#[test]
fn unknown_fields() {
    check(&[
        ("step: []\n", r#"p.yaml:1: the file has the unknown field "step"; did you mean "steps"?"#),
        (
            "version: '1'\n",
            r#"p.yaml:1: the file has the unknown field "version"; the fields are name, env, steps"#,
        ),
        (
            "steps:\n- id: a\n  run: x\n  image: y\n",
            "p.yaml:4: step \"a\" has the unknown field \"image\"; \
             the fields are id, run, needs, env, timeout, retries, resources, outputs",
        ),
        (
            "steps:\n- id: a\n  run: x\n  tiemout: 5s\n",
            r#"p.yaml:4: step "a" has the unknown field "tiemout"; did you mean "timeout"?"#,
        ),
        (
            "steps:\n- id: a\n  run: x\n  resources:\n    disk: 5\n",
            r#"p.yaml:5: step "a": resources has the unknown field "disk"; the fields are cpu, memory, gpu"#,
        ),
        (
            "steps:\n- id: a\n  \"x\\ny\": 1\n",
            "p.yaml:3: step \"a\" has the unknown field \"x\\ny\"; \
             the fields are id, run, needs, env, timeout, retries, resources, outputs",
        ),
    ]);
}

#[test]
fn ids() {
    const RULE: &str = r#"1 to 128 of A-Z a-z 0-9 _ . -, and not "." or "..""#;
    check(&[
        ("steps:\n- run: x\n", r#"p.yaml:2: step 1 has no "id""#),
        ("steps:\n- a\n", r#"p.yaml:2: step 1 must be a mapping with "id" and "run", not the string "a""#),
        (
            "steps:\n- id: a\n  run: x\n-\n",
            r#"p.yaml:4: step 2 must be a mapping with "id" and "run", not null"#,
        ),
        ("steps:\n- id: 7\n", r#"p.yaml:2: step 1: id must be a string, not the integer 7; quote it: "7""#),
        ("steps:\n- run: x\n  id:\n", "p.yaml:3: step 1: id must be a string, not null"),
        ("steps:\n- id: ''\n", &format!(r#"p.yaml:2: step 1: id "" is not a name: {RULE}"#)),
        ("steps:\n- id: ..\n", &format!(r#"p.yaml:2: step 1: id ".." is not a name: {RULE}"#)),
        ("steps:\n- id: \"a\\nb\"\n", &format!(r#"p.yaml:2: step 1: id "a\nb" is not a name: {RULE}"#)),
        ("steps:\n- id: é\n", &format!(r#"p.yaml:2: step 1: id "é" is not a name: {RULE}"#)),
        (
            &format!("steps:\n- id: {}\n", "a".repeat(129)),
            &format!(r#"p.yaml:2: step 1: id "{}…" is not a name: {RULE}"#, "a".repeat(80)),
        ),
        (
            "steps:\n- id: a\n  run: x\n- id: a\n  run: x\n",
            r#"p.yaml:4: the id "a" is there twice; first at line 2"#,
        ),
    ]);
}

#[test]
fn runs() {
    check(&[
        ("steps:\n- id: a\n", r#"p.yaml:2: step "a" has no "run""#),
        ("steps:\n- id: a\n  run: ''\n", r#"p.yaml:3: step "a": run is empty"#),
        ("steps:\n- id: a\n  run: |\n    \n\n", r#"p.yaml:3: step "a": run is empty"#),
        (
            "steps:\n- id: a\n  run:\n  env: {}\n",
            r#"p.yaml:3: step "a": run must be a string (a script) or a list (an argv), not null"#,
        ),
        (
            "steps:\n- id: a\n  run: {x: y}\n",
            r#"p.yaml:3: step "a": run must be a string (a script) or a list (an argv), not a mapping"#,
        ),
        (
            "steps:\n- id: a\n  run: true\n",
            r#"p.yaml:3: step "a": run must be a string (a script) or a list (an argv), not the boolean true"#,
        ),
        (
            "steps:\n- id: a\n  run: []\n",
            r#"p.yaml:3: step "a": run is an empty list; the first item is the program"#,
        ),
        (
            "steps:\n- id: a\n  run: ['', x]\n",
            r#"p.yaml:3: step "a": run has an empty program: the first item is """#,
        ),
        (
            "steps:\n- id: a\n  run:\n  - sleep\n  - 5\n",
            r#"p.yaml:5: step "a": run: item 2 must be a string, not the integer 5; quote it: "5""#,
        ),
        ("steps:\n- id: a\n  run: [echo, \"\\0\"]\n", r#"p.yaml:3: the string "\0" has a NUL character"#),
    ]);
}

#[test]
fn needs() {
    check(&[
        (
            "steps:\n- id: compile\n  run: x\n- id: test\n  run: x\n  needs: [complie]\n",
            r#"p.yaml:6: step "test" needs "complie", which no step has; did you mean "compile"?"#,
        ),
        (
            "steps:\n- id: a\n  run: x\n  needs:\n  - nothing\n",
            r#"p.yaml:5: step "a" needs "nothing", which no step has"#,
        ),
        ("steps:\n- id: a\n  run: x\n  needs:\n  - a\n", r#"p.yaml:5: step "a" needs itself"#),
        (
            "steps:\n- {id: z, run: x, needs: [b]}\n- {id: a, run: x, needs: [b]}\n\
             - {id: b, run: x, needs: [c]}\n- {id: c, run: x, needs: [a]}\n",
            "p.yaml:3: cycle: a -> b -> c -> a",
        ),
        (
            "steps:\n- {id: a, run: x, needs: [b]}\n- {id: b, run: x, needs: [a]}\n",
            "p.yaml:2: cycle: a -> b -> a",
        ),
    ]);
    check_step(&[
        ("needs: b", r#"needs must be a list of step ids, not the string "b""#),
        ("needs:", "needs must be a list of step ids, not null"),
        ("needs: [[b]]", "needs: item 1 must be a string, not a list"),
        ("needs: [1]", r#"needs: item 1 must be a string, not the integer 1; quote it: "1""#),
        ("needs: [b, b]", r#"needs has "b" twice"#),
    ]);
}

#[test]
fn env() {
    let name = |name: &str, wrong: &str| format!("env: the variable name {name} {wrong}");
    check_step(&[
        ("env: [A=1]", "env must be a mapping of names to strings, not a list"),
        ("env:", "env must be a mapping of names to strings, not null"),
        ("env: {A: 1}", r#"env: A must be a string, not the integer 1; quote it: "1""#),
        ("env: {A: yes, B: true}", r#"env: B must be a string, not the boolean true; quote it: "true""#),
        ("env: {A: }", "env: A must be a string, not null"),
        ("env: {A: {B: x}}", "env: A must be a string, not a mapping"),
        ("env: {'': x}", &name(r#""""#, "is empty")),
        ("env: {'A=B': x}", &name(r#""A=B""#, "has \"=\"")),
        ("env: {1A: x}", &name(r#""1A""#, "starts with a digit")),
        ("env: {É: x}", &name(r#""É""#, "has other characters than A-Z a-z 0-9 _")),
        ("env: {A-B: x}", &name(r#""A-B""#, "has other characters than A-Z a-z 0-9 _")),
        ("env: {HODEI_JOB: x}", &name(r#""HODEI_JOB""#, "is reserved: HODEI_ belongs to the engine")),
    ]);
    for denied in
        ["LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "BASH_ENV", "ENV", "PROMPT_COMMAND"]
    {
        let wrong = "is denied: it makes a loader or a shell run other code";
        check_step(&[(&format!("env: {{{denied}: x}}"), &name(&format!("\"{denied}\""), wrong))]);
    }
    check(&[(
        "env: {LD_PRELOAD: x}\nsteps: []\n",
        r#"p.yaml:1: env: the variable name "LD_PRELOAD" is denied: it makes a loader or a shell run other code"#,
    )]);
}

#[test]
fn timeouts() {
    for text in
        ["5x", "m", "1m1h", "1h1h", "1h30", "5 s", "-", "NaN", "1e3", ".inf", "-.inf", ".nan", "0x10", "5."]
    {
        let plain = !matches!(text, "1e3" | ".inf" | "-.inf" | ".nan" | "0x10" | "5.");
        let shown = if plain { format!("\"{text}\"") } else { text.to_owned() };
        let wrong = "is not a duration; write 500ms, 30s, 5m, 2h, 1h30m or a number of seconds";
        let field = if text == "-" { "timeout: '-'".to_owned() } else { format!("timeout: {text}") };
        check_step(&[(&field, &format!("timeout {shown} {wrong}"))]);
    }
    check_step(&[
        ("timeout:", "timeout must be a duration, not null"),
        ("timeout: true", "timeout must be a duration, not the boolean true"),
        ("timeout: [5s]", "timeout must be a duration, not a list"),
        (
            "timeout: ''",
            "timeout \"\" is not a duration; write 500ms, 30s, 5m, 2h, 1h30m or a number of seconds",
        ),
        ("timeout: 0", "timeout 0 is not more than zero"),
        ("timeout: 0s", "timeout \"0s\" is not more than zero"),
        ("timeout: -5", "timeout -5 is not more than zero"),
        ("timeout: -5s", "timeout \"-5s\" is not more than zero"),
        ("timeout: 0.0000000001", "timeout 0.0000000001 is finer than a nanosecond"),
        ("timeout: 169h", "timeout \"169h\" is above the limit of 168h"),
        ("timeout: 604801", "timeout 604801 is above the limit of 168h"),
        ("timeout: 999999999999999999999h", "timeout \"999999999999999999999h\" is above the limit of 168h"),
    ]);
}

#[test]
fn retries_and_resources() {
    const CPU: &str = "is not a number of processors; write 500m, 2 or 0.5";
    const MEMORY: &str = "is not an amount of memory; write a number of bytes or one with KiB, MiB, GiB, TiB, KB, MB, GB or TB";
    check_step(&[
        ("retries: -1", "retries must be an integer from 0 to 100, not the integer -1"),
        ("retries: 101", "retries must be an integer from 0 to 100, not the integer 101"),
        ("retries: 1.5", "retries must be an integer from 0 to 100, not the number 1.5"),
        ("retries: '2'", r#"retries must be an integer from 0 to 100, not the string "2""#),
        ("retries: []", "retries must be an integer from 0 to 100, not a list"),
        ("resources: 2", "resources must be a mapping with cpu, memory or gpu, not the integer 2"),
        ("resources:", "resources must be a mapping with cpu, memory or gpu, not null"),
        ("resources: {cpu: []}", "resources: cpu must be a number of processors, not a list"),
        ("resources: {cpu: two}", &format!("resources: cpu \"two\" {CPU}")),
        ("resources: {cpu: .nan}", &format!("resources: cpu .nan {CPU}")),
        ("resources: {cpu: 1e3}", &format!("resources: cpu 1e3 {CPU}")),
        ("resources: {cpu: -1}", "resources: cpu -1 is negative"),
        ("resources: {cpu: 0.0001}", "resources: cpu 0.0001 is finer than 1m"),
        ("resources: {cpu: 0.5m}", "resources: cpu \"0.5m\" is finer than 1m"),
        ("resources: {cpu: 1001}", "resources: cpu 1001 is above the limit of 1000000m"),
        ("resources: {memory: true}", "resources: memory must be an amount of memory, not the boolean true"),
        ("resources: {memory: 5XB}", &format!("resources: memory \"5XB\" {MEMORY}")),
        ("resources: {memory: 5Mi}", &format!("resources: memory \"5Mi\" {MEMORY}")),
        ("resources: {memory: -5MiB}", "resources: memory \"-5MiB\" is negative"),
        ("resources: {memory: 1.5}", "resources: memory 1.5 is not a whole number of bytes"),
        (
            "resources: {memory: 65TiB}",
            "resources: memory \"65TiB\" is above the limit of 70368744177664 bytes",
        ),
        ("resources: {gpu: 0.5}", "resources: gpu must be an integer from 0 to 1024, not the number 0.5"),
        ("resources: {gpu: 1025}", "resources: gpu must be an integer from 0 to 1024, not the integer 1025"),
    ]);
}

#[test]
fn outputs() {
    const RULE: &str = r#"1 to 128 of A-Z a-z 0-9 _ . -, and not "." or "..""#;
    check_step(&[
        ("outputs: dir", r#"outputs must be a list of names, not the string "dir""#),
        ("outputs: [{}]", "outputs: item 1 must be a string, not a mapping"),
        ("outputs: [a b]", &format!(r#"outputs: item 1 "a b" is not a name: {RULE}"#)),
        ("outputs: [a, a]", r#"outputs has "a" twice"#),
    ]);
}

#[test]
fn bytes_that_are_not_text() {
    let refuse = |bytes: &[u8]| parse(bytes, "p.yaml", &Limits::default()).unwrap_err().to_string();
    assert_eq!(refuse(b"a: b\r\nc\rd\n\xff"), "p.yaml:4: the file is not UTF-8 at byte 10");
    assert_eq!(refuse(b"\xff\xfea\0"), "p.yaml:1: the file is not UTF-8 at byte 0");
    assert_eq!(refuse(b"a: \xc3"), "p.yaml:1: the file is not UTF-8 at byte 3");
}
