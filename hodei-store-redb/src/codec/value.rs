//! Small values out of rows.

use std::time::Duration;

use hodei_core::job::{Cause, Priority, Requires, State};
use hodei_core::text::{TextMap, Texts};
use hodei_core::{Error, Name, Result, Tenant, Timestamp};

use super::row::Wait;
use crate::error::corrupt;

pub(super) fn bad(what: &'static str) -> impl FnOnce() -> Error {
    move || corrupt("row.decode", what)
}

pub(super) fn name(text: &str) -> Result<Name> {
    Name::new(text).map_err(|_| corrupt("row.decode", "a bad name"))
}

pub(super) fn tenant(text: &str) -> Result<Tenant> {
    name(text).map(Tenant::from)
}

pub(super) fn texts(packed: &str) -> Result<Texts> {
    Texts::from_packed(packed.into()).ok_or_else(bad("a text without an end"))
}

pub(super) fn map(packed: &str) -> Result<TextMap> {
    TextMap::from_texts(texts(packed)?).ok_or_else(bad("a name without a value"))
}

pub(super) fn priority(level: u8) -> Result<Priority> {
    Priority::new(level).map_err(|_| corrupt("row.decode", "a bad priority"))
}

pub(super) fn state(number: u8) -> Result<State> {
    State::from_number(number).ok_or_else(bad("a bad state"))
}

pub(super) fn cause(number: u8) -> Result<Cause> {
    Cause::from_number(number).ok_or_else(bad("a bad cause"))
}

pub(super) fn wait(duration: Duration) -> Wait {
    (duration.as_secs(), duration.subsec_nanos())
}

pub(super) fn duration((secs, nanos): Wait) -> Result<Duration> {
    if nanos < 1_000_000_000 {
        Ok(Duration::new(secs, nanos))
    } else {
        Err(corrupt("row.decode", "a bad duration"))
    }
}

pub(super) fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// Returns the number of a requirement in a row.
pub(super) const fn requires_number(requires: Requires) -> u8 {
    requires.number()
}

/// Returns the requirement of a number in a row.
pub(super) fn requires_of(number: u8) -> Result<Requires> {
    Requires::from_number(number).ok_or_else(bad("a bad requirement"))
}

/// The names that the last row had, by column. Neighbouring rows mostly have the same, which are then shared instead of
/// made anew.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(super) tenant: Option<Name>,
    pub(super) name: Option<Name>,
    pub(super) queue: Option<Name>,
    pub(super) owner: Option<Name>,
    pub(super) kind: Option<Name>,
    pub(super) limit_keys: Option<Texts>,
}

/// Returns the name of a text: the one that the column had last, where it is the same.
pub(super) fn shared(last: &mut Option<Name>, text: &str) -> Result<Name> {
    match last {
        Some(last) if last.as_str() == text => Ok(last.clone()),
        _ => Ok(last.insert(name(text)?).clone()),
    }
}
