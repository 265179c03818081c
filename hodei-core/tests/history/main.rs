//! The recorder and the checker of histories, themselves checked: what a store did wrong is found, and what it did right
//! is not.

mod lines;
mod mangled;
mod others;
mod planted;
mod random;
mod script;
mod walk;
