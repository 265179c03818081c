//! The workload of the swarm: a little of everything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::{Assignment, News};
use hodei_core::job::{
    Backoff, Failure, FailureClass, Finish, JobSpec, JobSpecBuilder, NewJob, Output, Parent, Priority,
    Requires, Resources, RetryPolicy, Selector, Share,
};
use hodei_core::store::{Limit, LimitOf, QueuePolicy, Rate, SubmitOptions};
use hodei_core::{JobId, Name, PipelineId, Result, Tenant};

use super::host::ZONES;
use super::random::Random;
use super::workload::{Act, RunPlan, Scene, Workload};
use crate::cron::{CronJob, CronRule, Misfire};

/// How many submitted jobs may still be cancelled, redriven or depended on.
const REMEMBERED: usize = 64;
/// How many jobs come alone at the end, where there are lulls.
const LATECOMERS: u32 = 3;
/// The most memory that a job of the mix asks for; every agent of a simulation has more.
pub(super) const MEMORY_MAX: u64 = 4 << 30;

/// Which kinds of work there are, drawn per seed; chances are in a thousand.
#[derive(Clone, Debug)]
struct Shape {
    delayed: u32,
    deadline: u32,
    unique: u32,
    family: u32,
    cancel: u32,
    redrive: u32,
    policy: u32,
    fail: u32,
    snooze: u32,
    refuse: u32,
    spawn: u32,
    long: u32,
    batch: u64,
    gap: Duration,
}

/// A workload drawn from a seed: priorities, delays, deadlines, retries, pipelines, unique keys, limits, rates, cancellations,
/// redrives, spawned jobs, snoozes, schedules; each in some of the seeds.
#[derive(Debug)]
pub struct MixedLoad {
    shape: Shape,
    tenants: Vec<Tenant>,
    specs: Vec<Arc<JobSpec>>,
    /// What schedules fire. Its waits are exact: they would follow its id, which the store mints.
    fired: Arc<JobSpec>,
    keys: Vec<Name>,
    queues: Vec<Name>,
    recent: VecDeque<(Tenant, JobId)>,
    /// Jobs that began to run lately.
    begun: VecDeque<JobId>,
    /// Jobs that are yet to be submitted.
    left: u32,
    /// Acts that come before anything else.
    first: Vec<Act>,
    /// Whether clients are silent now and then, for longer than a node is idle before it rests.
    lulls: bool,
    /// Whether rates are set.
    paced: bool,
    /// How many runs in a thousand that have memory run out of it, and what draws which: not what draws all else.
    hunger: (u32, Random),
}

impl MixedLoad {
    /// Draws a workload of about so many jobs.
    ///
    /// # Errors
    ///
    /// None that a seed can cause: every spec it draws is valid.
    pub fn of_seed(seed: u64, jobs: u32) -> Result<Self> {
        let mut random = Random::of_seed(seed ^ 0x006d_6978_6564);
        let random = &mut random;
        let mut some = |most: u64| {
            if random.chance(500) { u32::try_from(1 + random.below(most)).unwrap_or(1) } else { 0 }
        };
        let mut shape = Shape {
            delayed: some(300),
            deadline: some(200),
            unique: some(200),
            family: some(400),
            cancel: some(100),
            redrive: some(60),
            policy: some(60),
            fail: some(400),
            snooze: some(100),
            refuse: some(60),
            spawn: some(100),
            long: some(200),
            batch: 1,
            gap: Duration::ZERO,
        };
        shape.batch = 1 + random.below(24);
        shape.gap = random.millis(5, 60) * u32::try_from(shape.batch).unwrap_or(1);
        let tenants = names(&["acme", "bolt", "cove", "dune"], random)?;
        let queues = names(&["default", "mail", "render"], random)?;
        let keys = names(&["disk", "licence", "uplink"], random)?;
        let limited = random.chance(600);
        let specs = (0..4 + random.below(8))
            .map(|n| spec(n, &queues, if limited { &keys } else { &[] }, random).map(Arc::new))
            .collect::<Result<_>>()?;
        let fired =
            JobSpec::command(["simulated", "fired"]).retry(RetryPolicy::attempts(2).exact()).build()?;
        let tenants: Vec<Tenant> = tenants.into_iter().map(Tenant::from).collect();
        let mut load = Self {
            shape,
            tenants,
            specs,
            fired: Arc::new(fired),
            keys,
            queues,
            recent: VecDeque::new(),
            begun: VecDeque::new(),
            left: jobs,
            first: Vec::new(),
            lulls: false,
            paced: false,
            hunger: (0, Random::of_seed(seed ^ 0x006f_6f6d)),
        };
        load.first = load.opening(limited, random);
        if random.chance(400) {
            load.paced = true;
            let limits = load.rates(random);
            load.first.splice(..0, limits.into_iter().map(Act::Limit));
        }
        Ok(load)
    }

