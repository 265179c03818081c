use std::sync::Arc;

use super::*;
use crate::blob::{BlobStore, MemoryBlobs};
use crate::codec::Offload;
use crate::error::ErrorKind;

fn kind() -> Name {
    Name::literal("mail")
}

fn about<'a>(tenant: &'a Tenant, kind: &'a Name) -> About<'a> {
    About { tenant, kind, version: 1, encoding: Encoding::Json }
}

fn code(error: &Error) -> &'static str {
    error.faults().first().map_or("", |fault| fault.code)
}

#[tokio::test]
async fn without_a_codec_arguments_stay_as_they_are() {
    let (tenant, kind) = (Tenant::default(), kind());
    let about = about(&tenant, &kind);
    let args = Bytes::from_static(b"{}");
    assert_eq!(Codecs::new().encode(&about, &args).await.unwrap(), args);
    assert_eq!(Codecs::new().decode(&about, &args).await.unwrap(), args);
}

#[tokio::test]
async fn large_arguments_are_offloaded_and_checked() {
    let (tenant, kind) = (Tenant::default(), kind());
    let about = about(&tenant, &kind);
    let blobs = Arc::new(MemoryBlobs::new());
    let codecs = Codecs::new().with(Offload::above(100, Arc::<MemoryBlobs>::clone(&blobs)));
    let small = codecs.encode(&about, &Bytes::from(vec![b'x'; 100])).await.unwrap();
    assert!(Codecs::is_encoded(&small) && small.len() < 120, "marked, and nothing else");
    let args = Bytes::from(vec![b'x'; 1_000_000]);
    let encoded = codecs.encode(&about, &args).await.unwrap();
    assert!(encoded.len() < 150);
    assert_eq!(codecs.encode(&about, &encoded).await.unwrap(), encoded, "not encoded twice");
    assert_eq!(codecs.decode(&about, &encoded).await.unwrap(), args);
    let key = crate::blob::blob_of(&args).key;
    blobs.put(&key, Bytes::from_static(b"another")).await.unwrap();
    assert_eq!(codecs.decode(&about, &encoded).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(blobs.remove(&key).await.unwrap());
    assert_eq!(codecs.decode(&about, &encoded).await.unwrap_err().kind(), ErrorKind::NotFound);
    let full = Codecs::new().with(Offload::above(100, Arc::new(MemoryBlobs::at_most(10))));
    assert_eq!(full.encode(&about, &args).await.unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[tokio::test]
async fn what_is_cut_off_or_of_an_unknown_codec_is_told() {
    let (tenant, kind) = (Tenant::default(), kind());
    let about = about(&tenant, &kind);
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobs::new());
    let codecs = Codecs::new().with(Offload::above(0, blobs));
    let encoded = codecs.encode(&about, &Bytes::from_static(b"hello")).await.unwrap();
    for len in MARK.len()..encoded.len() {
        let error = codecs.decode(&about, &encoded.slice(..len)).await.unwrap_err();
        assert!(!error.is_retryable(), "cut to {len}: {error}");
    }
    assert_eq!(code(&Codecs::new().decode(&about, &encoded).await.unwrap_err()), "unknown_codec");
}

#[tokio::test]
async fn a_codec_is_named_once() {
    let (tenant, kind) = (Tenant::default(), kind());
    let codecs = Codecs::new().with(Offload::above(0, Arc::new(MemoryBlobs::new())));
    let twice = Bytes::from([&MARK[..], &[2, 3, 3], b"x"].concat());
    assert_eq!(code(&codecs.decode(&about(&tenant, &kind), &twice).await.unwrap_err()), "repeated_codec");
}

#[tokio::test]
async fn the_blob_that_arguments_name_is_told_and_kept_when_they_are_stored_again() {
    let (tenant, kind) = (Tenant::default(), kind());
    let about = about(&tenant, &kind);
    let blobs = Arc::new(MemoryBlobs::new());
    let codecs = Codecs::new().with(Offload::above(10, Arc::<MemoryBlobs>::clone(&blobs)));
    let payload = |args| Payload::Handler { kind: kind.clone(), version: 1, encoding: Encoding::Json, args };
    let (large, small) = (Bytes::from(vec![b'x'; 50]), Bytes::from_static(b"{}"));
    let encoded = codecs.encode(&about, &large).await.unwrap();
    let named = codecs.blob_of(&tenant, &payload(encoded.clone())).await.unwrap().unwrap();
    assert_eq!(named, crate::blob::blob_of(&large));
    for args in [small.clone(), codecs.encode(&about, &small).await.unwrap()] {
        assert_eq!(codecs.blob_of(&tenant, &payload(args)).await.unwrap(), None);
    }
    assert!(Codecs::new().blob_of(&tenant, &payload(encoded.clone())).await.is_err(), "nobody can tell");
    let listed = blobs.list(None, 1).await.unwrap();
    codecs.encode(&about, &encoded).await.unwrap();
    assert!(
        !blobs.remove_unchanged(&named.key, listed[0].stamp).await.unwrap(),
        "it is about to be named again"
    );
    assert!(blobs.remove(&named.key).await.unwrap());
    assert_eq!(codecs.encode(&about, &encoded).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[cfg(feature = "codec")]
mod sealed {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Compress, Encrypt};

    #[tokio::test]
    async fn what_is_sealed_opens_only_where_it_belongs() {
        let (tenant, kind) = (Tenant::default(), kind());
        let about = about(&tenant, &kind);
        let codecs = Codecs::new().with(Encrypt::with_key(1, [1; 32]));
        let args = Bytes::from_static(b"{\"card\":4242}");
        let sealed = codecs.encode(&about, &args).await.unwrap();
        assert!(!sealed.windows(4).any(|window| window == b"4242"));
        assert_eq!(codecs.decode(&about, &sealed).await.unwrap(), args);
        assert_eq!(codecs.encode(&about, &args).await.unwrap(), sealed, "a repetition is the same");
        let (other, else_kind) = (Tenant::new("acme").unwrap(), Name::literal("mails"));
        for wrong in [
            About { tenant: &other, ..about },
            About { kind: &else_kind, ..about },
            About { version: 2, ..about },
            About { encoding: Encoding::Binary, ..about },
        ] {
            assert_eq!(code(&codecs.decode(&wrong, &sealed).await.unwrap_err()), "not_opened", "{wrong:?}");
            assert_ne!(codecs.encode(&wrong, &args).await.unwrap(), sealed);
        }
        for at in MARK.len() + 2..sealed.len() {
            let mut forged = sealed.to_vec();
            forged[at] ^= 1;
            assert!(codecs.decode(&about, &forged.into()).await.is_err(), "byte {at} changed");
        }
        assert!(!format!("{codecs:?}").contains("[1, 1"), "no key is told");
    }

    #[tokio::test]
    async fn keys_are_rotated() {
        let (tenant, kind) = (Tenant::default(), kind());
        let about = about(&tenant, &kind);
        let args = Bytes::from_static(b"{}");
        let old = Codecs::new().with(Encrypt::with_key(1, [1; 32]));
        let new = Codecs::new().with(Encrypt::with_key(2, [2; 32]).and_old_key(1, [1; 32]));
        let (by_old, by_new) =
            (old.encode(&about, &args).await.unwrap(), new.encode(&about, &args).await.unwrap());
        assert_ne!(by_old, by_new);
        assert_eq!(new.decode(&about, &by_old).await.unwrap(), args);
        assert_eq!(new.decode(&about, &by_new).await.unwrap(), args);
        assert_eq!(code(&old.decode(&about, &by_new).await.unwrap_err()), "unknown_key");
        let forgotten = Codecs::new().with(Encrypt::with_key(2, [2; 32]));
        assert_eq!(code(&forgotten.decode(&about, &by_old).await.unwrap_err()), "unknown_key");
    }

    #[tokio::test]
    async fn a_bomb_is_refused() {
        let (tenant, kind) = (Tenant::default(), kind());
        let about = about(&tenant, &kind);
        let bomb =
            Codecs::new().with(Compress::above(10)).encode(&about, &vec![0; 1 << 20].into()).await.unwrap();
        let careful = Codecs::new().with(Compress::above(10).at_most(1 << 16));
        assert_eq!(code(&careful.decode(&about, &bomb).await.unwrap_err()), "too_long");
    }

    #[tokio::test]
    async fn a_codec_that_is_no_longer_used_still_decodes() {
        let (tenant, kind) = (Tenant::default(), kind());
        let about = about(&tenant, &kind);
        let args = Bytes::from(vec![b'a'; 5_000]);
        let compressed = Codecs::new().with(Compress::above(10)).encode(&about, &args).await.unwrap();
        let codecs = Codecs::new().with(Encrypt::with_key(1, [1; 32])).only_decode(Compress::above(10));
        assert_eq!(codecs.decode(&about, &compressed).await.unwrap(), args);
    }

    proptest! {
        #[test]
        fn arguments_come_back_through_all_codecs(args in prop::collection::vec(any::<u8>(), 0..3_000), repeat in 1..20_usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (tenant, kind) = (Tenant::default(), kind());
                let about = about(&tenant, &kind);
                let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobs::new());
                let codecs = Codecs::new()
                    .with(Compress::above(100))
                    .with(Encrypt::with_key(9, [7; 32]))
                    .with(Offload::above(4_000, blobs));
                let args = Bytes::from(args.repeat(repeat));
                // Bytes that begin with the mark are taken for encoded ones; nobody writes such by chance.
                let encoded = codecs.encode(&about, &args).await.unwrap();
                assert!(encoded.len() < 4_100);
                assert_eq!(codecs.decode(&about, &encoded).await.unwrap(), args);
            });
        }

        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0..4_u8) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut marked = MARK.to_vec();
            marked.extend_from_slice(&[1, tag]);
            marked.append(&mut bytes);
            runtime.block_on(async {
                let (tenant, kind) = (Tenant::default(), kind());
                let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobs::new());
                let codecs = Codecs::new()
                    .with(Compress::above(100))
                    .with(Encrypt::with_key(9, [7; 32]))
                    .with(Offload::above(4_000, blobs));
                let _ = codecs.decode(&about(&tenant, &kind), &marked.into()).await;
            });
        }
    }
}
