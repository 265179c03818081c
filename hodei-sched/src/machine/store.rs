//! The scheduler's dealings with the store: what it is asked, when, and what its answers mean.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::StopCause;
use hodei_core::job::{Epoch, Job, Lease, Priority};
use hodei_core::map::{IdState, JobSet};
use hodei_core::store::{
    Applied, Claimed, Exchange, Exchanged, Lane, LaneHead, Lanes, Move, Pick, Transition,
};
use hodei_core::{Error, JobId, Name, Tenant, Timestamp};

use super::look::LOOK;
use super::picks::{self, Decision, Head};
use super::placement::Room;
use super::scheduler::{Effect, Outgoing, Scheduler, Store};
use super::turns::Turn;

/// A claim whose answer was lost may still be made after the first question for it was answered: a store can be slow to
/// carry out what its client has given up. So what is held is asked for again after this time, and after twice as long
/// each time, up to the last wait: for about a minute in all.
const DOUBT_FIRST: Duration = Duration::from_secs(1);
const DOUBT_LAST: Duration = Duration::from_secs(32);
/// After how long the lanes are looked at again that should have opened by now.
const OPENING: Duration = Duration::from_millis(1);

impl Scheduler {
    pub(super) fn lanes(&mut self, lanes: Result<Lanes, Error>, now: Timestamp) {
        self.store = Store::Idle;
        match lanes {
            Ok(lanes) => {
                self.failures = 0;
                self.take_heads(lanes.heads, now);
                self.note_opening(lanes.opens_at, now);
                self.note_due(lanes.next_due, now);
                self.turns.line_up(&mut self.heads);
                picks::order(&mut self.heads);
            }
            Err(_) => self.failed(now),
        }
    }

    /// Takes in which lanes have ready work.
    fn take_heads(&mut self, heads: Vec<LaneHead>, now: Timestamp) {
        // Let go when the new ones are counted: what both have in common keeps its classes.
        let before = std::mem::take(&mut self.heads);
        let (first, behind) = self.behind.part(heads, self.config.ageing, now);
        self.rivals.looked(&before, &first);
        self.look_due = None;
        let first = first.into_iter().map(|head| (head, false));
        for (head, behind) in first.chain(behind.into_iter().map(|head| (head, true))) {
            let rule = self.rules.get(&head.lane.queue).copied().unwrap_or(0);
            let class = match self.grown_lane(&head.lane.queue, head.lane.class, &head.request) {
                Some(grown) => self.fleet.class_for(&head.lane.tenant, &grown, rule),
                None => {
                    let (tenant, number) = (&head.lane.tenant, head.lane.class);
                    self.fleet.class_of(tenant, number, rule, || Arc::clone(&head.request))
                }
            };
            // Counted, so that it keeps its number as long as the head is here.
            self.fleet.count(class);
            let level = picks::risen(head.level, head.eligible_at, self.config.ageing, now);
            let share = head.request.share();
            self.heads.push(Head { head, class, share, level, behind, turn: Turn::default() });
        }
        before.iter().for_each(|head| self.fleet.discount(head.class));
        let mut weights: BTreeMap<&Tenant, BTreeMap<&Name, u32>> = BTreeMap::new();
        for Head { head, .. } in &self.heads {
            weights.entry(&head.lane.tenant).or_default().insert(&head.lane.queue, head.weight);
        }
        weights.iter().for_each(|(tenant, queues)| self.buffer.weigh(tenant, queues));
    }

    pub(super) fn drop_heads(&mut self) {
        for head in std::mem::take(&mut self.heads) {
            self.fleet.discount(head.class);
        }
    }

    /// Takes in when the store says that more will be ready. What is due here and not there, where the clock is behind,
    /// is asked for at once, and then after waits that double: it would not come sooner for being asked for all the time.
    fn note_due(&mut self, told: Option<Timestamp>, now: Timestamp) {
        let Some(at) = told.filter(|at| *at <= now) else {
            (self.next_due, self.early) = (told, 0);
            return;
        };
        let wait = Duration::from_millis(1 << self.early.min(10)).min(self.config.retry_wait);
        let again = if self.early == 0 { at } else { now.saturating_add(wait) };
        self.early = self.early.saturating_add(1);
        let before = self.next_due.filter(|before| *before > now);
        self.next_due = Some(before.map_or(again, |before| before.min(again)));
    }

