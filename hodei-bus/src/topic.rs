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
/// tenant, kinds, in this order; queues and kinds within the tenant when there is one. It is listed under each of several
/// jobs or kinds: an event has one of either.
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
    all: Vec<Slot>,
    kinds: [Vec<Slot>; EventKind::COUNT],
    queues: HashMap<Name, Vec<Slot>>,
    /// How many stand here.
    members: usize,
}

impl Lists {
    /// Calls with every list that a filter is entered in.
    fn enter(&mut self, filter: &EventFilter, mut call: impl FnMut(&mut Vec<Slot>)) {
        match filter.narrowest() {
            Narrowest::Queue(queue) => call(self.queues.entry(queue.clone()).or_default()),
            _ => match filter.kinds() {
                Some(kinds) => {
                    let lists = self.kinds.iter_mut().enumerate();
                    lists.filter(|(kind, _)| kinds & 1 << kind != 0).for_each(|(_, list)| call(list));
                }
                None => call(&mut self.all),
            },
        }
    }

    /// Calls with every list of subscribers that an event with these keys may pass.
    fn offer(&self, keys: &Keys<'_>, mut call: impl FnMut(&[Slot])) {
        call(&self.all);
        call(&self.kinds[keys.kind as usize]);
        keys.queue.into_iter().for_each(|queue| call(listed(&self.queues, queue)));
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
                lists.members += 1;
                lists.enter(&filter, |list| list.push(slot));
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
        let tenant = filter.tenant_named();
        let lists = match tenant {
            Some(tenant) => self.tenants.get_mut(tenant),
            None => Some(&mut self.everyone),
        };
        let Some(lists) = lists else { return };
        lists.members -= 1;
        if let Narrowest::Queue(queue) = filter.narrowest() {
            strike(&mut lists.queues, queue, slot);
        } else {
            lists.enter(filter, |list| list.retain(|known| *known != slot));
        }
        if let Some(tenant) = tenant
            && lists.members == 0
        {
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
    /// O(subscribers listed under the event's own job and pipeline, and under its queue and kind, be it with its tenant or
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
