//! Names and ids.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Fault, Result};
use crate::time::{Clock, Timestamp};

/// The longest name, in bytes.
pub const NAME_MAX: usize = 128;

/// A short name: `[A-Za-z0-9_.-]{1,128}`, but not `.` or `..`. Cloning shares the text.
///
/// Names are compared byte by byte: there is no case folding and no normalisation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// Takes a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the code `empty`, `too_long` or `bad_char`.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        match Self::fault("name", text) {
            Some(fault) => Err(Error::invalid("name.parse", vec![fault])),
            None => Ok(Self(text.into())),
        }
    }

    /// Takes a text that [`Name::fault`] has found nothing wrong with.
    pub(crate) fn of_checked(text: &str) -> Self {
        debug_assert!(Self::fault("name", text).is_none(), "a name that was checked");
        Self(text.into())
    }

    /// Returns the rule that a text breaks as a name, if any, under the name of a field.
    #[must_use]
    pub fn fault(field: &str, text: &str) -> Option<Fault> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if text.is_empty() {
            Some(Fault::new(field, "empty"))
        } else if text.len() > NAME_MAX {
            Some(Fault::new(field, "too_long").limit(NAME_MAX as u64))
        } else if !text.bytes().all(ok) || text == "." || text == ".." {
            Some(Fault::new(field, "bad_char").detail(text.escape_debug().to_string()))
        } else {
            None
        }
    }

    /// Takes a constant that is a name by its looks.
    ///
    /// # Panics
    ///
    /// When it is no name; use it for literals only.
    #[must_use]
    pub fn literal(text: &'static str) -> Self {
        assert!(Self::fault("name", text).is_none(), "a literal name must match [A-Za-z0-9_.-]{{1,128}}");
        Self(text.into())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Name {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Whose work it is. Tenants never see each other's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(Name);

impl Tenant {
    /// Takes a tenant's name.
    ///
    /// # Errors
    ///
    /// As [`Name::new`].
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        Name::new(name).map(Self)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the slot that the ids of this tenant's jobs carry.
    #[must_use]
    pub fn slot(&self) -> Slot {
        let hash = blake3::hash(self.as_str().as_bytes());
        let [high, low, ..] = *hash.as_bytes();
        Slot(u16::from_be_bytes([high, low]) & Slot::MAX.0)
    }
}

impl Default for Tenant {
    /// The tenant of applications that have only one: `default`.
    fn default() -> Self {
        static DEFAULT: OnceLock<Tenant> = OnceLock::new();
        DEFAULT.get_or_init(|| Self(Name::literal("default"))).clone()
    }
}

impl From<Name> for Tenant {
    fn from(name: Name) -> Self {
        Self(name)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Twelve bits of a tenant's hash: what routes a job by its id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The highest slot.
    pub const MAX: Self = Self(0x0fff);

    /// Returns the slot of a number, if there is one.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// Returns the number of the slot, 0 to 4095.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// The id of a job: a UUIDv7 whose random part begins with the slot of its tenant.
///
/// Layout, from the highest bit: 48 bits of milliseconds, the version, 12 bits of a counter that keeps the ids of a
/// process in order, the variant, 12 bits of slot, 50 random bits. Ids are minted by the caller before the first
/// try, so that a submission can be repeated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

/// The id of a pipeline; the same layout as [`JobId`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PipelineId(Uuid);

macro_rules! uuid_id {
    ($id:ident) => {
        impl $id {
            /// Mints an id for a tenant's work at a time; ids minted by one process ascend.
            #[must_use]
            pub fn mint(tenant: &Tenant, clock: &dyn Clock) -> Self {
                let ticket = next_tickets(clock.now(), 1).start;
                Self::from_parts(ticket, tenant.slot(), random(ticket))
            }

            /// Mints ids for a tenant's work at one time; they ascend, and what is minted later follows them.
            ///
            /// # Performance
            ///
            /// One reading of the clock and one step of the counter, however many they are. A millisecond has room for
            /// 4,096 ids: the times in those of a larger batch run ahead of the clock.
            pub fn mint_many(tenant: &Tenant, clock: &dyn Clock, count: usize) -> impl Iterator<Item = Self> {
                let slot = tenant.slot();
                let tickets = next_tickets(clock.now(), count as u64);
                tickets.map(move |ticket| Self::from_parts(ticket, slot, random(ticket)))
            }

            /// Makes an id of its parts; for simulations and tests that must repeat.
            ///
            /// `ticket` is milliseconds × 4096 + counter; of `random` 50 bits are used.
            #[must_use]
            pub fn from_parts(ticket: u64, slot: Slot, random: u64) -> Self {
                let high = ((ticket >> 12) << 16) | 0x7000 | (ticket & 0x0fff);
                let low = (0b10 << 62) | (u64::from(slot.0) << 50) | (random & ((1 << 50) - 1));
                Self(Uuid::from_u64_pair(high, low))
            }

            /// Takes the sixteen bytes of an id.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// Returns the sixteen bytes; their order is the order of the ids.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Returns when it was minted, to the millisecond. Of many that are minted together the later ones say a
            /// little more.
            #[must_use]
            pub fn minted_at(self) -> Timestamp {
                let (high, _) = self.0.as_u64_pair();
                Timestamp::from_micros((high >> 16).cast_signed().saturating_mul(1_000))
            }

            /// Returns the slot of the tenant.
            #[must_use]
            pub fn slot(self) -> Slot {
                let (_, low) = self.0.as_u64_pair();
                Slot(u16::try_from((low >> 50) & 0x0fff).unwrap_or_default())
            }
        }

        /// The order of the bytes, compared as one number.
        impl Ord for $id {
            fn cmp(&self, other: &Self) -> Ordering {
                self.0.as_u128().cmp(&other.0.as_u128())
            }
        }

        impl PartialOrd for $id {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $id {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Uuid::parse_str(text).map(Self).map_err(|source| {
                    Error::invalid("id.parse", vec![Fault::new("id", "bad_char")]).source_error(source)
                })
            }
        }

        impl From<Uuid> for $id {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$id> for Uuid {
            fn from(id: $id) -> Self {
                id.0
            }
        }
    };
}

uuid_id!(JobId);
uuid_id!(PipelineId);

/// Returns the next tickets of this process: from the time in milliseconds × 4096 on, or from those given out before.
fn next_tickets(now: Timestamp, count: u64) -> Range<u64> {
    /// The first ticket that was not given out.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let floor = u64::try_from(now.as_micros() / 1_000).unwrap_or(0) << 12;
    // Relaxed: the counter orders nothing but itself.
    let next = NEXT.fetch_update(Relaxed, Relaxed, |next| Some(floor.max(next) + count));
    let start = next.map_or(floor, |next| floor.max(next));
    start..start + count
}

/// Returns random bits for a ticket: a keyed hash of it, the key drawn once per process from the system.
fn random(ticket: u64) -> u64 {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    KEY.get_or_init(RandomState::new).hash_one(ticket)
}

/// Who may hold leases: a node, or the session of a worker.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OwnerId(Name);

impl OwnerId {
    /// Takes an owner's name.
    ///
    /// # Errors
    ///
    /// As [`Name::new`].
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        Name::new(name).map(Self)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0
    }
}

impl From<Name> for OwnerId {
    fn from(name: Name) -> Self {
        Self(name)
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ManualClock, SystemClock};

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "A.b-c_9", "...", &"x".repeat(NAME_MAX)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(NAME_MAX + 1);
        for (bad, code) in [
            ("", "empty"),
            (".", "bad_char"),
            ("..", "bad_char"),
            ("a/b", "bad_char"),
            ("a\\b", "bad_char"),
            ("a b", "bad_char"),
            ("ñ", "bad_char"),
            ("a\u{202e}b", "bad_char"),
            ("a\0", "bad_char"),
            (&long, "too_long"),
        ] {
            assert_eq!(Name::new(bad).unwrap_err().faults()[0].code, code, "{bad:?}");
        }
    }

    #[test]
    fn names_differ_by_case() {
        assert_ne!(Name::new("A").unwrap(), Name::new("a").unwrap());
    }

    #[test]
    fn ids_ascend_and_carry_the_slot() {
        let tenant = Tenant::new("acme").unwrap();
        let ids: Vec<JobId> = (0..10_000).map(|_| JobId::mint(&tenant, &SystemClock)).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert!(ids.iter().all(|id| id.slot() == tenant.slot()));
        assert!(ids.iter().all(|id| Uuid::from(*id).get_version_num() == 7));
    }

    #[test]
    fn ids_minted_together_ascend_and_what_is_minted_later_follows() {
        let tenant = Tenant::new("acme").unwrap();
        let mut ids = vec![JobId::mint(&tenant, &SystemClock)];
        ids.extend(JobId::mint_many(&tenant, &SystemClock, 10_000));
        ids.extend(JobId::mint_many(&tenant, &SystemClock, 0));
        ids.push(JobId::mint(&tenant, &SystemClock));
        assert_eq!(ids.len(), 10_002);
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids.iter().all(|id| id.slot() == tenant.slot()));
    }

    #[test]
    fn ids_ascend_when_the_clock_steps_back() {
        let clock = ManualClock::at(Timestamp::from_micros(1_900_000_000_000_000));
        let tenant = Tenant::default();
        let first = JobId::mint(&tenant, &clock);
        clock.set(Timestamp::EPOCH);
        assert!(first < JobId::mint(&tenant, &clock));
    }

    #[test]
    fn ids_come_back_from_text_and_bytes() {
        let id = JobId::from_parts(77, Tenant::default().slot(), 5);
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert_eq!(JobId::from_bytes(*id.as_bytes()), id);
        assert_eq!("nonsense".parse::<JobId>().unwrap_err().faults()[0].field, "id");
    }
}