    /// Takes in when the rates that the store keeps let more through. What is due here and not there, where the clock is
    /// behind, is not asked for all the time.
    fn note_opening(&mut self, told: Option<Timestamp>, now: Timestamp) {
        let at = told.map(|at| if at > now { at } else { now.saturating_add(OPENING) });
        self.look_due = [self.look_due, at].into_iter().flatten().min();
    }

    fn failed(&mut self, now: Timestamp) {
        self.look.is_over(now);
        self.retry_at = self.after_failures(self.failures, now);
        self.failures += 1;
        self.lanes_stale = true;
    }

    fn after_failures(&self, failures: u32, now: Timestamp) -> Timestamp {
        now.saturating_add(self.config.retry_wait.saturating_mul(1 << failures.min(6)))
    }

    /// Tells a transition again later; what one part of the store does not take holds up nobody. The times lie a first
    /// wait apart, so that there are few calls however many transitions wait.
    fn defer(&mut self, mut outgoing: Outgoing, now: Timestamp) {
        let at = self.after_failures(outgoing.refused, now);
        let apart = i64::try_from(self.config.retry_wait.as_micros()).unwrap_or(i64::MAX).max(1);
        let short = (apart - at.as_micros().rem_euclid(apart)) % apart;
        let at = at.saturating_add(Duration::from_micros(short.unsigned_abs()));
        outgoing.refused = outgoing.refused.saturating_add(1);
        self.later.entry(at).or_default().push(outgoing);
    }

    pub(super) fn exchanged(&mut self, exchanged: Result<Exchanged, Error>, now: Timestamp) {
        self.store = Store::Idle;
        let sent = std::mem::take(&mut self.sent);
        let came = exchanged.as_ref().ok().map(|exchanged| exchanged.claimed.len());
        self.follow.over(came);
        if self.lately.over(came) {
            self.follow.came_blindly();
        }
        let Ok(exchanged) = exchanged else {
            // Perhaps it was applied. The transitions can be repeated; for the claims we ask.
            for outgoing in sent.into_iter().rev() {
                self.outgoing.push_front(outgoing);
            }
            self.leases_unknown = true;
            self.doubt = Some((now.saturating_add(DOUBT_FIRST), DOUBT_FIRST));
            return self.failed(now);
        };
        self.failures = 0;
        // There may be more behind what was claimed: at a lower level, where a lane showed all that it has at its highest.
        let emptied = std::mem::take(&mut self.emptied) || self.heads.is_empty();
        let has_more = emptied && !exchanged.claimed.is_empty();
        self.lanes_stale |= has_more;
        if has_more {
            self.look.goes_on(now);
        } else {
            self.look.has_claimed(now);
        }
        for (outgoing, applied) in sent.into_iter().zip(exchanged.applied) {
            if applied == Applied::Unavailable {
                self.defer(outgoing, now);
            } else {
                self.settled(outgoing, applied);
            }
        }
        self.note_due(exchanged.next_due, now);
        if exchanged.owner_lost || self.owner_lost {
            // What was claimed is claimed for a life that is over.
            return self.lose_owner();
        }
        let claimed = exchanged.claimed.len();
        // What follows what has ended is not known to be there.
        self.claims.asked += self.asked.max(claimed) as u64;
        self.claims.came += claimed as u64;
        if claimed < self.asked {
            self.lacked(claimed, now);
        }
        if claimed > 0 {
            self.vain = 0;
            self.lanes_stale |= self.rivals.leaves();
        }
        self.lanes_stale |= claimed > 0 && self.heads.is_empty();
        self.arrived = exchanged.claimed;
        if !exchanged.reclaimed.is_empty() {
            self.take_in(now);
            self.found(exchanged.reclaimed, now);
        }
        if self.arrived.is_empty() {
            self.forget_unwanted();
            self.shed();
        }
    }

