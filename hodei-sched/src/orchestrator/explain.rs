//! Why a job does not run.

use std::fmt;

use hodei_core::gateway::Offer;
use hodei_core::job::{Job, Runs, State};
use hodei_core::store::{Before, LimitOf, LimitUse};
use hodei_core::{JobId, Name, Timestamp};

use crate::machine::Why;
use crate::machine::placement::Selector;

/// Why a job is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Explanation {
    /// It has ended.
    Ended(State),
    /// It is running or about to.
    Leased(State),
    /// It waits for parents.
    WaitsForParents(u32),
    /// It waits for its turn in a sequence: this job is before it.
    WaitsForTurn(Name, JobId),
    /// Its time has not come.
    NotBefore(Timestamp),
    /// Its queue is paused.
    Paused,
    /// This node does not serve its queue.
    NotServed,
    /// This limit is used up; where several are, the widest.
    LimitReached(LimitOf),
    /// No worker is connected.
    NoWorker,
    /// No connected worker runs such work.
    NobodyRuns(Runs),
    /// No connected worker has as much; the one that comes nearest lacks this.
    Unsatisfiable {
        /// What is lacking.
        resource: String,
        /// How much the job needs.
        needs: u64,
        /// How much there is.
        most: u64,
    },
    /// The rates that it is under are used up; they let it through at this time, unless others come before it.
    RateReached(Timestamp),
    /// The rule of its queue applies to no worker that could run it: to this one the selector does not.
    RuledOut(Name, Selector),
    /// What it requires itself applies to no worker that could run it: to this one, which comes nearest, the selector does not.
    Unmet(Name, Selector),
    /// The worker that comes nearest has too little free.
    Busy {
        /// Which worker.
        worker: Name,
        /// What is lacking; a slot is a resource too.
        resource: String,
        /// How much the job needs.
        needs: u64,
        /// How much is free.
        free: u64,
        /// How many ready jobs come before it.
        before: Before,
    },
    /// Another job of its queue is there already on each worker that could run it, and their rule keeps them apart; this
    /// is one of them.
    KeptApart(Name),
    /// On each worker that could run it is a job that it is kept apart from: on this one because of this group.
    KeptApartFrom(Name, String),
    /// On no worker that could run it is a job of a group that it wants to be with: on this one nobody is of this group.
    NotBeside(Name, String),
    /// So few connected workers could run it, and it needs more of them at once.
    TooFewWorkers {
        /// How many it needs at once.
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
    /// This worker has room; so many ready jobs come before it.
    Soon(Name, Before),
    /// Workers that could run it are busy, or more urgent work is before it.
    Waiting,
}

impl Explanation {
    /// Says what the machine knows, and how many ready jobs come before it.
    pub(super) fn of(why: Why, before: Before) -> Self {
        match why {
            Why::Rule(worker, selector) => Self::RuledOut(worker, selector),
            Why::Lacks { worker, resource, needs, free } => {
                Self::Busy { worker, resource, needs, free, before }
            }
            Why::Requires(worker, selector) => Self::Unmet(worker, selector),
            Why::Apart(worker) => Self::KeptApart(worker),
            Why::ApartFrom(worker, group) => Self::KeptApartFrom(worker, group),
            Why::NotBeside(worker, group) => Self::NotBeside(worker, group),
            Why::TooFew { needs, there } => Self::TooFewWorkers { needs, there },
            Why::Grown { asked, wants, asks, why } => {
                Self::Grown { asked, wants, asks, why: Box::new(Self::of(*why, before)) }
            }
            Why::Kept(worker) => Self::Kept(worker),
            Why::Soon(worker) => Self::Soon(worker, before),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(state) => write!(f, "it has ended: {}", state.name()),
            Self::Leased(state) => write!(f, "it is {}", state.name()),
            Self::WaitsForParents(n) => write!(f, "it waits for {n} parents"),
            Self::WaitsForTurn(sequence, before) => {
                write!(f, "it waits for its turn in sequence {sequence}, behind job {before}")
            }
            Self::NotBefore(at) => write!(f, "its time comes at {at}"),
            Self::Paused => f.write_str("its queue is paused"),
            Self::NotServed => f.write_str("this node does not serve its queue"),
            Self::LimitReached(of) => write!(f, "the limit of {of} is used up"),
            Self::NoWorker => f.write_str("no worker is connected"),
            Self::NobodyRuns(runs) => write!(f, "no connected worker runs {runs}"),
            Self::Unsatisfiable { resource, needs, most } => {
                write!(f, "no connected worker has enough {resource}: it needs {needs}, the most is {most}")
            }
            Self::RateReached(at) => write!(f, "its rate is used up until {at}"),
            Self::RuledOut(worker, selector) => {
                write!(f, "the rule of its queue leaves no worker: that {selector} is not so on {worker}")
            }
            Self::Unmet(worker, selector) => {
                write!(f, "no worker is as it requires: that {selector} is not so on {worker}")
            }
            Self::Busy { worker, resource, needs, free, before } => {
                write!(f, "{worker} comes nearest and has too little {resource} free: it needs {needs}, ")?;
                write!(f, "{free} are free; {}", Told(before))
            }
            Self::KeptApart(worker) => {
                write!(f, "{worker} and all others that could run it have a job that it is kept apart from")
            }
            Self::KeptApartFrom(worker, group) => {
                write!(
                    f,
                    "{worker} and all others that could run it have a job that it is kept apart from by "
                )?;
                write!(f, "group {group}")
            }
            Self::NotBeside(worker, group) => {
                write!(
                    f,
                    "{worker} and all others that could run it have no job of group {group} to be beside"
                )
            }
            Self::TooFewWorkers { needs, there } => {
                write!(f, "it needs {needs} workers at once, and {there} could run it")
            }
            Self::Grown { asked, wants, asks, why } => {
                write!(f, "with {asked} bytes of memory such runs ran out of it: it asks for {asks}")?;
                if asks < wants {
                    write!(f, ", and no worker has the {wants} that it should have")?;
                }
                write!(f, "; {why}")
            }
            Self::Kept(worker) => write!(f, "{worker} has room and is kept for more urgent work"),
            Self::Soon(worker, before) => {
                write!(f, "{worker} has room; {}", Told(before))
            }
            Self::Waiting => f.write_str("workers that could run it are busy"),
        }
    }
}