    /// Has some of the jobs ask for so many workers at once. All of them must come to be with one dispatcher.
    ///
    /// # Errors
    ///
    /// `Invalid` for more workers than a job may ask for.
    pub fn with_gangs(mut self, workers: u32) -> Result<Self> {
        let spec = JobSpec::command(["simulated", "gang"]).retry(RetryPolicy::attempts(2));
        self.specs.push(Arc::new(spec.resources(Resources::none().workers(workers)).build()?));
        Ok(self)
    }

    /// Has some of the jobs say where they run and beside whom, in some of the seeds.
    ///
    /// # Errors
    ///
    /// None that a seed can cause: every spec it draws is valid.
    pub fn with_places(mut self, seed: u64) -> Result<Self> {
        let mut random = Random::of_seed(seed ^ 0x706c_6163_6573);
        if random.chance(400) {
            for n in 0..1 + random.below(5) {
                self.specs.push(Arc::new(placed(n, &mut random)?));
            }
        }
        Ok(self)
    }

    /// Has some of the jobs be steps of pipelines, which weigh as they like, in some of the seeds.
    ///
    /// # Errors
    ///
    /// None that a seed can cause: every spec it draws is valid.
    pub fn with_pipelines(mut self, seed: u64) -> Result<Self> {
        let mut random = Random::of_seed(seed ^ 0x7069_7065);
        if random.chance(400) {
            for n in 0..1 + random.below(5) {
                let weight =
                    if random.chance(500) { 1 } else { u32::try_from(1 + random.below(100)).unwrap_or(1) };
                let share = Share::from_code(1 + random.below(33)).weighing(weight);
                let spec = JobSpec::command(["simulated".to_owned(), format!("step-{n}")]);
                let spec = spec.queue(random.pick(&self.queues).map_or("default", Name::as_str));
                let spec = spec.resources(Resources::none().share(share)).retry(RetryPolicy::attempts(2));
                self.specs.push(Arc::new(spec.build()?));
            }
        }
        Ok(self)
    }

    /// Has some runs that have memory run out of it, in some of the seeds.
    #[must_use]
    pub fn with_hunger(mut self) -> Self {
        let (chance, random) = &mut self.hunger;
        *chance = if random.chance(500) { 1 + u32::try_from(random.below(300)).unwrap_or(0) } else { 0 };
        self
    }

    /// Has half of the runs last for up to some seconds.
    #[must_use]
    pub fn with_lasting_runs(mut self) -> Self {
        self.shape.long = self.shape.long.max(500);
        self
    }

    /// Has clients be silent now and then, so that nodes come to rest; the last jobs come alone.
    #[must_use]
    pub fn with_lulls(mut self) -> Self {
        self.lulls = true;
        self
    }

    /// Rates of a queue, and perhaps of a key.
    fn rates(&self, random: &mut Random) -> Vec<Limit> {
        let tenant = &self.tenants[random.place(self.tenants.len())];
        let paced = |of, random: &mut Random| {
            let (jobs, burst) = (1 + random.below(12), 1 + random.below(12));
            let rate = Rate::new(u32::try_from(jobs).unwrap_or(1), random.millis(200, 3_000));
            Limit::paced(of, rate.burst(u32::try_from(burst).unwrap_or(1)))
        };
        let queue = self.queues[random.place(self.queues.len())].clone();
        let mut limits = vec![paced(LimitOf::Queue(tenant.clone(), queue), random)];
        if random.chance(500) {
            let key = self.keys[random.place(self.keys.len())].clone();
            limits.push(paced(LimitOf::Key(tenant.clone(), key), random));
        }
        limits
    }