    /// Fewer jobs came than were asked for: the lanes are not as they were.
    fn lacked(&mut self, claimed: usize, now: Timestamp) {
        self.rivals.lacked(self.asked - claimed);
        self.drop_heads();
        if claimed == 0 {
            // Somebody else was there before, or its time is up and nobody has said so yet. No store rings for what is left,
            // so it is asked for again, after waits that double.
            let wait = self.config.retry_wait.saturating_mul(1 << self.vain.min(16));
            let again = now.saturating_add(wait.min(self.config.poll_interval));
            self.vain = self.vain.saturating_add(1);
            self.look_due = Some(self.look_due.map_or(again, |due| due.min(again)));
        }
    }

    /// Takes what was claimed into the buffer.
    pub(super) fn take_in(&mut self, now: Timestamp) {
        if self.arrived.is_empty() {
            return;
        }
        self.memory.begins_claim();
        std::mem::take(&mut self.arrived).into_iter().for_each(|claimed| self.claimed(claimed, now));
        self.forget_unwanted();
        self.shed();
        self.return_roomless();
    }

    pub(super) fn claimed(&mut self, claimed: Claimed, now: Timestamp) {
        let told = self.unwanted.get(&claimed.job.id);
        if self.draining || told.is_some_and(|told| claimed.job.epoch <= *told) {
            self.give_back(&claimed.job);
        } else {
            let (grown, is_news) = self.grown_claim(&claimed.job);
            let (tenant, spec) = (&claimed.job.tenant, &claimed.job.spec);
            let rule = self.rules.get(spec.queue()).copied().unwrap_or(0);
            let class = match &grown {
                Some(grown) => self.fleet.class_for(tenant, &grown.request, rule),
                None => self.fleet.class_of(tenant, spec.class(), rule, || Arc::new(spec.request())),
            };
            self.fleet.count(class);
            if is_news {
                self.memory.is_larger(class);
            }
            let (born, since) = (spec.priority(), claimed.job.eligible_at);
            let level = picks::risen(born, since, self.config.ageing, now);
            if !self.buffer.push(claimed, class, level, now) {
                self.fleet.discount(class);
            }
        }
    }

    fn settled(&mut self, outgoing: Outgoing, applied: Applied) {
        if applied == Applied::Illegal && outgoing.transition.step == Move::Returned && !outgoing.unless_begun
        {
            // Its agent had said that it began: it goes back all the same, or nobody would ever end it.
            let transition = Transition { step: Move::Preempted, ..outgoing.transition };
            self.outgoing.push_back(Outgoing { transition, report: None, refused: 0, unless_begun: false });
        }
        let Some((worker, incarnation, report)) = outgoing.report else { return };
        let Some(session) = self.sessions.get_mut(&worker).filter(|s| s.incarnation == incarnation) else {
            return;
        };
        session.settled(report);
        if matches!(applied, Applied::LeaseLost { .. } | Applied::NotFound) {
            session.stop_run(outgoing.transition.job, outgoing.transition.epoch);
        }
    }

    pub(super) fn leases(&mut self, leases: Result<Vec<Claimed>, Error>, now: Timestamp) {
        self.store = Store::Idle;
        let Ok(leases) = leases else { return self.failed(now) };
        self.failures = 0;
        self.leases_unknown = false;
        if self.owner_lost {
            return;
        }
        if !self.lent.is_empty() {
            let ours: JobSet = leases.iter().map(|claimed| claimed.job.id).collect();
            self.lent.retain(|job, _| ours.contains(job));
        }
        self.found(leases, now);
        self.forget_unwanted();
        self.shed();
    }