/// How many come before a job, in words.
struct Told<'b>(&'b Before);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Before { lane, all, more } = self.0;
        let least = if *more { "at least " } else { "" };
        write!(f, "{least}{all} ready jobs come before it, {lane} of them in its lane")
    }
}

/// Says which limit, or whose rate, holds back a job that is ready.
pub(super) fn explain_limits(job: &Job, limits: &[LimitUse], now: Timestamp) -> Option<Explanation> {
    let under = || limits.iter().filter(|row| row.limit.of.counts(&job.tenant, &job.spec));
    if let Some(full) = under().find(|row| row.in_use >= row.limit.max) {
        return Some(Explanation::LimitReached(full.limit.of.clone()));
    }
    let each = job.spec.resources().token_count();
    let opens_at = |row: &LimitUse| {
        let rate = row.limit.rate.filter(|rate| rate.jobs(row.spent, each, now) == 0)?;
        Some(rate.opens_at(row.spent, each))
    };
    under().filter_map(opens_at).max().map(Explanation::RateReached)
}

/// Explains what the job and the workers alone can explain.
pub(super) fn explain(job: &Job, offers: &[&Offer], now: Timestamp) -> Explanation {
    match job.state {
        State::Succeeded | State::Failed | State::Cancelled => return Explanation::Ended(job.state),
        State::Scheduled | State::Running => return Explanation::Leased(job.state),
        State::Blocked => return Explanation::WaitsForParents(job.waits_for),
        State::Pending if job.eligible_at > now => return Explanation::NotBefore(job.eligible_at),
        State::Pending => {}
    }
    if offers.is_empty() {
        return Explanation::NoWorker;
    }
    let request = job.spec.request();
    let able: Vec<&Offer> =
        offers.iter().copied().filter(|offer| offer.runs.contains(&request.runs)).collect();
    if able.is_empty() {
        return Explanation::NobodyRuns(request.runs);
    }
    let mut nearest: Option<(String, u64, u64)> = None;
    for offer in able {
        match request.resources.missing(&offer.capacity) {
            None => return Explanation::Waiting,
            Some(missing) if nearest.as_ref().is_none_or(|near| missing.1 - missing.2 < near.1 - near.2) => {
                nearest = Some(missing);
            }
            Some(_) => {}
        }
    }
    nearest.map_or(Explanation::Waiting, |(resource, needs, most)| Explanation::Unsatisfiable {
        resource,
        needs,
        most,
    })
}

#[cfg(test)]
mod tests {
    use hodei_core::job::{JobSpec, NewJob, Resources, rules};
    use hodei_core::text::TextMap;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(10);

    fn pending(gpus: u32) -> Job {
        let spec = JobSpec::command(["true"]).resources(Resources::none().gpus(gpus)).build();
        rules::admit(NewJob::new(spec.expect("a valid spec")), NOW).0
    }

    fn worker(runs: Runs, gpus: u32) -> Offer {
        let capacity = Resources::none().gpus(gpus);
        Offer { runs: vec![runs], capacity, slots: 1, labels: TextMap::default() }
    }

    #[test]
    fn each_state_has_its_explanation() {
        let in_state = |state| Job { state, waits_for: 2, ..pending(0) };
        for (state, expected) in [
            (State::Blocked, Explanation::WaitsForParents(2)),
            (State::Pending, Explanation::NoWorker),
            (State::Scheduled, Explanation::Leased(State::Scheduled)),
            (State::Running, Explanation::Leased(State::Running)),
            (State::Succeeded, Explanation::Ended(State::Succeeded)),
            (State::Failed, Explanation::Ended(State::Failed)),
            (State::Cancelled, Explanation::Ended(State::Cancelled)),
        ] {
            assert_eq!(explain(&in_state(state), &[], NOW), expected);
        }
        let later = Timestamp::from_micros(11);
        let delayed = Job { eligible_at: later, ..pending(0) };
        assert_eq!(explain(&delayed, &[], NOW), Explanation::NotBefore(later));
    }

    #[test]
    fn what_no_worker_has_is_told_by_the_one_that_comes_nearest() {
        let handler = Runs::Handler(Name::literal("k"));
        let cases = [
            (vec![worker(handler.clone(), 8)], "no connected worker runs commands"),
            (
                vec![worker(Runs::Command, 1), worker(Runs::Command, 3), worker(handler, 8)],
                "no connected worker has enough gpus: it needs 4, the most is 3",
            ),
            (vec![worker(Runs::Command, 1), worker(Runs::Command, 4)], "workers that could run it are busy"),
        ];
        for (offers, expected) in cases {
            let offers: Vec<&Offer> = offers.iter().collect();
            assert_eq!(explain(&pending(4), &offers, NOW).to_string(), expected);
        }
    }
}
