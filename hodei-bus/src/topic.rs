//! Who wants an event: found by what the event is, not by asking every subscriber.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use hodei_core::bus::{EventFilter, Narrowest};
use hodei_core::event::{EventKind, Keys};
use hodei_core::{JobId, Name, PipelineId, Tenant};

use crate::mailbox::Mailbox;

/// The place of a subscriber.
pub(crate) type Slot = usize;

/// Subscribers with mailboxes, each listed once under the narrowest thing that its filter names (under each of them, when
/// those are jobs or kinds: an event has one of either).
#[derive(Debug, Default)]
pub(crate) struct Topics {
    boxes: Vec<Option<Topic>>,
    free: Vec<Slot>,
    all: Vec<Slot>,
    kinds: [Vec<Slot>; EventKind::COUNT],
    tenants: HashMap<Tenant, Vec<Slot>>,
    queues: HashMap<Name, Vec<Slot>>,
    pipelines: HashMap<PipelineId, Vec<Slot>>,
    jobs: HashMap<JobId, Vec<Slot>>,
    naming_queues: usize,
}

#[derive(Debug)]
pub(crate) struct Topic {
    filter: EventFilter,
    pub(crate) mailbox: Arc<Mailbox>,
    /// How many events a batch that is being planned brings to it.
    pub(crate) planned: usize,
}

impl Topics {
    /// Lists a subscriber.
    pub(crate) fn insert(&mut self, filter: EventFilter, mailbox: Arc<Mailbox>) -> Slot {
        self.naming_queues += usize::from(filter.names_queue());
        let slot = self.free.pop().unwrap_or(self.boxes.len());
        match filter.narrowest() {
            Narrowest::Jobs(jobs) => {
                jobs.iter().for_each(|job| self.jobs.entry(*job).or_default().push(slot));
            }
            Narrowest::Pipeline(pipeline) => self.pipelines.entry(pipeline).or_default().push(slot),
            Narrowest::Queue(queue) => self.queues.entry(queue.clone()).or_default().push(slot),
            Narrowest::Tenant(tenant) => self.tenants.entry(tenant.clone()).or_default().push(slot),
            Narrowest::Kinds(kinds) => {
                let wanted = self.kinds.iter_mut().enumerate().filter(|(kind, _)| kinds & 1 << kind != 0);
                wanted.for_each(|(_, list)| list.push(slot));
            }
            Narrowest::All => self.all.push(slot),
        }
        let topic = Some(Topic { filter, mailbox, planned: 0 });
        match self.boxes.get_mut(slot) {
            Some(place) => *place = topic,
            None => self.boxes.push(topic),
        }
        slot
    }

    /// Takes a subscriber off every list.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Topic> {
        let topic = self.boxes.get_mut(slot)?.take()?;
        self.naming_queues -= usize::from(topic.filter.names_queue());
        match topic.filter.narrowest() {
            Narrowest::Jobs(jobs) => jobs.iter().for_each(|job| strike(&mut self.jobs, job, slot)),
            Narrowest::Pipeline(pipeline) => strike(&mut self.pipelines, &pipeline, slot),
            Narrowest::Queue(queue) => strike(&mut self.queues, queue, slot),
            Narrowest::Tenant(tenant) => strike(&mut self.tenants, tenant, slot),
            Narrowest::Kinds(_) => self.kinds.iter_mut().for_each(|list| list.retain(|known| *known != slot)),
            Narrowest::All => self.all.retain(|known| *known != slot),
        }
        self.free.push(slot);
        Some(topic)
    }

    /// Returns a subscriber.
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Topic> {
        self.boxes.get_mut(slot)?.as_mut()
    }

    /// Says whether some subscriber asks for a queue, be it beside something narrower.
    pub(crate) fn filters_queues(&self) -> bool {
        self.naming_queues > 0
    }

    /// Returns every mailbox.
    #[cfg(feature = "nats")]
    pub(crate) fn mailboxes(&self) -> impl Iterator<Item = &Arc<Mailbox>> {
        self.boxes.iter().flatten().map(|topic| &topic.mailbox)
    }

    pub(crate) fn len(&self) -> usize {
        self.boxes.len() - self.free.len()
    }

    /// Calls for each subscriber that wants an event with these keys.
    ///
    /// # Performance
    ///
    /// O(subscribers listed under the event's own kind, tenant, queue, pipeline and job).
    pub(crate) fn wanting(&self, keys: &Keys<'_>, mut call: impl FnMut(Slot)) {
        let mut offer = |list: &[Slot]| {
            for slot in list {
                if self.boxes[*slot].as_ref().is_some_and(|topic| topic.filter.passes(keys)) {
                    call(*slot);
                }
            }
        };
        offer(&self.all);
        offer(&self.kinds[keys.kind as usize]);
        keys.tenant.into_iter().for_each(|tenant| offer(listed(&self.tenants, tenant)));
        keys.queue.into_iter().for_each(|queue| offer(listed(&self.queues, queue)));
        keys.pipeline.into_iter().for_each(|pipeline| offer(listed(&self.pipelines, &pipeline)));
        keys.job.into_iter().for_each(|job| offer(listed(&self.jobs, &job)));
    }
}

impl Drop for Topics {
    /// Whoever waits for events learns that none will come.
    fn drop(&mut self) {
        self.boxes.iter().flatten().for_each(|topic| topic.mailbox.close());
    }
}

fn listed<'a, K: Hash + Eq>(lists: &'a HashMap<K, Vec<Slot>>, key: &K) -> &'a [Slot] {
    // An empty map is not worth a hash.
    if lists.is_empty() { &[] } else { lists.get(key).map_or(&[], Vec::as_slice) }
}

/// Takes a subscriber off a list, and the list away when it was the last.
fn strike<K: Hash + Eq>(lists: &mut HashMap<K, Vec<Slot>>, key: &K, slot: Slot) {
    let Some(list) = lists.get_mut(key) else { return };
    list.retain(|known| *known != slot);
    if list.is_empty() {
        lists.remove(key);
    }
}
