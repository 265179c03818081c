//! A placement as names of resources, which every store keeps.
//!
//! All that is said stands in one text of the characters of names, cut into pieces of one length that are numbered. What is
//! said in another order is the same text, so the class of a request is the same.
//!
//! The text is a list of terms, each ended by `..`. A term is a letter for what it is, a letter for how it selects where it
//! is a selector, and then the texts it names, each behind a dot. In a text every byte but letters, digits and `-` is `_` and
//! two hex digits; an empty one is `_` alone. So no text has a dot, and none is empty.

use std::fmt::Write;

use super::super::selector::Selector;
use super::Placement;
use crate::id::{NAME_MAX, Name};

/// What all the names begin with.
const BEGIN: &str = "hodei.place.";
/// How long the number of a piece is, with the dot behind it.
const NUMBER: usize = 3;
/// How much of the text is in a piece.
const PIECE: usize = NAME_MAX - BEGIN.len() - NUMBER;

/// Whether a name is one of them.
pub(super) fn is_part(name: &Name) -> bool {
    name.as_str().starts_with(BEGIN)
}

/// Writes a placement that nothing is wrong with.
pub(super) fn write(placement: &Placement) -> Vec<Name> {
    let mut text = String::new();
    for (letter, selectors) in [('r', &placement.require), ('p', &placement.prefer)] {
        for selector in selectors {
            text.push(letter);
            text.push(how(selector));
            part(&mut text, selector.label());
            selector.values().iter().for_each(|value| part(&mut text, value));
            text.push_str("..");
        }
    }
    let groups =
        [('g', &placement.groups), ('b', &placement.beside), ('n', &placement.near), ('a', &placement.apart)];
    for (letter, groups) in groups {
        for group in groups {
            text.push(letter);
            part(&mut text, group);
            text.push_str("..");
        }
    }
    let pieces = (0..).zip(text.as_bytes().chunks(PIECE));
    let name = |(number, piece): (usize, &[u8])| {
        Name::new(format!("{BEGIN}{number:02}.{}", String::from_utf8_lossy(piece)))
    };
    pieces.filter_map(|piece| name(piece).ok()).collect()
}

/// Reads the placement that names of resources say, which are in order; nothing where they are of another form.
pub(super) fn read<'a>(names: impl Iterator<Item = &'a Name>) -> Option<Placement> {
    let mut text = String::new();
    for (number, name) in (0_usize..).zip(names.filter(|name| is_part(name))) {
        let piece = name.as_str().strip_prefix(BEGIN)?;
        text.push_str(piece.strip_prefix(&format!("{number:02}."))?);
    }
    let mut placement = Placement::default();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (term, behind) = rest.split_once("..")?;
        placement = with(placement, term)?;
        rest = behind;
    }
    Some(placement)
}

fn with(placement: Placement, term: &str) -> Option<Placement> {
    let mut parts = term.split('.');
    let kind = parts.next()?;
    let mut texts = parts.map(text_of);
    let first = texts.next()??;
    if let Some(how) = kind.strip_prefix('r') {
        return Some(placement.require(selector(how, first, texts.collect::<Option<_>>()?)?));
    }
    if let Some(how) = kind.strip_prefix('p') {
        return Some(placement.prefer(selector(how, first, texts.collect::<Option<_>>()?)?));
    }
    match (kind, texts.next()) {
        ("g", None) => Some(placement.group(first)),
        ("b", None) => Some(placement.beside(first)),
        ("n", None) => Some(placement.prefer_beside(first)),
        ("a", None) => Some(placement.apart(first)),
        _ => None,
    }
}

fn how(selector: &Selector) -> char {
    match selector {
        Selector::In(..) => 'i',
        Selector::NotIn(..) => 'n',
        Selector::Has(_) => 'h',
        Selector::Lacks(_) => 'l',
    }
}

fn selector(how: &str, label: String, values: Vec<String>) -> Option<Selector> {
    match (how, values.is_empty()) {
        ("i", _) => Some(Selector::In(label, values)),
        ("n", _) => Some(Selector::NotIn(label, values)),
        ("h", true) => Some(Selector::Has(label)),
        ("l", true) => Some(Selector::Lacks(label)),
        _ => None,
    }
}

fn part(to: &mut String, text: &str) {
    to.push('.');
    if text.is_empty() {
        to.push('_');
    }
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            to.push(byte.into());
        } else {
            // Writing to a text never fails.
            let _ = write!(to, "_{byte:02x}");
        }
    }
}

fn text_of(part: &str) -> Option<String> {
    if part == "_" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => (hex(rest.next()?)? << 4) | hex(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

fn hex(digit: u8) -> Option<u8> {
    let number = char::from(digit).to_digit(16).filter(|_| !digit.is_ascii_uppercase())?;
    u8::try_from(number).ok()
}
