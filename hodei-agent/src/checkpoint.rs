//! Checkpoints as files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use hodei_core::checkpoint::{CHECKPOINT_MAX, CheckpointStore, check_fence, check_size};
use hodei_core::job::Epoch;
use hodei_core::{Error, ErrorKind, JobId, Result, Tenant};

/// What a file begins with: what it is, and the version of its layout.
const MARK: [u8; 8] = *b"hodeicp\x01";
/// The mark, the fence, whether something was saved, and the CRC32 of what comes before and after it.
const HEAD: usize = 8 + 8 + 1 + 4;

/// Checkpoints in a directory: a file for each job, written anew and synced with every save. They survive the death of the
/// process and a power cut. Several processes of one machine may share the directory; fences hold among them.
#[derive(Clone, Debug)]
pub struct FileCheckpoints {
    directory: PathBuf,
}

/// What a file says.
struct Kept {
    fence: Epoch,
    bytes: Option<Bytes>,
}

impl FileCheckpoints {
    /// Takes a directory, which is made when it is not there.
    ///
    /// # Errors
    ///
    /// `Io` when it cannot be made.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(|error| failed(&directory, error))?;
        Ok(Self { directory })
    }

    /// Does something with the file of a job while nobody else does, on a thread that may block.
    async fn with<R: Send + 'static>(
        &self,
        (tenant, job): (&Tenant, JobId),
        work: impl FnOnce(&Path) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        // Neither part has a slash or is a dot alone.
        let folder = self.directory.join(tenant.as_str());
        let path = folder.join(job.to_string());
        let done = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
            let lock = folder.join(".lock");
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
            let held = opened.and_then(|file| file.lock().map(|()| file));
            let _held = held.map_err(|error| failed(&lock, error))?;
            work(&path)
        })
        .await;
        done.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, "checkpoint").with("why", "it was stopped"))
        })
    }
}

#[async_trait]
impl CheckpointStore for FileCheckpoints {
    async fn open(&self, tenant: &Tenant, job: JobId, epoch: Epoch) -> Result<Option<Bytes>> {
        self.with((tenant, job), move |path| {
            let kept = read(path)?;
            check_fence(epoch, kept.fence)?;
            if epoch > kept.fence {
                write(path, epoch, kept.bytes.as_ref())?;
            }
            Ok(kept.bytes)
        })
        .await
    }

    async fn save(&self, tenant: &Tenant, job: JobId, epoch: Epoch, bytes: Bytes) -> Result<()> {
        check_size(&bytes)?;
        self.with((tenant, job), move |path| {
            check_fence(epoch, read(path)?.fence)?;
            write(path, epoch, Some(&bytes))
        })
        .await
    }

    async fn forget(&self, jobs: Vec<(Tenant, JobId)>) -> Result<()> {
        for (tenant, job) in jobs {
            let remove = |path: &Path| match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, error)),
                _ => Ok(()),
            };
            self.with((&tenant, job), remove).await?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Kept> {
    let mut all = Vec::new();
    match File::open(path) {
        Ok(file) => {
            let most = (HEAD + CHECKPOINT_MAX + 1) as u64;
            file.take(most).read_to_end(&mut all).map_err(|error| failed(path, error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Kept { fence: Epoch::default(), bytes: None });
        }
        Err(error) => return Err(failed(path, error)),
    }
    let damaged = || Error::new(ErrorKind::Corrupt, "checkpoint.read").with("path", path.display());
    let (head, bytes) = all.split_at_checked(HEAD).ok_or_else(damaged)?;
    let (told, sum) = head.split_at(HEAD - 4);
    let (mark, rest) = told.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (fence, saved) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    if *mark != MARK || *sum != checksum(told, bytes) {
        return Err(damaged());
    }
    let bytes = (saved == [1]).then(|| Bytes::copy_from_slice(bytes));
    Ok(Kept { fence: Epoch::from_number(u64::from_le_bytes(*fence)), bytes })
}

/// Puts a new file in the place of the old one, so that a power cut leaves one or the other.
fn write(path: &Path, fence: Epoch, bytes: Option<&Bytes>) -> Result<()> {
    let mut told = MARK.to_vec();
    told.extend_from_slice(&fence.number().to_le_bytes());
    told.push(u8::from(bytes.is_some()));
    let bytes = bytes.map_or(&[][..], |bytes| &bytes[..]);
    let new = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&[&told[..], &checksum(&told, bytes), bytes].concat())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The name is durable with its directory.
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    written().map_err(|error| failed(path, error))
}

fn checksum(told: &[u8], bytes: &[u8]) -> [u8; 4] {
    let mut sum = crc32fast::Hasher::new();
    sum.update(told);
    sum.update(bytes);
    sum.finalize().to_le_bytes()
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Io, "checkpoint").with("path", path.display()).source_error(error)
}
