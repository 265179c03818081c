//! A stream of a run in a file.
//!
//! The bytes are in `TENANT/JOB/EPOCH.STREAM.log`. When the stream has ended, `EPOCH.STREAM.end` beside it holds how
//! many bytes are kept, how many were dropped, and the CRC32 of the kept ones, as text.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hodei_core::job::{LogEnd, Stream};
use hodei_core::log::LogKey;
use hodei_core::{JobId, Tenant};

fn home(directory: &Path, tenant: &Tenant, job: JobId) -> PathBuf {
    directory.join(tenant.as_str()).join(job.to_string())
}

/// Removes everything of a job.
pub(super) fn forget(directory: &Path, tenant: &Tenant, job: JobId) -> io::Result<()> {
    match fs::remove_dir_all(home(directory, tenant, job)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn path(directory: &Path, key: &LogKey, extension: &str) -> PathBuf {
    let stream = match key.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::System => "system",
    };
    home(directory, &key.tenant, key.job).join(format!("{}.{stream}.{extension}", key.epoch))
}

/// Begins the file of a stream; what an earlier writer of the same epoch left is replaced.
pub(super) fn create(directory: &Path, key: &LogKey) -> io::Result<File> {
    let path = path(directory, key, "log");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).write(true).truncate(true).open(path)
}

/// Notes the end of a stream.
pub(super) fn end(directory: &Path, key: &LogKey, end: &LogEnd) -> io::Result<()> {
    fs::write(path(directory, key, "end"), format!("{} {} {}\n", end.kept, end.dropped, end.crc32))
}

/// Reads from a stream that nobody writes any more: its bytes, and how many were dropped.
pub(super) fn read(directory: &Path, key: &LogKey, offset: u64, max: usize) -> io::Result<(Bytes, u64)> {
    let mut file = File::open(path(directory, key, "log"))?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(max as u64).read_to_end(&mut bytes)?;
    let dropped = fs::read_to_string(path(directory, key, "end")).ok();
    let dropped = dropped.and_then(|text| text.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    Ok((bytes.into(), dropped))
}
