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

/// Subscribers with mailboxes, each listed under the narrowest thing that its filter names: jobs, a pipeline, a queue, a
/// tenant, kinds, in this order; queues within the tenant when there is one, and kinds within either. It is listed under each
/// of several jobs or kinds: an event has one of either.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    boxes: Vec<Option<Topic>>,
    free: Vec<Slot>,
    jobs: HashMap<JobId, Vec<Slot>>,
    pipelines: HashMap<PipelineId, Vec<Slot>>,
    /// Those that name no tenant.
    everyone: Lists,
    tenants: HashMap<Tenant, Lists>,
    naming_queues: usize,
}

/// Subscribers of one tenant's events, or of everybody's.
#[derive(Debug, Default)]
struct Lists {
    /// Those that name no queue.
    any: Kinds,
    queues: HashMap<Name, Kinds>,
    /// How many stand here.
    members: usize,
}

impl Lists {
    fn enter(&mut self, filter: &EventFilter, slot: Slot) {
        self.members += 1;
        match filter.narrowest() {
            Narrowest::Queue(queue) => self.queues.entry(queue.clone()).or_default().enter(filter, slot),
            _ => self.any.enter(filter, slot),
        }
    }

    /// Takes a subscriber off, and the lists of its queue away when it was the last.
    fn leave(&mut self, filter: &EventFilter, slot: Slot) {
        self.members -= 1;
        let Narrowest::Queue(queue) = filter.narrowest() else { return self.any.leave(filter, slot) };
        let Some(kinds) = self.queues.get_mut(queue) else { return };
        kinds.leave(filter, slot);
        if kinds.is_empty() {
            self.queues.remove(queue);
        }
    }

    /// Calls with every list of subscribers that an event with these keys may pass.
    fn offer(&self, keys: &Keys<'_>, mut call: impl FnMut(&[Slot])) {
        self.any.offer(keys, &mut call);
        if let Some(queue) = keys.queue.filter(|_| !self.queues.is_empty()) {
            self.queues.get(queue).into_iter().for_each(|kinds| kinds.offer(keys, &mut call));
        }
    }
}

/// Subscribers by the kinds that they name. Small while nobody names any: there is one of these for each queue of each tenant.
#[derive(Debug, Default)]
struct Kinds {
    /// Those that name none.
    all: Vec<Slot>,
    each: Option<Box<[Vec<Slot>; EventKind::COUNT]>>,
}

impl Kinds {
    /// Calls with every list that a filter is entered in.
    fn lists(&mut self, filter: &EventFilter, mut call: impl FnMut(&mut Vec<Slot>)) {
        let Some(kinds) = filter.kinds() else { return call(&mut self.all) };
        let each = self.each.get_or_insert_default().iter_mut().enumerate();
        each.filter(|(kind, _)| kinds & 1 << kind != 0).for_each(|(_, list)| call(list));
    }

    fn enter(&mut self, filter: &EventFilter, slot: Slot) {
        self.lists(filter, |list| list.push(slot));
    }

    fn leave(&mut self, filter: &EventFilter, slot: Slot) {
        self.lists(filter, |list| list.retain(|known| *known != slot));
        if self.each.as_ref().is_some_and(|each| each.iter().all(Vec::is_empty)) {
            self.each = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.each.is_none()
    }

    fn offer(&self, keys: &Keys<'_>, mut call: impl FnMut(&[Slot])) {
        call(&self.all);
        self.each.iter().for_each(|each| call(&each[keys.kind as usize]));
    }
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
            _ => {
                let lists = match filter.tenant_named() {
                    Some(tenant) => self.tenants.entry(tenant.clone()).or_default(),
                    None => &mut self.everyone,
                };
                lists.enter(&filter, slot);
            }
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
            _ => self.leave(&topic.filter, slot),
        }
        self.free.push(slot);
        Some(topic)
    }

    /// Takes a subscriber off the lists of its tenant, or of everybody, and empty lists away.
    fn leave(&mut self, filter: &EventFilter, slot: Slot) {
        let Some(tenant) = filter.tenant_named() else { return self.everyone.leave(filter, slot) };
        let Some(lists) = self.tenants.get_mut(tenant) else { return };
        lists.leave(filter, slot);
        if lists.members == 0 {
            self.tenants.remove(tenant);
        }
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
    pub(crate) fn mailboxes(&self) -> impl Iterator<Item = &Arc<Mailbox>> {
        self.boxes.iter().flatten().map(|topic| &topic.mailbox)
    }

    /// Calls for each subscriber that wants an event with these keys.
    ///
    /// # Performance
    ///
    /// O(subscribers listed under the event's own job and pipeline, and under its kind, be it with its tenant and its queue or
    /// without).
    pub(crate) fn wanting(&self, keys: &Keys<'_>, mut call: impl FnMut(Slot)) {
        let mut offer = |list: &[Slot]| {
            for slot in list {
                if self.boxes[*slot].as_ref().is_some_and(|topic| topic.filter.passes(keys)) {
                    call(*slot);
                }
            }
        };
        self.everyone.offer(keys, &mut offer);
        if let Some(tenant) = keys.tenant.filter(|_| !self.tenants.is_empty()) {
            self.tenants.get(tenant).into_iter().for_each(|lists| lists.offer(keys, &mut offer));
        }
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

#[cfg(test)]
mod tests {
    use hodei_core::bus::Overflow;

    use super::*;

    /// Subscribers of other tenants, queues and kinds are not even looked at.
    #[test]
    fn who_is_not_concerned_is_not_looked_at() {
        let (mut topics, mailbox) = (Topics::default(), Mailbox::new(Overflow::DropOldest, 1));
        let tenants = ["t1", "t2"].map(|name| Tenant::new(name).unwrap());
        let queues = [Name::literal("q1"), Name::literal("q2")];
        let kinds = [EventKind::Pending, EventKind::Failed];
        for (tenant, queue) in
            tenants.iter().flat_map(|tenant| queues.iter().map(move |queue| (tenant, queue)))
        {
            for kind in kinds {
                let filters = [
                    EventFilter::all(),
                    EventFilter::all().queue(queue.clone()),
                    EventFilter::all().tenant(tenant.clone()),
                    EventFilter::all().tenant(tenant.clone()).queue(queue.clone()),
                ];
                for filter in filters {
                    topics.insert(filter.kind(kind), Arc::clone(&mailbox));
                }
            }
        }
        let keys = Keys {
            kind: EventKind::Failed,
            tenant: Some(&tenants[0]),
            queue: Some(&queues[0]),
            pipeline: None,
            job: None,
        };
        let (mut looked, mut wanted) = (0, 0);
        topics.everyone.offer(&keys, |list| looked += list.len());
        topics.tenants[&tenants[0]].offer(&keys, |list| looked += list.len());
        topics.wanting(&keys, |_| wanted += 1);
        // Four name the kind alone, two its queue beside it, two its tenant, and one both.
        assert_eq!((looked, wanted), (9, 9));
        (0..topics.boxes.len()).for_each(|slot| drop(topics.remove(slot)));
        assert!(
            topics.tenants.is_empty() && topics.everyone.queues.is_empty() && topics.everyone.any.is_empty()
        );
    }
}
