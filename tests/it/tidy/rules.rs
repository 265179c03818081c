//! What is wrong with one source file. Each rule is a pure function from a file to its violations.

use super::source::{Function, Source, closing_brace};

/// No file is longer.
pub(crate) const FILE_LIMIT: usize = 900;
/// A file that is longer is named in a note.
pub(crate) const FILE_TARGET: usize = 600;
/// No function body has more lines of code, unless its attributes expect the lint.
const FUNCTION_LIMIT: usize = 70;

/// Names that say nothing about what a module holds.
const EMPTY_NAMES: [&str; 4] = ["util", "common", "helper", "manager"];

/// What a state machine may not know: an async runtime, a clock, or unseeded randomness.
const OUTSIDE_A_MACHINE: [&str; 10] = [
    "tokio",
    "async_std",
    "smol",
    "Instant",
    "SystemTime",
    "rand",
    "fastrand",
    "getrandom",
    "now_v7",
    "new_v4",
];

/// A rule: the violations of one file, as messages that begin with the line.
pub(crate) type Rule = fn(&Source) -> Vec<String>;

/// Every rule with its name.
pub(crate) const RULES: [(&str, Rule); 11] = [
    ("file length", file_length),
    ("function length", function_length),
    ("no skipped test", no_skipped_test),
    ("no unfinished code", no_unfinished_code),
    ("expect instead of allow", no_allow),
    ("unsafe only in sys", unsafe_only_in_sys),
    ("machines know no world", pure_machines),
    ("telling names", telling_names),
    ("mod.rs is a table of contents", bare_mod_file),
    ("examples say how to run them", example_docs),
    ("what is dropped is spoken of", cancel_safety),
];

/// A file has at most [`FILE_LIMIT`] lines.
fn file_length(source: &Source) -> Vec<String> {
    let length = source.length();
    if length <= FILE_LIMIT { Vec::new() } else { vec![format!("{length} lines, at most {FILE_LIMIT}")] }
}

/// A function has at most [`FUNCTION_LIMIT`] lines of code, unless it says why it has more.
fn function_length(source: &Source) -> Vec<String> {
    let too_long = |function: &Function| function.length > FUNCTION_LIMIT && !function.may_be_long;
    source
        .functions()
        .iter()
        .filter(|function| too_long(function))
        .map(|Function { name, line, length, .. }| {
            format!("{line}: `{name}` has {length} lines, at most {FUNCTION_LIMIT}")
        })
        .collect()
}

/// No test is switched off.
fn no_skipped_test(source: &Source) -> Vec<String> {
    containing(source, &["#[ignore"])
}

/// Nothing is left to be written.
fn no_unfinished_code(source: &Source) -> Vec<String> {
    containing(source, &["todo!", "unimplemented!"])
}

/// A lint is expected with a reason, never allowed.
fn no_allow(source: &Source) -> Vec<String> {
    containing(source, &["#[allow(", "#![allow(", ", allow("])
}

/// The word `unsafe` stands in files and folders called `sys` only.
fn unsafe_only_in_sys(source: &Source) -> Vec<String> {
    if in_module(&source.path, "sys") { Vec::new() } else { words(source, &["unsafe"]) }
}

/// Files and folders called `machine` name nothing of [`OUTSIDE_A_MACHINE`].
fn pure_machines(source: &Source) -> Vec<String> {
    if in_module(&source.path, "machine") { words(source, &OUTSIDE_A_MACHINE) } else { Vec::new() }
}

/// No module, by its file, its folder or its declaration, has one of the [`EMPTY_NAMES`].
fn telling_names(source: &Source) -> Vec<String> {
    let mut found: Vec<String> = parts(&source.path)
        .filter(|part| is_empty_name(part))
        .map(|part| format!("the path has `{part}`"))
        .collect();
    let words: Vec<(usize, &str)> = source.words().collect();
    found.extend(
        words
            .windows(2)
            .filter(|pair| pair[0].1 == "mod" && is_empty_name(pair[1].1))
            .map(|pair| format!("{}: `mod {}`", pair[1].0, pair[1].1)),
    );
    found
}

