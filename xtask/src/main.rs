//! The house tooling of Hodei, run as `cargo xtask <command>`.
//!
//! It only starts other programs, times them and says which one failed; what is checked lives in the tests, the benches
//! and the examples themselves. The three commands are tables: [`ci::STAGES`], [`TIDY`] and [`proof::PROOFS`].

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command line tool speaks on its standard output")]

mod ci;
mod proof;
mod stage;

use std::process::ExitCode;

use stage::{Stage, Step};

/// What `cargo xtask` says when it is asked for nothing, or for something it does not know.
const USAGE: &str = "\
usage: cargo xtask <command>

  ci                   every check of a change, in order, stopping at the first that fails
  tidy                 the rules on sources, manifests and dependency graphs alone
  proof [--only NAME]  the long proofs, or the one that is named
  proof --list         what the long proofs are and what each shows";

/// The rules of the house by themselves; `ci` meets them again among the tests.
const TIDY: Stage = Stage {
    name: "tidy",
    shows: "sources, manifests and dependency graphs keep the rules of the house",
    steps: &[
        Step::new("cargo test --package hodei-tests --test it --locked -- tidy::").must_test(),
        Step::new("cargo test --package hodei-tests --test it --locked -- house::").must_test(),
    ],
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command that `words` spell.
fn dispatch(words: &[&str]) -> Result<(), String> {
    match words {
        ["ci"] => stage::run_in_order("ci", ci::STAGES),
        ["tidy"] => stage::run_in_order("tidy", &[TIDY]),
        ["proof", "--list"] => {
            proof::list();
            Ok(())
        }
        ["proof"] => stage::run_in_order("proof", proof::PROOFS),
        ["proof", "--only", name] => stage::run_in_order("proof", &[proof::named(name)?]),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        unknown => Err(format!("unknown command `{}`\n\n{USAGE}", unknown.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::dispatch;

    #[test]
    fn help_is_no_failure_and_an_unknown_command_is_named() {
        assert_eq!(dispatch(&["--help"]), Ok(()));
        let problem = dispatch(&["prove", "it"]).unwrap_err();
        assert!(problem.contains("`prove it`"), "{problem}");
    }

    #[test]
    fn an_unknown_proof_is_answered_with_the_known_ones() {
        let problem = dispatch(&["proof", "--only", "perpetual-motion"]).unwrap_err();
        assert!(problem.contains("perpetual-motion") && problem.contains("kill9"), "{problem}");
    }
}
