//! What the tests and the fuzz targets of this crate reach past its users. Nothing here is stable.

use hodei_core::Result;
pub use redb::StorageBackend;

use crate::codec;
use crate::config::RedbStoreBuilder;
use crate::inner::Inner;
pub use crate::older::{as_schema_5, counted_to, grow_schema_1};
use crate::store::RedbStore;

/// Opens a store on what stands in for a file; the path of the builder is not looked at.
///
/// # Errors
///
/// Those of [`RedbStoreBuilder::open`].
pub fn open_on(builder: RedbStoreBuilder, disk: impl StorageBackend) -> Result<RedbStore> {
    RedbStore::serve(Inner::open_on(builder, disk)?)
}

/// A row of one kind, as it is stored.
#[derive(Debug)]
pub struct Row {
    /// What it is a row of.
    pub name: &'static str,
    /// The row.
    pub bytes: Vec<u8>,
    of: codec::Sample,
}

impl Row {
    /// Reads bytes as a stored row of this kind, and writes what was read.
    ///
    /// # Errors
    ///
    /// `Corrupt` for everything but such a row.
    pub fn again(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.of.again(bytes)
    }
}

/// Returns rows of every kind and shape.
#[must_use]
pub fn rows() -> Vec<Row> {
    let row = |of: codec::Sample| Row { name: of.name, bytes: of.row.clone(), of };
    codec::samples().into_iter().map(row).collect()
}

/// Puts a checksum that holds behind a row, as whoever forges one would.
#[must_use]
pub fn sealed(row: &[u8]) -> Vec<u8> {
    codec::sealed(row)
}