    /// Takes in what is held already, but for what is known: the answer to its claim was lost.
    fn found(&mut self, held: Vec<Claimed>, now: Timestamp) {
        let mut known = if held.is_empty() { HashSet::default() } else { self.known() };
        for claimed in held {
            let (id, epoch) = (claimed.job.id, claimed.job.epoch);
            if !self.buffer.contains(id, epoch) && known.insert((id, epoch)) {
                self.claimed(claimed, now);
            }
        }
        self.return_roomless();
    }

    /// Nothing is on its way any more that was cancelled meanwhile.
    fn forget_unwanted(&mut self) {
        if !self.awaits_loan {
            self.unwanted.clear();
        }
    }

    /// The claims that have left the buffer: to sessions, to other dispatchers, or on their way back.
    fn known(&self) -> HashSet<(JobId, Epoch), IdState> {
        let assigned = self.sessions.values().flat_map(|session| session.assigned.values());
        let assigned = assigned.map(|assigned| (assigned.job.id, assigned.job.epoch));
        let told = self.outgoing.iter().chain(self.later.values().flatten());
        let told = told.map(|outgoing| (outgoing.transition.job, outgoing.transition.epoch));
        let lent = self.lent.iter().map(|(job, epoch)| (*job, *epoch));
        assigned.chain(told).chain(lent).collect()
    }

    /// The node was given up: whatever it holds is somebody else's now.
    pub(super) fn lose_owner(&mut self) {
        self.owner_lost = true;
        self.rests = false;
        self.alive_until = None;
        self.arrived.clear();
        let mut borrowed: Vec<Arc<Job>> = self.empty_buffer();
        self.lent.clear();
        self.bereaved.clear();
        for session in self.sessions.values_mut() {
            for job in session.jobs() {
                match session.withdraw(job, &mut self.fleet) {
                    Some(assigned) => borrowed.push(assigned.job),
                    // What runs under another dispatcher's lease is nobody else's.
                    None if self.borrowed.contains_key(&job) => {}
                    None => session.stop(job, StopCause::LeaseLost),
                }
            }
        }
        // The one who lent them lives, and nobody else would give them back.
        borrowed.retain(|job| self.borrowed.get(&job.id) == Some(&job.epoch));
        borrowed.iter().for_each(|job| self.give_back(job));
    }

    pub(super) fn registered(&mut self, lease: Lease, until: Timestamp, now: Timestamp) {
        self.store = Store::Idle;
        if self.owner == lease {
            return self.failed(now);
        }
        self.owner = lease;
        self.owner_lost = false;
        self.alive_until = Some(until);
        self.lanes_stale = true;
    }

    /// Calls the store when there is something to say or to fetch, and no call under way.
    pub(super) fn ask_store(&mut self, now: Timestamp) {
        if self.store != Store::Idle || (self.failures > 0 && now < self.retry_at) {
            return;
        }
        while let Some(again) = self.later.first_entry().filter(|again| *again.key() <= now) {
            self.outgoing.extend(again.remove());
        }
        if let Some((_, wait)) = self.doubt.filter(|(at, _)| *at <= now) {
            self.leases_unknown = true;
            let wait = wait * 2;
            self.doubt = (wait <= DOUBT_LAST).then(|| (now.saturating_add(wait), wait));
        }
        let may_look = self.look.is_pressing() || now >= self.last_ask.saturating_add(LOOK);
        let came_blindly = self.follow.is_blind() && !self.arrived.is_empty();
        let looks = (!self.buffer.is_empty() || came_blindly) && may_look;
        let looks_again = self.look_due.is_some_and(|due| due <= now);
        let due = looks_again || self.next_due.is_some_and(|due| due <= now);
        let long_ago = now >= self.last_ask.saturating_add(self.patience());
        if due || long_ago {
            self.lanes_stale = true;
            self.last_ask = now;
            self.next_due = self.next_due.filter(|due| *due > now);
            self.look_due = self.look_due.filter(|due| *due > now);
        }
        self.lanes_stale |= !self.heads.is_empty() && self.behind.is_due(self.config.ageing, now);
        let left: u64 = self.heads.iter().map(|head| head.head.depth).sum();
        self.lanes_stale |= self.rivals.may_be_gone(left);
        self.rests &= !self.must_live();
        if self.must_register() && now < self.register_at {
            return;
        }
        let (store, effect) = if self.must_register() {
            (Store::Register, Effect::Register)
        } else if self.leases_unknown {
            (Store::Leases, Effect::AskLeases)
        } else if self.lanes_stale && (self.wants_work() || (looks && !self.draining)) {
            self.lanes_stale = false;
            self.last_ask = now;
            self.look.asks();
            self.follow.looks();
            (Store::Lanes, Effect::AskLanes { every_level: self.behind.asks(self.config.ageing, now) })
        } else {
            match self.exchange(now) {
                Some(exchange) => (Store::Exchange, Effect::Exchange(Box::new(exchange))),
                None => {
                    self.look.is_over(now);
                    // Nothing is left of what had failed.
                    self.failures = 0;
                    return;
                }
            }
        };
        self.store = store;
        self.effects.push_back(effect);
    }

