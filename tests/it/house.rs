//! Rules on the manifests and on the dependency graphs: who may know whom, how much a user builds, and what every
//! published crate brings along.
//!
//! The declared dependencies (`cargo metadata --no-deps`) say who may know whom, optional ones included; the resolved
//! ones (`cargo tree`) say how much is built.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Runtimes, databases and wires, none of which `hodei-core` may reach, directly or not (D1). A trailing `-` stands for
/// a family of names.
const NOT_IN_CORE: [&str; 24] = [
    "async-executor",
    "async-io",
    "async-nats",
    "async-std",
    "axum",
    "bincode",
    "diesel",
    "h2",
    "hyper",
    "jsonwebtoken",
    "native-tls",
    "openssl",
    "prost",
    "redb",
    "redis",
    "reqwest",
    "rusqlite",
    "rustls",
    "sled",
    "smol",
    "sqlx",
    "sqlx-",
    "tokio",
    "tonic",
];

/// Each technology with the one published crate that may depend on it (D3).
const OWNERS: [(&str, &str); 15] = [
    ("async-nats", "hodei-bus"),
    ("bincode", "hodei-store-redb"),
    ("jsonwebtoken", "hodei-agent"),
    ("prost", "hodei-agent"),
    ("prost-", "hodei-agent"),
    ("redb", "hodei-store-redb"),
    ("redis", "hodei-store-pg"),
    ("rustls", "hodei-store-pg"),
    ("rustls-", "hodei-store-pg"),
    ("sqlx", "hodei-store-pg"),
    ("sqlx-", "hodei-store-pg"),
    ("tokio-postgres", "hodei-store-pg"),
    ("tokio-rustls", "hodei-agent"),
    ("tonic", "hodei-agent"),
    ("tonic-", "hodei-agent"),
];

/// How many crates `hodei-core` may bring into a build.
const CORE_GRAPH: usize = 25;
/// How many crates the build of an example may take.
const EXAMPLES_GRAPH: usize = 130;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// A package of the workspace, as far as the rules look at it.
#[derive(Clone, Debug, Default)]
struct Package {
    name: String,
    folder: PathBuf,
    published: bool,
    /// The keys of its manifest that have a value.
    fields: BTreeSet<String>,
    rust_version: String,
    /// Its declared dependencies, optional ones included, dev-dependencies excepted.
    dependencies: BTreeSet<String>,
}

impl Package {
    /// Reads one element of `packages` in cargo's metadata.
    fn read(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let declared = value["dependencies"].as_array().into_iter().flatten();
        let fields = value.as_object().into_iter().flatten().filter(|(_, value)| has_value(value));
        Self {
            name: text("name"),
            folder: Path::new(&text("manifest_path")).parent().map(Path::to_owned).unwrap_or_default(),
            published: value["publish"].as_array().is_none_or(|registries| !registries.is_empty()),
            fields: fields.map(|(key, _)| key.clone()).collect(),
            rust_version: text("rust_version"),
            dependencies: declared
                .filter(|dependency| dependency["kind"] != "dev")
                .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
                .collect(),
        }
    }

    /// Whether this is one of the crates that an application links in.
    fn is_house_crate(&self) -> bool {
        self.published && self.name.starts_with("hodei-")
    }
}

/// Whether a key of the metadata says anything.
fn has_value(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

/// Runs cargo in the root of the workspace and returns what it prints.
fn cargo(words: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(words).current_dir(root()).output().expect("cargo starts");
    assert!(output.status.success(), "cargo {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// The packages of the workspace.
fn packages() -> Vec<Package> {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&text).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("the workspace has packages").iter().map(Package::read).collect()
}

/// The crates that building `package` takes besides itself, as `name version`.
fn graph(package: &str, more: &[&str]) -> BTreeSet<String> {
    let words = ["tree", "--locked", "--prefix", "none", "--format", "{p}", "--package", package];
    crates_in(&cargo(&[&words[..], more].concat()), package)
}

/// The crates that a listing of `cargo tree` names besides `package`.
fn crates_in(listing: &str, package: &str) -> BTreeSet<String> {
    let pairs = listing.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?))
    });
    pairs.filter(|(name, _)| *name != package).map(|(name, version)| format!("{name} {version}")).collect()
}

