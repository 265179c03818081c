//! What the tests and the fuzz targets of this crate reach past its users. Nothing here is stable.

use hodei_core::Result;
pub use redb::StorageBackend;

use crate::config::RedbStoreBuilder;
use crate::inner::Inner;
use crate::store::RedbStore;

/// Opens a store on what stands in for a file; the path of the builder is not looked at.
///
/// # Errors
///
/// Those of [`RedbStoreBuilder::open`].
pub fn open_on(builder: RedbStoreBuilder, disk: impl StorageBackend) -> Result<RedbStore> {
    RedbStore::serve(Inner::open_on(builder, disk)?)
}
