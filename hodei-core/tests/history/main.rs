//! The recorder and the checker of histories, themselves checked: what a store did wrong is found, and what it did right
//! is not.

mod mangled;
mod random;
mod walk;
