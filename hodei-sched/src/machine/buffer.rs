//! Claimed jobs that no session has yet.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use hodei_core::job::{Epoch, Job, JobSpec, Priority};
use hodei_core::map::JobMap;
use hodei_core::store::Claimed;
use hodei_core::{JobId, Name, PipelineId, Tenant, Timestamp};

use super::placement::Asked;
use crate::queue::{Ageing, ClassId, Handle, LaneId, ReadyQueue, ShareId};

/// So many lanes may be there of which nothing waits.
const IDLE_LANES_MAX: usize = 256;

/// A claimed job, what it asks, and what it belongs to.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) claimed: Claimed,
    pub(super) class: ClassId,
    /// When it came, and at which level.
    pub(super) came: Timestamp,
    level: Priority,
    /// Jobs of a group had better run on the same worker.
    key: u64,
}

/// What the jobs of a tenant that belong together have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Pipeline([u8; 16]),
    Queue(Name),
}

impl Group {
    fn of(job: &Job) -> Self {
        let step = |pipeline: PipelineId| Self::Pipeline(*pipeline.as_bytes());
        job.pipeline.map_or_else(|| Self::Queue(job.spec.queue().clone()), step)
    }

    /// Whether a job belongs to it.
    fn has(&self, job: &Job) -> bool {
        match self {
            Self::Pipeline(id) => job.pipeline.is_some_and(|pipeline| pipeline.as_bytes() == id),
            Self::Queue(name) => job.pipeline.is_none() && job.spec.queue() == name,
        }
    }

    /// A number that is the same wherever and whenever it is asked for (FNV-1a).
    fn key(&self, tenant: &Tenant) -> u64 {
        let group = match self {
            Self::Pipeline(id) => &id[..],
            Self::Queue(name) => name.as_str().as_bytes(),
        };
        let bytes = tenant.as_str().bytes().chain([0]).chain(group.iter().copied());
        bytes
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

#[derive(Debug)]
struct Grouped {
    share: ShareId,
    /// Of whose jobs it was opened for: it weighs as that.
    queue: Name,
    /// That of its pipeline, in the queue.
    weight: u32,
    key: u64,
    lanes: BTreeMap<u32, LaneId>,
}

#[derive(Debug)]
struct Tenancy {
    share: ShareId,
    groups: BTreeMap<Group, Grouped>,
}

/// How a tenant's queues weigh against each other. The tenant weighs as the heaviest of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Weights {
    tenant: u32,
    /// Those that do not weigh one.
    queues: BTreeMap<Name, u32>,
}

impl Weights {
    fn of(&self, queue: &Name) -> u32 {
        self.queues.get(queue).copied().unwrap_or(1)
    }

    /// What a pipeline of a queue weighs against all that the tenant has.
    fn within(&self, queue: &Name, weight: u32) -> u32 {
        self.of(queue).saturating_mul(weight)
    }
}

/// Claimed jobs in the order in which they are to be assigned: by level, then tenants in turn by weight, then their queues and
/// pipelines in turn, a pipeline with its weight times that of its queue, then as they were claimed.
#[derive(Debug)]
pub(super) struct Buffer {
    queue: ReadyQueue<Waiting>,
    places: JobMap<Handle>,
    tenants: BTreeMap<Tenant, Tenancy>,
    weights: BTreeMap<Tenant, Weights>,
    lanes: usize,
    /// How many wait of each class that came at each level.
    waiting: BTreeMap<(u32, Priority), u32>,
    /// Room for the classes that are held back, while they are gone through.
    held: Vec<(ClassId, Priority)>,
    /// Where the last one went: the next one is mostly of the same kind.
    last: Option<(Tenant, Group, ClassId, LaneId, u64)>,
}

impl Buffer {
    pub(super) fn new(ageing: Option<Ageing>) -> Self {
        Self {
            queue: ReadyQueue::new(ageing),
            places: JobMap::default(),
            tenants: BTreeMap::new(),
            weights: BTreeMap::new(),
            lanes: 0,
            waiting: BTreeMap::new(),
            held: Vec::new(),
            last: None,
        }
    }

    /// Adds a claimed job of a class, for which it is counted already, behind those of its lane at a level. A job that is there
    /// already stays where it is, under the higher of the two epochs; then `false` is returned.
    pub(super) fn push(&mut self, claimed: Claimed, class: ClassId, level: Priority, now: Timestamp) -> bool {
        let there = self.places.get(&claimed.job.id).copied();
        if let Some(there) = there.and_then(|handle| self.queue.get_mut(handle)) {
            if there.claimed.job.epoch < claimed.job.epoch {
                there.claimed = claimed;
            }
            return false;
        }
        let (lane, key) = self.lane(&claimed.job, class);
        let job = claimed.job.id;
        let handle = self.queue.push(Waiting { claimed, class, came: now, level, key }, lane, level, now);
        self.places.insert(job, handle);
        *self.waiting.entry((class.0, level)).or_insert(0) += 1;
        true
    }

    /// What the next job asks; classes that are held back have none.
    pub(super) fn next(&mut self) -> Option<Asked> {
        let next = self.queue.peek()?;
        Some(Asked { class: next.class, level: next.level, key: next.item.key })
    }