    /// After how long the store is asked for its lanes without a reason: not for long where it said that nothing is ready
    /// or will be, for it tells when that changes. When a delayed job is due depends on a clock that may be set meanwhile.
    pub(super) fn patience(&self) -> Duration {
        let nothing = self.heads.is_empty() && self.next_due.is_none() && self.look_due.is_none();
        if nothing { self.config.idle_poll } else { self.config.poll_interval }
    }

    pub(super) fn wants_work(&self) -> bool {
        let (open, claimed) = (self.fleet.open_slots(), (self.buffer.len() + self.arrived.len()) as u64);
        let makes_room = self.config.preempt.is_some() && claimed == 0;
        // What finds no room stands in nobody's way where there are slots.
        let fits = || open > 0 && claimed.saturating_sub(self.buffer.stuck()) < open;
        let wants = claimed < u64::from(self.ahead()) + open || makes_room || fits();
        !self.draining && !self.sessions.is_empty() && wants
    }

    /// How many jobs to claim for slots that are about to become free: as many as ended during the last exchange.
    pub(super) fn ahead(&self) -> u32 {
        self.ended_lately.saturating_mul(2).min(self.config.prefetch_max)
    }

    fn exchange(&mut self, now: Timestamp) -> Option<Exchange> {
        let shown = !self.heads.is_empty();
        let (picks, leaves) = if shown { self.picks() } else { (self.follow(), false) };
        if picks.is_empty() || !shown {
            self.look.is_over(now);
        }
        if self.outgoing.is_empty() && picks.is_empty() {
            return None;
        }
        self.asked = if shown { picks.iter().map(|pick| pick.n as usize).sum() } else { 0 };
        self.rivals.asks(self.asked, leaves);
        self.forget_picked(&picks);
        self.ended_lately /= 2;
        let n = self.outgoing.len().min(self.config.batch_max);
        self.sent = self.outgoing.drain(..n).collect();
        for outgoing in &mut self.sent {
            let Transition { job, step, .. } = &mut outgoing.transition;
            match step {
                Move::Started { lease: Some(lease) } => {
                    // It was borrowed, and we may have begun another life since it started.
                    lease.clone_from(&self.owner);
                    self.borrowed.remove(job);
                }
                Move::Started { .. } => {}
                _ => drop(self.borrowed.remove(job)),
            }
        }
        let transitions = self.sent.iter().map(|outgoing| outgoing.transition.clone()).collect();
        Some(Exchange { owner: self.owner.clone(), transitions, picks })
    }