    /// The limits and schedules that are set before anything is submitted.
    fn opening(&self, limited: bool, random: &mut Random) -> Vec<Act> {
        let mut acts = Vec::new();
        for tenant in self.tenants.iter().filter(|_| limited) {
            acts.extend(self.keys.iter().map(|key| Act::Limit(limit(tenant, key, random))));
        }
        if limited && random.chance(500) {
            acts.push(self.wide_limit(random));
        }
        if random.chance(400) {
            let rule = rule(random);
            let job = CronJob::new("nightly", rule, Arc::clone(&self.fired)).tenant(self.tenants[0].clone());
            acts.push(Act::Schedule(job));
        }
        acts
    }

    fn submission(&mut self, scene: &mut Scene<'_>) -> Act {
        let count = (1 + scene.random.below(self.shape.batch)).min(u64::from(self.left));
        self.left -= u32::try_from(count).unwrap_or(self.left);
        let Some(tenant) = scene.random.pick(&self.tenants).cloned() else {
            return Act::Submit(Vec::new(), SubmitOptions::each());
        };
        let family = scene.random.chance(self.shape.family);
        let mut jobs: Vec<NewJob> = Vec::new();
        for _ in 0..count {
            let mut job = self.job(&tenant, scene);
            if family {
                let parents = scene.random.below(3).min(jobs.len() as u64);
                job.parents = self.parents(&tenant, &jobs, parents, scene);
            }
            jobs.push(job);
        }
        for job in &jobs {
            if self.recent.len() == REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back((job.tenant.clone(), job.id));
        }
        let atomic = family && scene.random.chance(500);
        Act::Submit(jobs, if atomic { SubmitOptions::atomic() } else { SubmitOptions::each() })
    }

    fn job(&self, tenant: &Tenant, scene: &mut Scene<'_>) -> NewJob {
        let spec = &self.specs[scene.random.place(self.specs.len())];
        let mut job = scene.job(tenant, spec);
        let share = spec.resources().turns_with();
        if share != Share::NONE {
            // All steps of a share are of one pipeline here.
            job.pipeline = Some(PipelineId::from_parts(share.code(), tenant.slot(), 0));
        }
        if scene.random.chance(self.shape.delayed) {
            job.run_at = Some(scene.now.saturating_add(scene.random.millis(1, 5_000)));
        }
        if scene.random.chance(self.shape.deadline) {
            job.deadline = Some(scene.now.saturating_add(scene.random.millis(50, 9_000)));
        }
        if scene.random.chance(self.shape.unique) {
            let number = scene.random.below(200);
            let begins = ["", "open:", "unfailed:", "waiting:"];
            let begin = usize::try_from(number / 50).ok().and_then(|kind| begins.get(kind)).unwrap_or(&"");
            job.unique = Some(format!("{begin}key-{number}").into());
        }
        job
    }

    /// Draws parents out of the batch, and now and then one that was submitted before.
    fn parents(&self, tenant: &Tenant, batch: &[NewJob], n: u64, scene: &mut Scene<'_>) -> Arc<[Parent]> {
        let mut ids: Vec<JobId> = Vec::new();
        for _ in 0..n {
            ids.extend(scene.random.pick(batch).map(|job| job.id));
        }
        if scene.random.chance(100) {
            let old = scene.random.place(self.recent.len());
            ids.extend(self.recent.get(old).filter(|(of, _)| of == tenant).map(|(_, id)| *id));
        }
        ids.sort_unstable();
        ids.dedup();
        let requires =
            |random: &mut Random| if random.chance(300) { Requires::Ended } else { Requires::Success };
        ids.into_iter().map(|id| Parent { id, requires: requires(scene.random) }).collect()
    }

    fn policy(&self, random: &mut Random) -> Act {
        if self.paced && random.chance(200) {
            // One of them, and not as it was.
            return Act::Limit(self.rates(random).swap_remove(0));
        }
        let tenant = self.tenants[random.place(self.tenants.len())].clone();
        if random.chance(300) {
            return self.wide_limit(random);
        }
        if random.chance(500) {
            let key = &self.keys[random.place(self.keys.len())];
            return Act::Limit(limit(&tenant, key, random));
        }
        let queue = self.queues[random.place(self.queues.len())].clone();
        let weight = 1 + u32::try_from(random.below(4)).unwrap_or(0);
        Act::Queue(QueuePolicy { tenant, queue, paused: random.chance(300), weight })
    }

