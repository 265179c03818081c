//! Every source file of the workspace, held to every rule.

use std::fs;
use std::path::Path;

use super::rules::{FILE_TARGET, RULES};
use super::source::Source;
use crate::house::root;

/// Reads every Rust file below `folder`, save what is built and what is hidden.
fn read_sources(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace can be read") {
        let path = entry.expect("a folder of the workspace can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            read_sources(&path, found);
        } else if name.ends_with(".rs") {
            let below = path.strip_prefix(root()).expect("the walk starts at the root");
            let text = fs::read_to_string(&path).expect("a source file is UTF-8");
            found.push(Source::new(below.to_string_lossy().replace('\\', "/"), text));
        }
    }
}

/// The sources that people write.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    read_sources(root(), &mut found);
    found.retain(|source| !source.is_generated());
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

#[test]
fn the_sources_keep_the_rules() {
    let sources = sources();
    assert!(
        sources.iter().any(|source| source.path == "hodei-core/src/lib.rs"),
        "the walk reaches the crates"
    );
    let mut violations = Vec::new();
    for source in &sources {
        for (name, rule) in RULES {
            violations
                .extend(rule(source).into_iter().map(|what| format!("{}:{what} [{name}]", source.path)));
        }
    }
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

/// A note, not a failure: what could be split when it is next worked on.
#[test]
fn files_over_the_target_are_named() {
    for source in sources().iter().filter(|source| source.length() > FILE_TARGET) {
        println!("note: {} has {} lines, the target is {FILE_TARGET}", source.path, source.length());
    }
}
