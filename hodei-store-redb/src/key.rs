//! Keys whose bytes are in the order of what they say.
//!
//! Numbers are big-endian, signed ones with the sign turned over; a text ends with a NUL, which none may hold.

use hodei_core::job::State;
use hodei_core::store::LimitOf;
use hodei_core::{JobId, Name, PipelineId, Slot, Tenant, Timestamp};

fn text(key: &mut Vec<u8>, text: &str) {
    key.extend_from_slice(text.as_bytes());
    key.push(0);
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
pub(crate) fn ended(tenant: &Tenant, state: State, created_at: Timestamp, id: JobId) -> Vec<u8> {
    let mut key = state_prefix(tenant, state);
    key.extend_from_slice(&at(created_at, id));
    key
}

/// Takes a key of a list of what has ended apart: tenant, state.
pub(crate) fn split_ended(key: &[u8]) -> Option<(&str, State)> {
    let (state, tenant) = key.get(..key.len().checked_sub(24)?)?.split_last()?;
    let (end, tenant) = tenant.split_last()?;
    (*end == 0).then_some(())?;
    Some((std::str::from_utf8(tenant).ok()?, State::from_number(*state)?))
}

/// (pipeline, created_at, id)
pub(crate) fn pipeline(pipeline: PipelineId, created_at: Timestamp, id: JobId) -> Vec<u8> {
    let mut key = pipeline.as_bytes().to_vec();
    key.extend_from_slice(&at(created_at, id));
    key
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

/// (tenant, key) of the limit of a key; the NUL of a queue, and the lack of a text, tell the others from it.
pub(crate) fn limit(of: &LimitOf) -> Vec<u8> {
    match of {
        LimitOf::All => vec![0],
        LimitOf::Tenant(tenant) => tenant_prefix(tenant),
        LimitOf::Queue(tenant, queue) => {
            [&tenant_prefix(tenant)[..], &[0], queue.as_str().as_bytes()].concat()
        }
        LimitOf::Key(tenant, key) => tenant_text(tenant, key.as_str()),
    }
}

/// (parent, child)
pub(crate) fn child(parent: JobId, child: JobId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(parent.as_bytes());
    key[16..].copy_from_slice(child.as_bytes());
    key
}

/// (id, tenant)
pub(crate) fn checkpoint(job: JobId, tenant: &Tenant) -> Vec<u8> {
    [job.as_bytes(), tenant.as_str().as_bytes()].concat()
}

/// Takes a key of a checkpoint apart.
pub(crate) fn split_checkpoint(key: &[u8]) -> Option<(JobId, Tenant)> {
    let (job, tenant) = key.split_first_chunk()?;
    Some((JobId::from_bytes(*job), Tenant::new(std::str::from_utf8(tenant).ok()?).ok()?))
}

/// The sequence number of a change.
pub(crate) fn sequence(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Reads the sequence number of a change.
pub(crate) fn sequence_of(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// Reads the tenant that a key begins with.
pub(crate) fn tenant_of(key: &[u8]) -> Option<Tenant> {
    let end = key.iter().position(|byte| *byte == 0)?;
    Tenant::new(std::str::from_utf8(&key[..end]).ok()?).ok()
}

/// (slot)
pub(crate) fn slot(slot: Slot) -> [u8; 2] {
    slot.number().to_be_bytes()
}

/// Reads a slot.
pub(crate) fn slot_of(key: &[u8]) -> Option<Slot> {
    Slot::new(u16::from_be_bytes(key.try_into().ok()?))
}

/// Says whether a key whose last part may be a text ends before it: no text holds the NUL behind the tenant.
pub(crate) fn ends_with_tenant(key: &[u8]) -> bool {
    key.last() == Some(&0)
}

/// (slot, tenant, queue)
pub(crate) fn apart(of: Slot, tenant: &Tenant, queue: &Name) -> Vec<u8> {
    [&slot(of)[..], &tenant_text(tenant, queue.as_str())].concat()
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
    }

    #[test]
    fn what_is_behind_a_prefix_is_behind_it() {
        assert_eq!(behind(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(behind(&[1, 255]), Some(vec![2]));
        assert_eq!(behind(&[255, 255]), None);
    }
}