    /// Sets or removes a limit of a queue, of a tenant or of all.
    fn wide_limit(&self, random: &mut Random) -> Act {
        let tenant = self.tenants[random.place(self.tenants.len())].clone();
        let of = match random.below(4) {
            0 => LimitOf::All,
            1 => LimitOf::Tenant(tenant),
            _ => LimitOf::Queue(tenant, self.queues[random.place(self.queues.len())].clone()),
        };
        if random.chance(300) {
            return Act::NoLimit(of);
        }
        Act::Limit(Limit::new(of, u32::try_from(random.below(9)).unwrap_or(0)))
    }

    fn recent(&self, random: &mut Random) -> Vec<JobId> {
        let most = 1 + random.below(3);
        (0..most)
            .filter_map(|_| self.recent.get(random.place(self.recent.len())))
            .map(|(_, id)| *id)
            .collect()
    }
}

impl Workload for MixedLoad {
    fn next(&mut self, scene: &mut Scene<'_>) -> Option<(Duration, Act)> {
        if let Some(act) = self.first.pop() {
            return Some((Duration::ZERO, act));
        }
        if self.left == 0 {
            return None;
        }
        let mut wait = scene.random.between(Duration::ZERO, self.shape.gap * 2);
        if self.lulls && (self.left <= LATECOMERS || scene.random.chance(20)) {
            wait = scene.random.millis(4_000, 25_000);
            self.shape.batch = if self.left <= LATECOMERS { 1 } else { self.shape.batch };
        }
        let act = if scene.random.chance(self.shape.cancel) {
            if let Some(job) = self.begun.pop_back().filter(|_| scene.random.chance(600)) {
                // One that runs, most likely.
                return Some((Duration::ZERO, Act::Cancel(vec![job])));
            }
            Act::Cancel(self.recent(scene.random))
        } else if scene.random.chance(self.shape.redrive) {
            Act::Redrive(self.recent(scene.random))
        } else if scene.random.chance(self.shape.policy) {
            self.policy(scene.random)
        } else {
            self.submission(scene)
        };
        Some((wait, act))
    }

    fn run(&mut self, assignment: &Assignment, scene: &mut Scene<'_>) -> RunPlan {
        if self.begun.len() == REMEMBERED {
            self.begun.pop_front();
        }
        self.begun.push_back(assignment.job.id);
        let random = &mut *scene.random;
        let long = random.chance(self.shape.long);
        let lasts = match long {
            // Longer than a node or an agent may go on without hearing anything.
            true if random.chance(80) => random.millis(4_000, 16_000),
            true => random.millis(200, 4_000),
            false => random.millis(1, 60),
        };
        let failed = |class| News::Ended(Box::new(Finish::failed(Failure::new(class, "as drawn"))));
        let news = if random.chance(self.shape.fail) {
            failed(if random.chance(200) { FailureClass::Fatal } else { FailureClass::Error })
        } else if random.chance(self.shape.snooze) {
            News::Snoozed(random.millis(10, 3_000))
        } else if random.chance(self.shape.refuse) {
            News::Returned
        } else {
            let mut finish = Finish::succeeded(Output::none());
            if scene.random.chance(self.shape.spawn) {
                let tenant = &assignment.job.tenant;
                finish.spawn = (0..1 + scene.random.below(3)).map(|_| self.job(tenant, scene)).collect();
                // What is due or late is drawn for submissions; a spawned job that nobody may claim proves nothing.
                finish.spawn.iter_mut().for_each(|job| (job.deadline, job.unique) = (None, None));
            }
            finish.ran = lasts;
            News::Ended(Box::new(finish))
        };
        let (chance, random) = &mut self.hunger;
        if assignment.memory > 0 && random.chance(*chance) {
            return RunPlan { lasts, news: failed(FailureClass::OutOfMemory) };
        }
        RunPlan { lasts, news }
    }

