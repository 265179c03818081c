//! Keys whose bytes are in the order of what they say.
//!
//! Numbers are big-endian, signed ones with the sign turned over; a text ends with a NUL, which none may hold.

use hodei_core::job::{Lease, Priority, State};
use hodei_core::store::Lane;
use hodei_core::{JobId, PipelineId, Tenant, Timestamp};

/// The bytes after the lane in a key of ready work: level, time, id.
const READY_TAIL: usize = 1 + 8 + 16;

fn text(key: &mut Vec<u8>, text: &str) {
    key.extend_from_slice(text.as_bytes());
    key.push(0);
}

fn time(key: &mut Vec<u8>, at: Timestamp) {
    key.extend_from_slice(&time_bytes(at));
}

fn time_bytes(at: Timestamp) -> [u8; 8] {
    let mut bytes = at.as_micros().to_be_bytes();
    bytes[0] ^= 0x80;
    bytes
}

fn time_of(bytes: &[u8]) -> Option<Timestamp> {
    let mut bytes: [u8; 8] = bytes.try_into().ok()?;
    bytes[0] ^= 0x80;
    Some(Timestamp::from_micros(i64::from_be_bytes(bytes)))
}

/// (tenant, queue, class)
pub(crate) fn lane(tenant: &str, queue: &str, class: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.len() + queue.len() + 10 + READY_TAIL);
    text(&mut key, tenant);
    text(&mut key, queue);
    key.extend_from_slice(&class.to_be_bytes());
    key
}

/// The key of a lane.
pub(crate) fn lane_of(of: &Lane) -> Vec<u8> {
    lane(of.tenant.as_str(), of.queue.as_str(), of.class.number())
}

/// (lane, 63 − level, eligible_at, id)
pub(crate) fn ready(mut lane: Vec<u8>, level: Priority, eligible_at: Timestamp, id: JobId) -> Vec<u8> {
    lane.push(Priority::MAX.level() - level.level());
    time(&mut lane, eligible_at);
    lane.extend_from_slice(id.as_bytes());
    lane
}

/// Takes a key of ready work apart: lane, level, eligible_at, id.
pub(crate) fn split_ready(key: &[u8]) -> Option<(&[u8], Priority, Timestamp, JobId)> {
    let (lane, tail) = key.split_at_checked(key.len().checked_sub(READY_TAIL)?)?;
    let level = Priority::new(Priority::MAX.level().checked_sub(tail[0])?).ok()?;
    Some((lane, level, time_of(&tail[1..9])?, last_id(key)?))
}

/// (time, id)
pub(crate) fn at(at: Timestamp, id: JobId) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&time_bytes(at));
    key[8..].copy_from_slice(id.as_bytes());
    key
}

/// Returns the time of a key whose last parts are a time and an id.
pub(crate) fn last_time(key: &[u8]) -> Option<Timestamp> {
    time_of(key.get(key.len().checked_sub(24)?..key.len() - 16)?)
}

/// Returns the id that ends a key.
pub(crate) fn last_id(key: &[u8]) -> Option<JobId> {
    key.last_chunk::<16>().map(|bytes| JobId::from_bytes(*bytes))
}

/// (tenant, state)
pub(crate) fn state_prefix(tenant: &Tenant, state: State) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.as_str().len() + 2 + 24);
    text(&mut key, tenant.as_str());
    key.push(state as u8);
    key
}

/// (tenant, state, created_at, id)
pub(crate) fn by_state(tenant: &Tenant, state: State, created_at: Timestamp, id: JobId) -> Vec<u8> {
    let mut key = state_prefix(tenant, state);
    key.extend_from_slice(&at(created_at, id));
    key
}

/// (pipeline, created_at, id)
pub(crate) fn pipeline(pipeline: PipelineId, created_at: Timestamp, id: JobId) -> Vec<u8> {
    let mut key = pipeline.as_bytes().to_vec();
    key.extend_from_slice(&at(created_at, id));
    key
}

/// (owner, incarnation)
pub(crate) fn lease_prefix(lease: &Lease) -> Vec<u8> {
    let owner = lease.owner.name().as_str();
    let mut key = Vec::with_capacity(owner.len() + 1 + 8 + 16);
    text(&mut key, owner);
    key.extend_from_slice(&lease.incarnation.to_be_bytes());
    key
}

/// (owner, incarnation, id)
pub(crate) fn lease(lease: &Lease, id: JobId) -> Vec<u8> {
    let mut key = lease_prefix(lease);
    key.extend_from_slice(id.as_bytes());
    key
}

/// Takes a key of a lease apart: owner, incarnation.
pub(crate) fn split_lease(key: &[u8]) -> Option<(&str, u64)> {
    let head = key.get(..key.len().checked_sub(24)?)?;
    let incarnation: [u8; 8] = key.get(head.len()..head.len() + 8)?.try_into().ok()?;
    let (end, owner) = head.split_last()?;
    (*end == 0).then_some(())?;
    Some((std::str::from_utf8(owner).ok()?, u64::from_be_bytes(incarnation)))
}

/// (tenant, text)
pub(crate) fn tenant_text(tenant: &Tenant, of: &str) -> Vec<u8> {
    let mut key = tenant_prefix(tenant);
    key.extend_from_slice(of.as_bytes());
    key
}

/// (tenant)
pub(crate) fn tenant_prefix(tenant: &Tenant) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.as_str().len() + 17);
    text(&mut key, tenant.as_str());
    key
}

/// (parent, child)
pub(crate) fn child(parent: JobId, child: JobId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(parent.as_bytes());
    key[16..].copy_from_slice(child.as_bytes());
    key
}

/// The sequence number of a change.
pub(crate) fn sequence(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Reads the sequence number of a change.
pub(crate) fn sequence_of(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// Returns the first key behind everything that begins with a prefix; nothing when there is none.
pub(crate) fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_what_they_say() {
        let id = |n| JobId::from_parts(n, Tenant::default().slot(), 0);
        let times = [i64::MIN, -1, 0, 1, i64::MAX].map(Timestamp::from_micros);
        let keys = times.map(|t| at(t, id(1)));
        assert!(keys.is_sorted());
        for (time, key) in times.into_iter().zip(keys) {
            assert_eq!((last_time(&key), last_id(&key)), (Some(time), Some(id(1))));
        }
        let lane = lane("a", "b", 7);
        let high = ready(lane.clone(), Priority::MAX, times[4], id(2));
        let low = ready(lane.clone(), Priority::MIN, times[0], id(1));
        assert!(high < low);
        assert_eq!(split_ready(&low), Some((&lane[..], Priority::MIN, times[0], id(1))));
        assert_eq!(split_ready(&low[..20]), None);
    }

    #[test]
    fn what_is_behind_a_prefix_is_behind_it() {
        assert_eq!(behind(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(behind(&[1, 255]), Some(vec![2]));
        assert_eq!(behind(&[255, 255]), None);
    }
}