    /// Takes off the lanes what is asked of them: what is left can be picked next, without asking for the lanes anew.
    fn forget_picked(&mut self, picks: &[Pick]) {
        if picks.is_empty() {
            return;
        }
        let picked: HashMap<(&Lane, Priority), u32> =
            picks.iter().map(|pick| ((&pick.lane, pick.floor), pick.n)).collect();
        picks.iter().for_each(|pick| self.behind.take(&pick.lane, pick.floor, pick.n));
        for (lane, class) in self.new_lanes(&picked) {
            self.claims_from(lane, class);
        }
        let (fleet, emptied) = (&mut self.fleet, &mut self.emptied);
        self.turns.serve(&mut self.heads, |Head { head, class, .. }| {
            picked.get(&(&head.lane, head.level)).map_or(0, |n| n.saturating_mul(fleet.gang_size(*class)))
        });
        self.heads.retain_mut(|Head { head, class, .. }| {
            let n = picked.get(&(&head.lane, head.level)).copied().unwrap_or(0);
            head.depth = head.depth.saturating_sub(u64::from(n));
            if head.depth == 0 {
                fleet.discount(*class);
                *emptied = true;
            }
            head.depth > 0
        });
        picks::order(&mut self.heads);
    }

    /// What to claim, and whether something is left to others that has room here too.
    fn picks(&self) -> (Vec<Pick>, bool) {
        let (mut wanted, stuck) =
            if self.wants_work() { self.decide() } else { (vec![0; self.heads.len()], None) };
        self.add_urgent(&mut wanted, stuck);
        // Behind all that a lane shows, or all that is not left to others, may be what is less urgent than that, but more than
        // others: they are asked for when it is known.
        let mut leaves = false;
        let mut all = None;
        for (Head { head, behind, .. }, n) in self.heads.iter().zip(&mut wanted) {
            let part = u32::try_from(self.rivals.part(head.depth)).unwrap_or(u32::MAX);
            let whole = *n > part || u64::from(*n) >= head.depth;
            leaves |= *n > part;
            *n = part.min(*n);
            all = all.or_else(|| (whole && !behind).then_some(head.level));
        }
        if let Some(level) = all {
            self.heads
                .iter()
                .zip(&mut wanted)
                .filter(|(head, _)| head.level < level)
                .for_each(|(_, n)| *n = 0);
        }
        let wanted = self.heads.iter().zip(wanted).filter(|(_, n)| *n > 0);
        let pick = |(Head { head, behind, .. }, n): (&Head, u32)| {
            let ceiling = if *behind { head.level } else { Priority::MAX };
            Pick { lane: head.lane.clone(), floor: head.level, ceiling, n }
        };
        (wanted.map(pick).collect(), leaves)
    }

    /// How many of each lane to claim for the room that there is, and the lowest level of any that waits here and finds none.
    fn decide(&self) -> (Vec<u32>, Option<Priority>) {
        let mut room = Room::of(&self.fleet);
        let mut stuck: Option<Priority> = None;
        let mut waiting = 0_u32;
        let mut arrived = Vec::new();
        for (class, n, level) in self.buffer.waiting() {
            let left = n - room.take(class, level, n);
            waiting += left;
            if left > 0 {
                stuck = Some(stuck.map_or(level, |lowest| lowest.min(level)));
            }
        }
        let asked = |claimed: &Claimed| {
            let grown = self.grown(&claimed.job);
            grown.map_or_else(|| claimed.job.spec.class(), |grown| grown.request.class())
        };
        let alike = |a: &Claimed, b: &Claimed| a.job.tenant == b.job.tenant && asked(a) == asked(b);
        for same in self.arrived.chunk_by(alike) {
            let (spec, n) = (&same[0].job.spec, u32::try_from(same.len()).unwrap_or(u32::MAX));
            let rule = self.rules.get(spec.queue()).copied().unwrap_or(0);
            let class = self.fleet.known_class(&same[0].job.tenant, asked(&same[0]), rule);
            let taken = class.map_or(0, |class| room.take(class, spec.priority(), n));
            waiting = waiting.saturating_add(n - taken);
            arrived.extend(class);
        }
        let ahead = self.ahead().saturating_sub(waiting);
        let decision = Decision { fleet: &self.fleet, room, ahead, keep: self.config.backfill };
        let waits = |class| self.buffer.waits(class) || arrived.contains(&class);
        (decision.take(&self.heads, waits, |level| self.could_preempt(level)), stuck)
    }
}
