//! What the user asked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// How the program is called; printed with every misuse.
pub(crate) const USAGE: &str = "usage: run FILE [--store PATH] [--new] [--jobs N]";

/// The most steps that `--jobs` runs at once.
const JOBS_MAX: u32 = 1_024;

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// The pipeline file.
    pub(crate) file: PathBuf,
    /// The directory of the store and the logs.
    pub(crate) store: PathBuf,
    /// Whether an unfinished run is given up.
    pub(crate) new: bool,
    /// How many steps run at once.
    pub(crate) jobs: u32,
}

impl Args {
    /// Reads the arguments, without the program's name.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut args = args.into_iter();
        let (mut file, mut store, mut new) = (None, None, false);
        let mut jobs =
            std::thread::available_parallelism().map_or(2, |n| u32::try_from(n.get()).unwrap_or(JOBS_MAX));
        while let Some(arg) = args.next() {
            let mut value = |name: &str| args.next().ok_or_else(|| format!("{name} wants a value; {USAGE}"));
            match arg.to_string_lossy().as_ref() {
                "--store" => store = Some(PathBuf::from(value("--store")?)),
                "--new" => new = true,
                "--jobs" => jobs = number(&value("--jobs")?.to_string_lossy())?,
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag:?}; {USAGE}")),
                _ if file.is_some() => return Err(format!("one FILE, please; {USAGE}")),
                _ => file = Some(PathBuf::from(&arg)),
            }
        }
        let file = file.ok_or_else(|| USAGE.to_owned())?;
        let store = store.unwrap_or_else(|| default_store(&file));
        Ok(Self { file, store, new, jobs })
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if (1..=JOBS_MAX).contains(&n) => Ok(n),
        _ => Err(format!("--jobs wants a number from 1 to {JOBS_MAX}, not {text:?}")),
    }
}

/// `.hodei/STEM` beside the file.
fn default_store(file: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap_or(file.as_os_str());
    file.parent().unwrap_or_else(|| Path::new("")).join(".hodei").join(stem)
}