    /// What the next job is.
    pub(super) fn spec(&mut self) -> Option<&JobSpec> {
        self.queue.peek().map(|next| &*next.item.claimed.job.spec)
    }

    /// Takes the next job.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop()?.item;
        self.places.remove(&waiting.claimed.job.id);
        self.uncount(waiting.class, waiting.level);
        Some(waiting)
    }

    /// Holds a class back, for which there is no room.
    pub(super) fn hold(&mut self, class: ClassId) {
        self.queue.hold(class);
    }

    /// Lets those classes go for which there may be room again; none of a class's jobs is above the level beside it.
    pub(super) fn let_go(&mut self, mut room: impl FnMut(ClassId, Priority) -> bool) {
        let mut held = std::mem::take(&mut self.held);
        held.extend(self.queue.held());
        held.drain(..)
            .filter(|(class, level)| room(*class, *level))
            .for_each(|(class, _)| self.queue.let_go(class));
        self.held = held;
    }

    /// The most urgent class of those that are held back, and the level of what waits of it.
    pub(super) fn held_back(&self) -> Option<(ClassId, Priority)> {
        let of = |class: ClassId| self.waiting.range((class.0, Priority::MIN)..=(class.0, Priority::MAX));
        let tops = self.queue.held().filter_map(|(class, _)| Some((class, of(class).next_back()?.0.1)));
        tops.max_by_key(|(class, level)| (*level, Reverse(class.0)))
    }

    /// Takes a job out.
    pub(super) fn remove(&mut self, job: JobId) -> Option<Waiting> {
        let handle = self.places.remove(&job)?;
        let waiting = self.queue.remove(handle)?;
        self.uncount(waiting.class, waiting.level);
        Some(waiting)
    }

    /// Takes the jobs of the classes out that `keep` does not want.
    pub(super) fn shed(&mut self, keep: impl Fn(ClassId) -> bool) -> Vec<Waiting> {
        let classes = self.waiting.keys().map(|(class, _)| *class);
        let unwanted: Vec<u32> = classes.filter(|class| !keep(ClassId(*class))).collect();
        if unwanted.is_empty() {
            return Vec::new();
        }
        self.take_all(|waiting| unwanted.contains(&waiting.class.0))
    }

    /// Takes up to `n` jobs out of those that are wanted: the least urgent first, and of those the newest. Of one class the first
    /// in this order of urgency stays, if any of it is wanted.
    pub(super) fn take_least(
        &mut self,
        n: usize,
        wanted: impl Fn(&Waiting) -> bool,
        spared: Option<ClassId>,
    ) -> Vec<Waiting> {
        if n == 0 {
            return Vec::new();
        }
        let mut found: Vec<_> = self.queue.find_all(|waiting| wanted(waiting));
        let urgency = |handle: &Handle| {
            let waiting = self.queue.get(*handle)?;
            let job = &waiting.claimed.job;
            Some((waiting.level, Reverse(waiting.came), Reverse(job.eligible_at), Reverse(job.id)))
        };
        found.sort_by_cached_key(urgency);
        let is_spared =
            |handle: &Handle| self.queue.get(*handle).is_some_and(|waiting| Some(waiting.class) == spared);
        if let Some(first) = found.iter().rposition(is_spared) {
            found.remove(first);
        }
        found.truncate(n);
        let taken = found.into_iter().filter_map(|handle| self.queue.remove(handle)).collect();
        self.forget(taken)
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> Vec<Waiting> {
        self.take_all(|_| true)
    }

    fn take_all(&mut self, wanted: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let found = self.queue.find_all(|waiting| wanted(waiting));
        let taken = found.into_iter().filter_map(|handle| self.queue.remove(handle)).collect();
        let mut taken = self.forget(taken);
        taken.sort_unstable_by_key(|waiting| waiting.claimed.job.id);
        taken
    }

    /// Forgets where jobs were that have been taken out.
    fn forget(&mut self, taken: Vec<Waiting>) -> Vec<Waiting> {
        for waiting in &taken {
            self.places.remove(&waiting.claimed.job.id);
            self.uncount(waiting.class, waiting.level);
        }
        taken
    }

    /// Goes through the classes of which any wait, and the levels at which these came: how many there are of each.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (ClassId, u32, Priority)> {
        self.waiting.iter().map(|((class, level), n)| (ClassId(*class), *n, *level))
    }

    /// How many jobs wait that came at a level or above it.
    pub(super) fn at_least(&self, level: Priority) -> u64 {
        self.waiting().filter(|(_, _, at)| *at >= level).map(|(_, n, _)| u64::from(n)).sum()
    }

    /// How many jobs of a class wait that came below a level.
    pub(super) fn below(&self, class: ClassId, level: Priority) -> u64 {
        let below = self.waiting.range((class.0, Priority::MIN)..(class.0, level));
        below.map(|(_, n)| u64::from(*n)).sum()
    }

