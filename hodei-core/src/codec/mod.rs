//! What happens to a handler's arguments between the application and the store: compression, encryption, offloading.
//!
//! A node that has [`Codecs`] encodes arguments before they are stored, and an agent that has the same ones decodes them
//! before the handler is called. Stores, logs and lists see the encoded form only. Arguments that were stored without a
//! codec are read as they are, so codecs can be added while jobs wait.
//!
//! Encoding is a function of the arguments and the keys alone: a submission that is repeated because its reply was lost is
//! recognised as the same one. Across a change of the current key, or of the algorithm of a codec, it is a `Conflict`.
//!
//! ```
//! # #[cfg(feature = "codec")]
//! # async fn codecs() -> hodei_core::Result<()> {
//! use hodei_core::codec::{Codecs, Compress, Encrypt};
//!
//! let codecs = Codecs::new().with(Compress::above(1_024)).with(Encrypt::with_key(7, [42; 32]).and_old_key(6, [41; 32]));
//! # Ok(()) }
//! ```

mod chain;
#[cfg(feature = "codec")]
mod compress;
#[cfg(feature = "codec")]
mod encrypt;
mod offload;

pub use chain::{About, Codecs, PayloadCodec};
#[cfg(feature = "codec")]
#[cfg_attr(docsrs, doc(cfg(feature = "codec")))]
pub use compress::Compress;
#[cfg(feature = "codec")]
#[cfg_attr(docsrs, doc(cfg(feature = "codec")))]
pub use encrypt::Encrypt;
pub use offload::Offload;
