//! Numbers and texts, one after the other.

use std::time::Duration;

use hodei_core::text::{TextMap, Texts};
use hodei_core::{Error, ErrorKind, Name, Result};

/// Writes values, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Begins with the number of a layout.
    pub(crate) fn of_layout(layout: u8) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.push(layout);
        Self(bytes)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Seven bits a byte, the lowest first; the high bit says that more follow.
    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap_or_default());
    }

    /// Signed numbers with the sign in the lowest bit, so that small ones are short.
    pub(crate) fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn duration(&mut self, duration: Duration) {
        self.number(duration.as_secs());
        self.number(duration.subsec_nanos().into());
    }

    pub(crate) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.byte(0),
            Some(value) => {
                self.byte(1);
                write(self, value);
            }
        }
    }
}

/// Reads what a [`Writer`] wrote. Whatever is not of its making is `Corrupt`.
#[derive(Debug)]
pub(crate) struct Reader<'b>(&'b [u8]);

/// Bytes that no writer of this crate has made.
pub(crate) fn damaged(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "row.decode").with("found", what)
}

impl<'b> Reader<'b> {
    /// Reads the number of the layout, which must be one that is known.
    pub(crate) fn of_layout(bytes: &'b [u8], layout: u8) -> Result<Self> {
        match bytes.split_first() {
            Some((found, rest)) if *found == layout => Ok(Self(rest)),
            _ => Err(damaged("an unknown layout")),
        }
    }

    /// Reads bytes without a layout.
    pub(crate) const fn plain(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says that nothing may follow.
    pub(crate) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(damaged("bytes behind the end")) }
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(|| damaged("an early end"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| damaged("an early end"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(damaged("a number without an end"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T> {
        T::try_from(self.number()?).map_err(|_| damaged("a number out of range"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8]> {
        let len: usize = self.small()?;
        let (first, rest) = self.0.split_at_checked(len).ok_or_else(|| damaged("an early end"))?;
        self.0 = rest;
        Ok(first)
    }

    pub(crate) fn text(&mut self) -> Result<&'b str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged("no text"))
    }

    pub(crate) fn name(&mut self) -> Result<Name> {
        name_of(self.text()?)
    }

    pub(crate) fn texts(&mut self) -> Result<Texts> {
        Texts::from_packed(self.text()?.into()).ok_or_else(|| damaged("a text without an end"))
    }

    pub(crate) fn map(&mut self) -> Result<TextMap> {
        TextMap::from_texts(self.texts()?).ok_or_else(|| damaged("a name without a value"))
    }

    pub(crate) fn duration(&mut self) -> Result<Duration> {
        let (secs, nanos) = (self.number()?, self.small::<u32>()?);
        if nanos < 1_000_000_000 { Ok(Duration::new(secs, nanos)) } else { Err(damaged("a bad duration")) }
    }

    pub(crate) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(damaged("neither there nor absent")),
        }
    }

    /// Reads a list. Its length is not believed before its items are read.
    pub(crate) fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let len = self.number()?;
        let mut items = Vec::new();
        for _ in 0..len {
            items.push(read(self)?);
        }
        Ok(items)
    }
}

/// Reads a name.
pub(crate) fn name_of(text: &str) -> Result<Name> {
    Name::new(text).map_err(|_| damaged("a bad name"))
}