    /// How many jobs wait of the classes that are held back, for which there is no room.
    pub(super) fn stuck(&self) -> u64 {
        let of = |class: ClassId| self.waiting.range((class.0, Priority::MIN)..=(class.0, Priority::MAX));
        self.queue.held().flat_map(|(class, _)| of(class)).map(|(_, n)| u64::from(*n)).sum()
    }

    /// Whether any job of a class waits.
    pub(super) fn waits(&self, class: ClassId) -> bool {
        self.waiting.range((class.0, Priority::MIN)..=(class.0, Priority::MAX)).next().is_some()
    }

    /// Says whether a job is there under this epoch.
    pub(super) fn contains(&self, job: JobId, epoch: Epoch) -> bool {
        let there = self.places.get(&job).and_then(|handle| self.queue.get(*handle));
        there.is_some_and(|waiting| waiting.claimed.job.epoch == epoch)
    }

    /// Under which epoch a job waits here.
    pub(super) fn epoch_of(&self, job: JobId) -> Option<Epoch> {
        let there = self.places.get(&job).and_then(|handle| self.queue.get(*handle));
        there.map(|waiting| waiting.claimed.job.epoch)
    }

    /// What a job that waits here asks.
    pub(super) fn class_of(&self, job: JobId) -> Option<ClassId> {
        let there = self.places.get(&job).and_then(|handle| self.queue.get(*handle));
        there.map(|waiting| waiting.class)
    }

    /// Sets how the queues of a tenant that have work weigh against each other, and the tenant as the heaviest of them
    /// against others.
    pub(super) fn weigh(&mut self, tenant: &Tenant, queues: &BTreeMap<&Name, u32>) {
        let heaviest = queues.values().copied().max().unwrap_or(1).max(1);
        let before = self.weights.get(tenant);
        let told = |(queue, weight): (&&Name, &u32)| before.map_or(1, |before| before.of(queue)) == *weight;
        if before.map_or(1, |before| before.tenant) == heaviest && queues.iter().all(told) {
            return;
        }
        let weights = self.weights.entry(tenant.clone()).or_default();
        weights.tenant = heaviest;
        for (queue, weight) in queues {
            weights.queues.insert((*queue).clone(), *weight);
        }
        weights.queues.retain(|_, weight| *weight != 1);
        if let Some(tenancy) = self.tenants.get(tenant) {
            self.queue.reweigh(tenancy.share, heaviest);
            for grouped in tenancy.groups.values() {
                self.queue.reweigh(grouped.share, weights.within(&grouped.queue, grouped.weight));
            }
        }
        if heaviest == 1 && weights.queues.is_empty() {
            self.weights.remove(tenant);
        }
    }

    /// Lets time pass: jobs that have waited long enough rise.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.queue.advance(now);
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.queue.next_due()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn uncount(&mut self, class: ClassId, level: Priority) {
        if let Some(n) = self.waiting.get_mut(&(class.0, level)) {
            *n -= 1;
            if *n == 0 {
                self.waiting.remove(&(class.0, level));
                if !self.waits(class) {
                    self.queue.let_go(class);
                }
            }
        }
    }

    /// The lane of a job, and the key of its group.
    fn lane(&mut self, job: &Job, class: ClassId) -> (LaneId, u64) {
        if let Some((tenant, group, of, lane, key)) = &self.last
            && *of == class
            && *tenant == job.tenant
            && group.has(job)
        {
            return (*lane, *key);
        }
        let group = Group::of(job);
        if self.lanes > IDLE_LANES_MAX + 2 * self.queue.len() {
            self.sweep();
        }
        let queue = &mut self.queue;
        let weights = self.weights.get(&job.tenant);
        let tenancy = self.tenants.entry(job.tenant.clone()).or_insert_with(|| Tenancy {
            share: queue.open_share(None, weights.map_or(1, |weights| weights.tenant)),
            groups: BTreeMap::new(),
        });
        let grouped = tenancy.groups.entry(group.clone()).or_insert_with(|| {
            let (name, weight) = (job.spec.queue().clone(), job.spec.resources().turns_with().weight());
            let within = weights.map_or(weight, |weights| weights.within(&name, weight));
            Grouped {
                share: queue.open_share(Some(tenancy.share), within),
                queue: name,
                weight,
                key: group.key(&job.tenant),
                lanes: BTreeMap::new(),
            }
        });
        let lane = *grouped.lanes.entry(class.0).or_insert_with(|| {
            self.lanes += 1;
            queue.open_lane(grouped.share, class, 1)
        });
        self.last = Some((job.tenant.clone(), group, class, lane, grouped.key));
        (lane, grouped.key)
    }

    /// Closes the lanes in which nothing waits.
    fn sweep(&mut self) {
        self.last = None;
        let (queue, lanes) = (&mut self.queue, &mut self.lanes);
        self.tenants.retain(|_, tenancy| {
            tenancy.groups.retain(|_, grouped| {
                grouped.lanes.retain(|_, lane| {
                    let closed = queue.close_lane(*lane);
                    *lanes -= usize::from(closed);
                    !closed
                });
                !queue.close_share(grouped.share)
            });
            !queue.close_share(tenancy.share)
        });
    }
}