    fn relent(&mut self, _: &mut Scene<'_>) -> Vec<Act> {
        let mut acts = vec![Act::NoLimit(LimitOf::All)];
        for tenant in &self.tenants {
            acts.push(Act::NoLimit(LimitOf::Tenant(tenant.clone())));
            let free = |queue: &Name| Act::NoLimit(LimitOf::Queue(tenant.clone(), queue.clone()));
            acts.extend(self.queues.iter().map(free));
            let open = |queue: &Name| QueuePolicy {
                tenant: tenant.clone(),
                queue: queue.clone(),
                paused: false,
                weight: 1,
            };
            acts.extend(self.queues.iter().map(|queue| Act::Queue(open(queue))));
            let wide = |key: &Name| Limit::key(tenant.clone(), key.clone(), 4);
            acts.extend(self.keys.iter().map(|key| Act::Limit(wide(key))));
        }
        acts
    }
}

/// Takes one or more of some names, from the first on.
fn names(of: &[&str], random: &mut Random) -> Result<Vec<Name>> {
    of.iter().take(1 + random.place(of.len())).map(Name::new).collect()
}

/// A rule of every few seconds, with a misfire policy, a grace and a jitter.
fn rule(random: &mut Random) -> CronRule {
    let rule = CronRule::new(format!("*/{} * * * * *", 2 + random.below(9)));
    let rule = match random.below(3) {
        0 => rule.misfire(Misfire::Skip),
        1 => rule.misfire(Misfire::FireOnce),
        _ => rule.misfire(Misfire::CatchUp { at_most: 1 + u16::try_from(random.below(20)).unwrap_or(0) }),
    };
    let rule = if random.chance(400) { rule.jitter(random.millis(100, 9_000)) } else { rule };
    rule.grace(random.millis(500, 20_000))
}

fn limit(tenant: &Tenant, key: &Name, random: &mut Random) -> Limit {
    let max = u32::try_from(random.below(5)).unwrap_or(0);
    Limit::key(tenant.clone(), key.clone(), max)
}

/// A job that says where it runs. There is always an agent in the first zone, and nobody waits for company that may never
/// come.
fn placed(n: u64, random: &mut Random) -> Result<JobSpec> {
    let level = Priority::new(u8::try_from(random.below(64)).unwrap_or(32))?;
    let spec = JobSpec::command(["simulated".to_owned(), format!("placed-{n}")]).priority(level);
    let spec = match random.below(4) {
        0 => spec.require(Selector::is("zone", ZONES[0])),
        1 => spec.prefer(Selector::is("zone", ZONES[1])),
        _ => spec,
    };
    let spec = match random.below(5) {
        0 => spec.group("loud"),
        1 => spec.group("quiet").apart("loud").apart("quiet"),
        2 => spec.group("pack").beside("pack"),
        3 => spec.prefer_beside("loud"),
        _ => spec.group("loud").apart("pack"),
    };
    spec.retry(RetryPolicy::attempts(2)).build()
}

fn spec(n: u64, queues: &[Name], keys: &[Name], random: &mut Random) -> Result<JobSpec> {
    let level = if random.chance(500) { random.below(64) } else { 32 };
    let queue = random.pick(queues).map_or("default", Name::as_str);
    let mut spec: JobSpecBuilder = JobSpec::command(["simulated".to_owned(), format!("kind-{n}")])
        .queue(queue)
        .priority(Priority::new(u8::try_from(level).unwrap_or(32))?);
    if random.chance(500) {
        let memory = MEMORY_MAX / (1 + random.below(8));
        let resources = Resources::none().cpu_millis(100 + 100 * random.below(10)).memory(memory);
        // Some take more of rates than one token.
        spec = spec.resources(resources.tokens(1 + u32::try_from(n % 3).unwrap_or(0)));
    }
    if random.chance(700) {
        let attempts = 1 + u32::try_from(random.below(4)).unwrap_or(0);
        let backoff = Backoff::Exponential { base: random.millis(10, 500), max: Duration::from_secs(3) };
        spec = spec.retry(RetryPolicy::attempts(attempts).backoff(backoff));
    }
    if random.chance(600)
        && let Some(key) = random.pick(keys)
    {
        spec = spec.limited_by(key.as_str());
    }
    if random.chance(150) {
        spec = spec.sequence(format!("line-{}", random.below(2)));
    }
    spec.build()
}