/// Whether `name` is `pattern`, or of the family that a `pattern` with a trailing `-` stands for.
fn is_named(name: &str, pattern: &str) -> bool {
    name == pattern || (pattern.ends_with('-') && name.starts_with(pattern))
}

/// D1, as declared: core knows no hodei crate and nothing of [`NOT_IN_CORE`].
fn outside_core(names: &BTreeSet<String>) -> Vec<String> {
    let is_outside =
        |name: &str| name.starts_with("hodei-") || NOT_IN_CORE.iter().any(|item| is_named(name, item));
    let found = names.iter().filter(|name| is_outside(name.split(' ').next().unwrap_or(name)));
    found.map(|name| format!("hodei-core reaches {name}")).collect()
}

/// D2: a house crate depends on no house crate but core.
fn sideways(package: &Package) -> Vec<String> {
    let is_sibling = |name: &&String| name.starts_with("hodei-") && *name != "hodei-core";
    let siblings = package.dependencies.iter().filter(is_sibling);
    siblings.map(|name| format!("{} depends on {name}", package.name)).collect()
}

/// D3: a house crate depends on the technologies it owns only.
fn foreign_technologies(package: &Package) -> Vec<String> {
    let owner_of = |name: &str| OWNERS.iter().find(|(item, _)| is_named(name, item)).map(|(_, owner)| *owner);
    let pairs = package.dependencies.iter().filter_map(|name| Some((name, owner_of(name)?)));
    let foreign = pairs.filter(|(_, owner)| *owner != package.name);
    foreign
        .map(|(name, owner)| format!("{} depends on {name}, which belongs to {owner}", package.name))
        .collect()
}

/// What a published crate lacks, of its manifest and of the files beside it.
fn missing(package: &Package, has_file: impl Fn(&str) -> bool) -> Vec<String> {
    let fields = ["description", "license", "repository", "rust_version"];
    let keys = fields.into_iter().filter(|key| !package.fields.contains(*key));
    let files = ["README.md", "CHANGELOG.md"].into_iter().filter(|name| !has_file(name));
    keys.chain(files).map(|what| format!("{} has no {what}", package.name)).collect()
}

/// Why a README does not tell the Rust version that its manifest asks for.
fn wrong_rust_version(name: &str, readme: &str, version: &str) -> Vec<String> {
    let told: BTreeSet<&str> =
        readme.match_indices("Rust 1.").map(|(at, _)| version_at(&readme[at + 5..])).collect();
    if told.is_empty() {
        return vec![format!("{name} does not say `Rust {version}`")];
    }
    let wrong = told.into_iter().filter(|told| *told != version);
    wrong.map(|told| format!("{name} says Rust {told}, the manifest {version}")).collect()
}

/// The version number at the start of `text`.
fn version_at(text: &str) -> &str {
    let end = text.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}

