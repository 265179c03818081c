//! What the machine knows of a job: why it waits.

use hodei_core::job::{Job, Placement, Request, Selector, State};
use hodei_core::{Name, Tenant};

use super::placement::WorkerId;
use super::scheduler::Scheduler;
use super::session::Session;

/// Why a job that is ready has no worker yet, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// To no worker that could run it apply the rules of its queue: to the named one this does not.
    Rule(Name, Selector),
    /// To no worker that could run it applies what it requires itself: to the named one, which comes nearest, this does not.
    Requires(Name, Selector),
    /// The worker that comes nearest has too little free.
    Lacks {
        /// Which worker.
        worker: Name,
        /// What is lacking.
        resource: String,
        /// How much the job needs.
        needs: u64,
        /// How much is free.
        free: u64,
    },
    /// On each worker that could run it is another job of its queue, and their rule keeps them apart; this is one of them.
    Apart(Name),
    /// On each worker that could run it is a job that it is kept apart from: on this one because of this group, which the one
    /// is of and the other shuns.
    ApartFrom(Name, String),
    /// On no worker that could run it is a job of a group that it wants to be with: on this one, which has what it requires,
    /// nobody is of this group.
    NotBeside(Name, String),
    /// It needs more workers at once than could run it.
    TooFew {
        /// How many it needs.
        needs: u32,
        /// How many could run it.
        there: u32,
    },
    /// It asks for more memory than its spec says, since runs of it or of its kind ran out of that; it waits for this.
    Grown {
        /// What its spec asks for, in bytes.
        asked: u64,
        /// What it should have, in bytes.
        wants: u64,
        /// What it asks for now, in bytes; less than it should have where no worker has as much.
        asks: u64,
        /// What it waits for.
        why: Box<Self>,
    },
    /// This worker has room, and is kept for more urgent work that needs more.
    Kept(Name),
    /// This worker has room: it is just about to be claimed, or others come before it.
    Soon(Name),
}

impl Why {
    /// How far the job is from running: of several reasons the nearest counts.
    pub(crate) fn nearness(&self) -> u64 {
        match self {
            Self::Grown { why, .. } => why.nearness(),
            Self::Soon(_) => 0,
            Self::Kept(_) => 1,
            Self::Lacks { needs, free, .. } => 2 + (needs - free).saturating_mul(1_000) / needs.max(&1),
            Self::Apart(_) | Self::ApartFrom(..) => u64::MAX - 3,
            Self::NotBeside(..) => u64::MAX - 2,
            Self::TooFew { .. } => u64::MAX - 1,
            Self::Rule(..) | Self::Requires(..) => u64::MAX,
        }
    }
}

impl Scheduler {
    /// Says why a job that is ready has no worker yet; nothing when no connected worker could ever run it.
    ///
    /// # Performance
    ///
    /// Looks at each connected worker once.
    #[must_use]
    pub fn why(&self, job: &Job) -> Option<Why> {
        let Some(grown) = self.grown(job) else { return self.why_asking(job, &job.spec.request()) };
        let (asked, asks) = (job.spec.resources().memory, grown.request.resources.memory);
        let why = Box::new(self.why_asking(job, &grown.request)?);
        Some(Why::Grown { asked, wants: grown.wants, asks, why })
    }

    /// As [`Scheduler::why`], of a job that asks for this.
    fn why_asking(&self, job: &Job, request: &Request) -> Option<Why> {
        let spec = &job.spec;
        if job.state != State::Pending && self.buffer.class_of(job.id).is_none() {
            // It is where it runs, or somewhere else.
            return None;
        }
        let number = self.rules.get(spec.queue()).copied().unwrap_or(0);
        let place = request.resources.placement()?;
        let mut able_workers: Vec<(u64, &Name, WorkerId)> = Vec::new();
        let mut nearest: Option<(usize, Why)> = None;
        for (name, session) in self.sessions.iter() {
            let offer = &session.offer;
            let able = !session.draining && offer.slots > 0 && offer.runs.contains(&request.runs);
            if !able || !request.resources.fits(&offer.capacity) {
                continue;
            }
            match self.stays_away(name, session, number, &job.tenant, &place) {
                Some(why) if nearest.as_ref().is_none_or(|(far, _)| why.0 < *far) => nearest = Some(why),
                Some(_) => {}
                None => {
                    let lack = self.fleet.lack(session.worker, &request.resources);
                    able_workers.push((lack, name, session.worker));
                }
            }
        }
        let needs = request.resources.worker_count();
        // Of a gang the last worker that it gets is the one to wait for.
        let at = needs as usize - 1;
        if able_workers.len() <= at {
            let there = u32::try_from(able_workers.len()).unwrap_or(u32::MAX);
            let few = (there > 0).then_some(Why::TooFew { needs, there });
            return match nearest {
                // Who is there goes by himself.
                Some((0, why)) => Some(why),
                nearest => few.or_else(|| nearest.map(|(_, why)| why)),
            };
        }
        let (_, (_, name, worker), _) = able_workers.select_nth_unstable(at);
        let (name, worker) = (*name, *worker);
        if let Some((resource, needs, free)) = self.fleet.missing(worker, &request.resources) {
            return Some(Why::Lacks { worker: name.clone(), resource, needs, free });
        }
        let kept = self.fleet.held().is_some_and(|(class, _)| {
            self.fleet.is_held(worker) && self.buffer.class_of(job.id) != Some(class)
        });
        Some(if kept { Why::Kept(name.clone()) } else { Why::Soon(name.clone()) })
    }

    /// Why a job cannot go to a worker however much is free there, and how many rules say so: 0 where it is kept apart from who
    /// is there, 1 where it misses company, and more with each selector that does not apply.
    fn stays_away(
        &self,
        name: &Name,
        session: &Session,
        rule: u32,
        tenant: &Tenant,
        place: &Placement,
    ) -> Option<(usize, Why)> {
        let (fleet, name, labels) = (&self.fleet, || name.clone(), &session.offer.labels);
        let unmet = |selector: &&Selector| !selector.applies(labels);
        let ruled =
            fleet.rule(rule).require.iter().filter(unmet).map(|unmet| Why::Rule(name(), unmet.clone()));
        let asked = place.required().iter().filter(unmet).map(|unmet| Why::Requires(name(), unmet.clone()));
        let mut unmet: Vec<Why> = ruled.chain(asked).collect();
        if !unmet.is_empty() {
            return Some((1 + unmet.len(), unmet.swap_remove(0)));
        }
        if let Some(group) = fleet.missed(session.worker, tenant, place) {
            return Some((1, Why::NotBeside(name(), group.to_owned())));
        }
        if !fleet.is_apart(session.worker.number(), rule) {
            return Some((0, Why::Apart(name())));
        }
        let group = fleet.kept_apart(session.worker, tenant, place)?;
        Some((0, Why::ApartFrom(name(), group.to_owned())))
    }
}
