//! Rules on the sources.
//!
//! `source` reads a file, `rules` says what is wrong with one file, `tree` holds every file of the workspace to every
//! rule. Each rule is tested beside its definition against a planted violation, so none of them can be vacuous.

mod clocks;
mod rules;
mod source;
mod tree;