/// Fails with every violation that `rule` finds in the house crates.
#[track_caller]
fn hold(rule: impl Fn(&Package) -> Vec<String>) {
    let crates: Vec<Package> = packages().into_iter().filter(Package::is_house_crate).collect();
    assert!(crates.iter().any(|package| package.name == "hodei-core"), "the metadata names the crates");
    let violations: Vec<String> = crates.iter().flat_map(rule).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn core_knows_no_runtime_database_or_wire() {
    hold(|package| match package.name.as_str() {
        "hodei-core" => outside_core(&package.dependencies),
        _ => Vec::new(),
    });
    let reached = outside_core(&graph("hodei-core", &["--edges", "normal,build", "--all-features"]));
    assert!(reached.is_empty(), "{}", reached.join("\n"));
}

#[test]
fn crates_do_not_know_their_siblings() {
    hold(sideways);
}

#[test]
fn each_technology_is_known_to_one_crate() {
    hold(foreign_technologies);
}

#[test]
fn published_crates_bring_what_a_reader_looks_for() {
    hold(|package| missing(package, |name| package.folder.join(name).is_file()));
}

#[test]
fn readmes_tell_the_rust_version_of_the_manifest() {
    let told = |name: &str, folder: &Path, version: &str| {
        let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        wrong_rust_version(&format!("the README of {name}"), &readme, version)
    };
    hold(|package| {
        let mut wrong = told(&package.name, &package.folder, &package.rust_version);
        if package.name == "hodei-core" {
            wrong.extend(told("the workspace", root(), &package.rust_version));
        }
        wrong
    });
}

#[test]
fn the_graph_of_core_stays_small() {
    let graph = graph("hodei-core", &["--edges", "normal,build"]);
    println!("hodei-core builds {} crates besides itself, at most {CORE_GRAPH}", graph.len());
    assert!(graph.len() <= CORE_GRAPH, "{} crates: {graph:#?}", graph.len());
}

#[test]
fn the_graph_of_the_examples_stays_small() {
    let packages = packages();
    let examples = packages.iter().find(|package| package.folder == root().join("examples"));
    let name = &examples.expect("the workspace has a package of examples").name;
    let graph = graph(name, &["--edges", "normal,build,dev"]);
    println!("{name} builds {} crates besides itself, at most {EXAMPLES_GRAPH}", graph.len());
    assert!(graph.len() <= EXAMPLES_GRAPH, "{} crates: {graph:#?}", graph.len());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A published package that declares `dependencies`.
    fn package(name: &str, dependencies: &[&str]) -> Package {
        let declared: Vec<Value> =
            dependencies.iter().map(|name| json!({"name": name, "kind": null})).collect();
        Package::read(&json!({"name": name, "publish": null, "dependencies": declared}))
    }

    #[test]
    fn a_package_is_read_without_its_dev_dependencies() {
        let value = json!({
            "name": "hodei-core", "publish": null, "description": "x", "license": null, "rust_version": "1.95",
            "dependencies": [
                {"name": "uuid", "kind": null, "optional": true},
                {"name": "cc", "kind": "build"},
                {"name": "tokio", "kind": "dev"},
            ],
        });
        let package = Package::read(&value);
        assert!(package.is_house_crate() && package.fields.contains("description"));
        assert!(!package.fields.contains("license"));
        assert_eq!(package.dependencies, ["cc", "uuid"].map(str::to_owned).into());
        assert!(!Package::read(&json!({"name": "hodei-tests", "publish": []})).is_house_crate());
    }

    #[test]
    fn a_core_that_reaches_outside_is_found() {
        let names = ["hodei-bus", "sqlx-core 0.9.0", "tokio", "tokenizer", "serde 1.0.0"].map(str::to_owned);
        assert_eq!(outside_core(&names.into()).len(), 3);
    }

    #[test]
    fn a_sideways_edge_is_found() {
        assert_eq!(sideways(&package("hodei-sched", &["hodei-core", "hodei-bus"])).len(), 1);
        assert_eq!(sideways(&package("hodei-sched", &["hodei-core", "tokio"])).len(), 0);
    }

    #[test]
    fn a_technology_in_a_foreign_crate_is_found() {
        assert_eq!(
            foreign_technologies(&package("hodei-sched", &["redb", "rustls-pki-types", "tokio"])).len(),
            2
        );
        assert_eq!(foreign_technologies(&package("hodei-store-redb", &["redb", "bincode"])).len(), 0);
    }

    #[test]
    fn a_published_crate_that_lacks_something_is_found() {
        let mut package = package("hodei-bus", &[]);
        package.fields = ["description", "license", "repository"].map(str::to_owned).into();
        let lacks = missing(&package, |name| name == "README.md");
        assert_eq!(lacks, ["hodei-bus has no rust_version", "hodei-bus has no CHANGELOG.md"]);
    }

    #[test]
    fn a_readme_that_tells_another_version_is_found() {
        assert_eq!(wrong_rust_version("it", "Needs Rust 1.94.", "1.95").len(), 1);
        assert_eq!(wrong_rust_version("it", "Needs a compiler.", "1.95").len(), 1);
        assert_eq!(wrong_rust_version("it", "Needs Rust 1.95.\n", "1.95").len(), 0);
    }

    #[test]
    fn a_listing_is_counted_once_per_crate() {
        let listing = "hodei-core v0.1.0 (/x)\nuuid v1.29.0\ncfg-if v1.0.0\nuuid v1.29.0 (*)\n\n";
        assert_eq!(crates_in(listing, "hodei-core").len(), 2);
    }
}
