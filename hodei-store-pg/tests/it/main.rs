//! The store and what belongs to it, against private servers that these tests start, hurt and kill.

mod audit;
mod cache;
mod faults;

/// The other process of some tests: this very program, told by its environment what to do.
#[test]
fn it_does_what_its_environment_says() {
    assert_eq!(faults::obey(), std::env::var_os("HODEI_PG_TEST_URL").is_some());
}
