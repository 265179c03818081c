//! Lists of short texts in one allocation.
//!
//! A job carries arguments, environment entries and labels: dozens of short strings. None of them may hold a NUL
//! (no store and no process takes one), so a list is kept as one text in which a NUL ends each item: one allocation
//! instead of dozens, written and read in one piece.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What ends an item.
const END: char = '\0';

/// An immutable list of texts, none of which holds a NUL.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct Texts(Box<str>);

impl Texts {
    /// Packs texts; `None` when one of them holds a NUL.
    pub fn new<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> Option<Self> {
        Self::pack(items, 0)
    }

    /// Packs a list that is whole in memory, into exactly one allocation; `None` when a text holds a NUL.
    pub(crate) fn of_slice<S: AsRef<str>>(items: &[S]) -> Option<Self> {
        let room = items.iter().map(|item| item.as_ref().len() + 1).sum();
        Self::pack(items, room)
    }

    fn pack<S: AsRef<str>>(items: impl IntoIterator<Item = S>, room: usize) -> Option<Self> {
        let mut packed = String::with_capacity(room);
        for item in items {
            let item = item.as_ref();
            if item.as_bytes().contains(&0) {
                return None;
            }
            packed.push_str(item);
            packed.push(END);
        }
        Some(Self(packed.into_boxed_str()))
    }

    /// Takes what [`Texts::packed`] gave; `None` when the last item has no end.
    #[must_use]
    pub fn from_packed(packed: Box<str>) -> Option<Self> {
        (packed.is_empty() || packed.ends_with(END)).then_some(Self(packed))
    }

    /// Returns the items joined, each ended by a NUL.
    #[must_use]
    pub fn packed(&self) -> &str {
        &self.0
    }

    /// Returns the number of texts; counts them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.bytes().filter(|&b| b == 0).count()
    }

    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes through the texts in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + '_ {
        self.0.split_terminator(END)
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl TryFrom<Box<str>> for Texts {
    type Error = &'static str;

    fn try_from(packed: Box<str>) -> Result<Self, Self::Error> {
        Self::from_packed(packed).ok_or("the last text has no end")
    }
}

impl From<Texts> for Box<str> {
    fn from(texts: Texts) -> Self {
        texts.0
    }
}

/// An immutable list of names with a value each, in the order given.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Texts", into = "Texts")]
pub struct TextMap(Texts);

impl TextMap {
    /// Packs pairs; `None` when a text holds a NUL.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Option<Self> {
        let mut flat: Vec<String> = Vec::new();
        for (name, value) in pairs {
            flat.push(name.as_ref().to_owned());
            flat.push(value.as_ref().to_owned());
        }
        Texts::of_slice(&flat).map(Self)
    }

    /// Packs pairs that are whole in memory, into exactly one allocation; `None` when a text holds a NUL.
    pub(crate) fn of_pairs(pairs: &[(String, String)]) -> Option<Self> {
        let room = pairs.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        let flat = pairs.iter().flat_map(|(name, value)| [name.as_str(), value]);
        Texts::pack(flat, room).map(Self)
    }

    /// Takes a list of alternating names and values, unless it is odd.
    #[must_use]
    pub fn from_texts(texts: Texts) -> Option<Self> {
        texts.len().is_multiple_of(2).then_some(Self(texts))
    }

    /// Returns the alternating names and values.
    #[must_use]
    pub fn texts(&self) -> &Texts {
        &self.0
    }

    /// Returns the number of pairs; counts them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of a name; the first one where a name stands twice.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Goes through the pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + '_ {
        let mut texts = self.0.iter();
        std::iter::from_fn(move || Some((texts.next()?, texts.next()?)))
    }
}

impl fmt::Debug for TextMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl TryFrom<Texts> for TextMap {
    type Error = &'static str;

    fn try_from(texts: Texts) -> Result<Self, Self::Error> {
        Self::from_texts(texts).ok_or("a name has no value")
    }
}

impl From<TextMap> for Texts {
    fn from(map: TextMap) -> Self {
        map.0
    }
}

/// Shows a text from outside in an error: escaped, and not longer than a line.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_order() {
        let texts = Texts::new(["a", "", "ñandú", "b"]).unwrap();
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["a", "", "ñandú", "b"]);
        assert_eq!(texts.len(), 4);
        assert_eq!(Texts::from_packed(texts.packed().into()), Some(texts));
    }

    #[test]
    fn one_empty_text_is_not_no_text() {
        let one = Texts::new([""]).unwrap();
        assert_eq!((one.len(), one.is_empty(), one.iter().count()), (1, false, 1));
        assert_eq!((Texts::default().len(), Texts::default().iter().count()), (0, 0));
    }

    #[test]
    fn a_nul_and_a_missing_end_are_refused() {
        assert_eq!(Texts::new(["a\0b"]), None);
        assert_eq!(Texts::from_packed("ab".into()), None);
    }

    #[test]
    fn a_map_finds_the_first_of_a_name() {
        let map = TextMap::new([("a", "1"), ("b", "2"), ("a", "3")]).unwrap();
        assert_eq!((map.get("a"), map.get("b"), map.get("c"), map.len()), (Some("1"), Some("2"), None, 3));
        assert_eq!(TextMap::from_texts(Texts::new(["odd"]).unwrap()), None);
    }
}