/// A `mod.rs` below a `src` holds docs, attributes, `mod` and `use` lines and `compile_error!` guards only.
fn bare_mod_file(source: &Source) -> Vec<String> {
    let folders: Vec<&str> = source.path.split('/').collect();
    if !folders.contains(&"src") || folders.last() != Some(&"mod.rs") {
        return Vec::new();
    }
    items(&source.code)
        .into_iter()
        .filter(|item| !is_entry(item))
        .map(|item| format!("holds `{item}`"))
        .collect()
}

/// A program under `examples/` opens with its docs, which name the command that runs it.
fn example_docs(source: &Source) -> Vec<String> {
    let is_program = source.functions().iter().any(|function| function.name == "main");
    if !is_program || !source.path.split('/').any(|folder| folder == "examples") {
        return Vec::new();
    }
    let docs: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
    if docs.contains("cargo run") {
        Vec::new()
    } else {
        vec!["its opening `//!` docs name no `cargo run`".into()]
    }
}

/// The docs of each public async function of a library, or of the trait that it belongs to, say what happens when its
/// future is dropped.
fn cancel_safety(source: &Source) -> Vec<String> {
    let in_library = source.path.starts_with("hodei-") && source.path.split('/').nth(1) == Some("src");
    if !in_library {
        return Vec::new();
    }
    let (code, text): (Vec<&str>, Vec<&str>) = (source.code.lines().collect(), source.text.lines().collect());
    let told = |line: usize| docs_above(&code, &text, line).any(|doc| doc == "/// # Cancel safety");
    // Whether what follows belongs to a public trait, and whether that speaks for all of it.
    let mut of_trait = None;
    let mut found = Vec::new();
    for (line, item) in code.iter().enumerate() {
        if item.starts_with("pub trait ") {
            of_trait = Some(told(line));
        } else if item.starts_with('}') {
            of_trait = None;
        }
        let item = item.trim_start();
        let is_public = item.starts_with("pub async fn ")
            || (item.starts_with("pub fn ") && item.contains("-> impl Future<"))
            || (of_trait.is_some() && item.starts_with("async fn "));
        if is_public && of_trait != Some(true) && !told(line) {
            found.push(format!("{}: `{item}` has no `# Cancel safety` in its docs", line + 1));
        }
    }
    found
}

/// The lines of docs above the item that stands at `line`, the last one first.
fn docs_above<'a>(code: &'a [&str], text: &'a [&str], line: usize) -> impl Iterator<Item = &'a str> {
    let above = (0..line).rev();
    let own = above.take_while(|above| {
        !text[*above].trim().is_empty() && !code[*above].trim_end().ends_with(['{', '}', ';'])
    });
    own.map(|above| text[above].trim()).filter(|text| text.starts_with("///"))
}

/// The lines of the code that contain one of `phrases`.
fn containing(source: &Source, phrases: &[&str]) -> Vec<String> {
    let found = source.lines().flat_map(|(number, line)| {
        phrases
            .iter()
            .filter(move |phrase| line.contains(**phrase))
            .map(move |phrase| format!("{number}: `{phrase}`"))
    });
    found.collect()
}

/// The lines of the code that hold one of `forbidden` as a whole word.
fn words(source: &Source, forbidden: &[&str]) -> Vec<String> {
    let found = source.words().filter(|(_, word)| forbidden.contains(word));
    found.map(|(number, word)| format!("{number}: `{word}`")).collect()
}

/// The folders of `path`, then the name of its file without the ending.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part))
}

/// Whether the file at `path` is the module `name` or lies below it.
fn in_module(path: &str, name: &str) -> bool {
    parts(path).any(|part| part == name)
}

/// Whether `name` is one of the [`EMPTY_NAMES`], or several of one.
fn is_empty_name(name: &str) -> bool {
    EMPTY_NAMES.contains(&name.strip_suffix('s').unwrap_or(name))
}

/// The outermost items of `code` without their attributes; of an item with a body, what stands before it.
fn items(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while !rest.is_empty() {
        if rest.starts_with('#') {
            let end = rest.find(']').map_or(rest.len(), |end| end + 1);
            rest = rest[end..].trim_start();
            continue;
        }
        let end = item_end(rest);
        found.push(rest[..end].split_whitespace().collect::<Vec<_>>().join(" "));
        let past = if rest[end..].starts_with('{') { closing_brace(rest, end) + 1 } else { end + 1 };
        rest = rest.get(past..).unwrap_or_default().trim_start();
    }
    found
}

/// Where the item at the start of `rest` ends: at its `;`, or before its body. The braces of a `use` are no body.
fn item_end(rest: &str) -> usize {
    let is_use =
        rest.split([';', '{']).next().is_some_and(|head| head.split_whitespace().any(|word| word == "use"));
    let ends: &[char] = if is_use { &[';'] } else { &[';', '{'] };
    rest.find(ends).unwrap_or(rest.len())
}

/// Whether `item` declares a module, re-exports something or guards the build, without defining anything.
fn is_entry(item: &str) -> bool {
    let visibility = |word: &&str| word.starts_with("pub") || *word == "in" || word.starts_with("crate::");
    let first = item.split_whitespace().find(|word| !visibility(word));
    first.is_some_and(|word| matches!(word, "mod" | "use") || word.starts_with("compile_error!("))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds `rule` to one file that breaks it and to one that keeps it.
    #[track_caller]
    fn check(rule: Rule, breaks: (&str, &str), keeps: (&str, &str)) {
        let broken = rule(&Source::new(breaks.0, breaks.1));
        assert_eq!(broken.len(), 1, "the planted violation is found once: {broken:?}");
        let kept = rule(&Source::new(keeps.0, keeps.1));
        assert_eq!(kept, Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_too_long_is_found() {
        let lines = |count| "//\n".repeat(count);
        check(file_length, ("a.rs", &lines(901)), ("a.rs", &lines(900)));
    }

    #[test]
    fn a_function_that_is_too_long_is_found() {
        let lines = |count| format!("fn f() {{\n{}}}", "    x();\n".repeat(count));
        check(function_length, ("a.rs", &lines(71)), ("a.rs", &lines(70)));
        let excused = format!("#[expect(clippy::too_many_lines, reason = \"one table\")]\n{}", lines(200));
        assert_eq!(function_length(&Source::new("a.rs", excused)), Vec::<String>::new());
    }

    #[test]
    fn a_skipped_test_is_found() {
        check(
            no_skipped_test,
            ("a.rs", "#[ignore = \"slow\"]\nfn f() {}"),
            ("a.rs", "// #[ignore]\nfn f() {}"),
        );
    }

    #[test]
    fn unfinished_code_is_found() {
        check(no_unfinished_code, ("a.rs", "fn f() { todo!() }"), ("a.rs", "fn f() { g(\"todo!\") }"));
        check(no_unfinished_code, ("a.rs", "fn f() { unimplemented!() }"), ("a.rs", "// unimplemented!"));
    }

    #[test]
    fn an_allowed_lint_is_found() {
        check(no_allow, ("a.rs", "#![allow(dead_code)]"), ("a.rs", "#[expect(dead_code, reason = \"…\")]"));
        check(no_allow, ("a.rs", "#[allow(dead_code)]"), ("a.rs", "fn f() { limits.allow(1) }"));
        check(no_allow, ("a.rs", "#[cfg_attr(test, allow(dead_code))]"), ("a.rs", "/// #[allow(dead_code)]"));
    }

    #[test]
    fn unsafe_outside_sys_is_found() {
        let text = "fn f() { unsafe { g() } }";
        check(unsafe_only_in_sys, ("hodei-agent/src/link.rs", text), ("hodei-agent/src/sys/pidfd.rs", text));
        check(unsafe_only_in_sys, ("hodei-agent/src/system.rs", text), ("hodei-agent/src/sys.rs", text));
        check(unsafe_only_in_sys, ("a.rs", text), ("a.rs", "#![forbid(unsafe_code)]"));
    }

    #[test]
    fn a_machine_that_reads_a_clock_is_found() {
        let text = "use std::{fmt, time::{Duration, Instant}};";
        check(pure_machines, ("hodei-sched/src/machine/lease.rs", text), ("hodei-sched/src/driver.rs", text));
        check(
            pure_machines,
            ("a/machine.rs", "fn f() { rand::random() }"),
            ("a/machine.rs", "fn random(seed: u64) {}"),
        );
        check(pure_machines, ("a/machine.rs", "use tokio::time;"), ("a/machine.rs", "// no tokio here"));
    }

    #[test]
    fn a_name_that_says_nothing_is_found() {
        check(telling_names, ("a/src/utils.rs", ""), ("a/src/text.rs", ""));
        check(telling_names, ("a/src/common/key.rs", ""), ("a/src/key.rs", ""));
        check(telling_names, ("a.rs", "pub(crate) mod helpers;"), ("a.rs", "mod policy; // mod manager;"));
    }

    #[test]
    fn a_mod_file_that_defines_something_is_found() {
        let contents = "//! Docs.\n\n#[cfg(test)]\nmod tests;\nmod a;\npub(crate) mod b;\npub use a::{B,\n    c::D};\n\
                        pub(in crate::x) use b::E;\n#[cfg(windows)]\ncompile_error!(\"x\");\n";
        let path = "a/src/store/mod.rs";
        check(bare_mod_file, (path, "mod a;\npub fn f() { g(); }\nmod b;"), (path, contents));
        check(bare_mod_file, (path, "const A: u8 = 1;"), ("a/src/store.rs", "const A: u8 = 1;"));
    }

    #[test]
    fn a_future_of_which_nobody_says_what_dropping_it_does_is_found() {
        let path = "hodei-core/src/a.rs";
        let silent = "impl A {\n    /// Reads.\n    #[must_use]\n    pub async fn f() {}\n}\n";
        let telling =
            silent.replace("    #[", "    ///\n    /// # Cancel safety\n    ///\n    /// It reads.\n    #[");
        check(cancel_safety, (path, silent), (path, &telling));
        check(cancel_safety, (path, &format!("{telling}\npub async fn g() {{}}")), ("tests/it/a.rs", silent));
        let returned = "pub fn f() -> impl Future<Output = ()> {}";
        check(cancel_safety, (path, returned), (path, &returned.replace("pub ", "")));
        let of_trait = "pub trait T {\n    async fn f();\n}\n";
        let of_telling = format!("/// # Cancel safety\n#[async_trait]\n{of_trait}");
        check(cancel_safety, (path, of_trait), (path, &of_telling));
        let behind = "impl T for A {\n    async fn f() {}\n    pub async fn g() {}\n}\n";
        check(cancel_safety, (path, &format!("{of_telling}{behind}")), (path, &of_trait.replace("pub ", "")));
    }

    #[test]
    fn an_example_that_does_not_say_how_to_run_it_is_found() {
        let silent = "//! Shows a thing.\nfn main() {}\n// cargo run\n";
        let telling = "//! Shows a thing.\n//!\n//! `cargo run --example a`\nfn main() {}\n";
        check(example_docs, ("examples/a.rs", silent), ("examples/a.rs", telling));
        check(example_docs, ("examples/a.rs", silent), ("xtask/src/main.rs", silent));
    }
}
