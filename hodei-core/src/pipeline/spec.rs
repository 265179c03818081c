//! What a pipeline is made of, validated once at the door.

use std::sync::Arc;

use super::dag::{Graph, StepIndex};
use super::steps::{StepIds, Steps};
use super::when::When;
use crate::error::{Error, Fault, Result};
use crate::id::{JobId, Name, PipelineId, Tenant};
use crate::job::{JobSpec, JobSpecBuilder, NewJob, Parent, Requires, Share, SpecLimits};
use crate::text::shown;
use crate::time::SystemClock;

/// The steps of a cycle that are named from each of its ends; what is between is counted.
const CYCLE_SHOWN: usize = 8;

/// The limits that pipelines are held to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PipelineLimits {
    /// Steps of a pipeline: 100,000.
    pub steps: usize,
    /// Steps that one step needs: 10,000.
    pub needs: usize,
    /// The limits of each step's spec.
    pub spec: SpecLimits,
}

impl Default for PipelineLimits {
    fn default() -> Self {
        Self { steps: 100_000, needs: 10_000, spec: SpecLimits::default() }
    }
}

impl PipelineLimits {
    /// Sets how many steps a pipeline may have.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Sets how many steps one step may need.
    #[must_use]
    pub fn needs(mut self, needs: usize) -> Self {
        self.needs = needs;
        self
    }
}

/// A step on its way into a pipeline.
#[derive(Clone, Debug)]
#[must_use = "a step does nothing until it is added"]
pub struct Step {
    /// Named by the step's id.
    spec: JobSpecBuilder,
    needs: Vec<(String, Requires)>,
}

impl Step {
    /// Makes a step; its id becomes the name of its job.
    pub fn new(id: impl Into<String>, spec: JobSpecBuilder) -> Self {
        Self { spec: spec.name(id), needs: Vec::new() }
    }

    pub(super) fn id(&self) -> &str {
        self.spec.given_name().unwrap_or_default()
    }

    /// Runs only after another step has succeeded, and sees its output.
    pub fn needs(self, step: impl Into<String>) -> Self {
        self.needs_for(step.into(), Requires::Success)
    }

    /// Runs only after another step has ended, no matter how.
    pub fn needs_end_of(self, step: impl Into<String>) -> Self {
        self.needs_for(step.into(), Requires::Ended)
    }

    /// Runs only after another step has failed; is skipped when that succeeds or is cancelled.
    pub fn needs_failure_of(self, step: impl Into<String>) -> Self {
        self.needs_for(step.into(), Requires::Failure)
    }

    /// Runs only when conditions on the outputs of the steps before it hold, all of them; else it ends cancelled, and the
    /// steps that need it are skipped. In the place of conditions set before.
    pub fn when(mut self, conditions: impl IntoIterator<Item = When>) -> Self {
        self.spec = self.spec.label(When::LABEL, When::text(conditions));
        self
    }

    fn needs_for(mut self, step: String, requires: Requires) -> Self {
        if self.needs.is_empty() {
            // Most steps need one other: a vector left to itself would make room for four.
            self.needs.reserve_exact(1);
        }
        self.needs.push((step, requires));
        self
    }
}

/// Collects steps; [`PipelineBuilder::build`] checks them all.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct PipelineBuilder {
    name: String,
    tenant: Tenant,
    weight: u32,
    steps: Steps,
}

impl PipelineBuilder {
    /// Sets whose pipeline it is. Default: the default tenant.
    pub fn tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = tenant;
        self
    }

    /// Sets what it weighs against the other pipelines of its queues, and against the jobs there that are of none, which weigh
    /// 1: where all of them have work that is as urgent, one that weighs 3 has three turns for each of theirs. It weighs that
    /// for ever, together with the steps that its steps add, and when it is resumed. Default: 1; at most
    /// [`Share::WEIGHT_MAX`].
    ///
    /// Pipelines of [`Share::SMALL_STEPS`] steps at most have their turns together with all others that are as small and
    /// weigh the same.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Adds a step; those that it needs may be added later.
    ///
    /// Of the steps that become ready together, those come first on whose end the longest way to the end of the pipeline
    /// depends: by how long they last ([`JobSpecBuilder::lasts`]), else by the number of steps. It is decided once, when the
    /// pipeline is built, and kept in the order of the ids.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Checks everything against the default limits and makes the pipeline.
    ///
    /// # Errors
    ///
    /// As [`PipelineBuilder::build_within`].
    pub fn build(self) -> Result<Pipeline> {
        self.build_within(&PipelineLimits::default())
    }

    /// Checks everything against the limits given and makes the pipeline.
    ///
    /// # Errors
    ///
    /// `Invalid`: `name`; `weight: zero | too_large`; `steps: empty | too_many`; of a step `duplicate_step`, `too_many`, `self_dep`,
    /// `duplicate`, `unknown_dep` and every fault of its spec; `steps: cycle` with the path of a cycle.
    pub fn build_within(self, limits: &PipelineLimits) -> Result<Pipeline> {
        let invalid = |faults| Error::invalid("pipeline.build", faults);
        let mut faults: Vec<Fault> = Name::fault("name", &self.name).into_iter().collect();
        match self.weight {
            0 => faults.push(Fault::new("weight", "zero")),
            1..=Share::WEIGHT_MAX => {}
            _ => faults.push(Fault::new("weight", "too_large").limit(Share::WEIGHT_MAX.into())),
        }
        if self.steps.len() == 0 {
            faults.push(Fault::new("steps", "empty"));
        }
        if self.steps.len() > limits.steps.min(StepIndex::MAX as usize) {
            faults.push(Fault::new("steps", "too_many").limit(limits.steps as u64));
            return Err(invalid(faults));
        }
        let graph = resolve(&self.steps, limits, &mut faults);
        if !faults.is_empty() {
            return Err(invalid(faults));
        }
        let mut order = graph.order().map_err(|cycle| {
            let fault = Fault::new("steps", "cycle").detail(path(&cycle, &self.steps));
            Error::invalid("pipeline.build", vec![fault])
        })?;
        graph.critical_first(&mut order, &lasts(&self.steps));
        let name = Name::new(&self.name)?;
        let id = PipelineId::mint(&self.tenant, &SystemClock);
        let share = Share::of_steps(id, self.steps.len()).weighing(self.weight);
        let (specs, requires) = specs(self.steps, share, limits)?;
        let jobs = jobs(id, &self.tenant, specs, &requires, &graph, &order);
        Ok(Pipeline { id, name, tenant: self.tenant, jobs: Arc::new(jobs) })
    }
}

/// How long each step lasts: as it was told, else as long as those that were told do on average, else a hop.
fn lasts(steps: &Steps) -> Vec<u64> {
    let told = |step: &Step| {
        let micros =
            step.spec.told_to_last().map(|lasts| u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX));
        micros.filter(|micros| *micros > 0)
    };
    let (sum, n) = steps
        .iter()
        .filter_map(told)
        .fold((0_u128, 0_u128), |(sum, n), micros| (sum + u128::from(micros), n + 1));
    let usual = sum.checked_div(n).and_then(|mean| u64::try_from(mean).ok()).unwrap_or(1).max(1);
    steps.iter().map(|step| told(step).unwrap_or(usual)).collect()
}

/// What is left of a step when its spec is built.
type Specs = (Vec<Option<Arc<JobSpec>>>, Vec<Requires>);

/// Builds the specs, each in its step's place, and takes what is asked of parents, in the order of the graph. A step is
/// gone before the next is looked at, so that a large pipeline is not held twice.
fn specs(steps: Steps, share: Share, limits: &PipelineLimits) -> Result<Specs> {
    let mut faults = Vec::new();
    let mut specs = Vec::with_capacity(steps.len());
    let mut requires = Vec::with_capacity(steps.len());
    for step in steps {
        let wrong = step.spec.faults(&limits.spec);
        if wrong.is_empty() {
            requires.extend(step.needs.iter().map(|(_, requires)| *requires));
            specs.push(Some(Arc::new(step.spec.share(share).build_checked()?)));
        } else {
            faults.extend(wrong.into_iter().map(|mut fault| {
                fault.field = format!("steps.{}.{}", shown(step.id()), fault.field);
                fault
            }));
        }
    }
    if faults.is_empty() { Ok((specs, requires)) } else { Err(Error::invalid("pipeline.build", faults)) }
}

/// Makes the jobs, parents before children. Their ids are minted here, once.
fn jobs(
    pipeline: PipelineId,
    tenant: &Tenant,
    mut specs: Vec<Option<Arc<JobSpec>>>,
    requires: &[Requires],
    graph: &Graph,
    order: &[StepIndex],
) -> Vec<NewJob> {
    let mut ids = vec![JobId::from_bytes([0; 16]); specs.len()];
    let minted = JobId::mint_many(tenant, &SystemClock, specs.len());
    let mut jobs = Vec::with_capacity(specs.len());
    for (step, id) in order.iter().map(|step| *step as usize).zip(minted) {
        // The order names each step once, and none before its parents.
        let Some(spec) = specs[step].take() else { continue };
        ids[step] = id;
        let asked = graph.parents(step).iter().zip(&requires[graph.span(step)]);
        let parents =
            asked.map(|(parent, requires)| Parent { id: ids[*parent as usize], requires: *requires });
        jobs.push(NewJob::of_step(id, pipeline, tenant.clone(), spec, parents));
    }
    jobs
}

/// Finds the steps that each step needs, and everything that is wrong with them but cycles.
fn resolve(steps: &Steps, limits: &PipelineLimits, faults: &mut Vec<Fault>) -> Graph {
    let mut by_id = StepIds::of(steps);
    for (n, step) in (0..).zip(steps.iter()) {
        if !by_id.insert(n, step.id()) {
            faults.push(Fault::new(format!("steps.{}", shown(step.id())), "duplicate_step"));
        }
    }
    let mut last_seen: Vec<Option<StepIndex>> = vec![None; steps.len()];
    let mut graph = Graph::with_capacity(steps.len());
    let mut before: Option<(StepIndex, &Step)> = None;
    for (n, step) in (0..).zip(steps.iter()) {
        let last = before.replace((n, step));
        let field = || format!("steps.{}.needs", shown(step.id()));
        if step.needs.len() > limits.needs {
            faults.push(Fault::new(field(), "too_many").limit(limits.needs as u64));
            graph.end_step();
            continue;
        }
        for (need, _) in &step.needs {
            // Most steps need the one before them: that is seen without a look-up.
            let parent = match last {
                Some((last, step)) if step.id() == need => Some(last),
                _ => by_id.get(need),
            };
            match parent {
                None => faults.push(Fault::new(field(), "unknown_dep").detail(shown(need))),
                Some(parent) if need == step.id() || parent == n => {
                    faults.push(Fault::new(field(), "self_dep"));
                }
                Some(parent) if last_seen[parent as usize] == Some(n) => {
                    faults.push(Fault::new(field(), "duplicate").detail(shown(need)));
                }
                Some(parent) => {
                    last_seen[parent as usize] = Some(n);
                    graph.parent(parent);
                }
            }
        }
        graph.end_step();
    }
    graph
}

/// Tells a cycle as a path of ids; the middle of a long one is left out and counted.
fn path(cycle: &[StepIndex], steps: &Steps) -> String {
    let id = |step: &StepIndex| shown(steps.get(*step).map_or("", Step::id));
    if cycle.len() <= 2 * CYCLE_SHOWN {
        return cycle.iter().map(id).collect::<Vec<_>>().join(" -> ");
    }
    let (head, tail) = (&cycle[..CYCLE_SHOWN], &cycle[cycle.len() - CYCLE_SHOWN..]);
    let left_out = format!("({} more)", cycle.len() - 2 * CYCLE_SHOWN);
    head.iter().map(id).chain([left_out]).chain(tail.iter().map(id)).collect::<Vec<_>>().join(" -> ")
}

/// A validated graph of jobs, ready to be submitted, as often as it takes: its ids are minted.
///
/// Its steps wait in turn with the tenant's other pipelines of their queue, and with the jobs there that are of none:
/// [`Share`].
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    id: PipelineId,
    name: Name,
    tenant: Tenant,
    /// Behind a vector: a slice would have to be copied together once more.
    jobs: Arc<Vec<NewJob>>,
}

impl Pipeline {
    /// Begins a pipeline.
    pub fn builder(name: impl Into<String>) -> PipelineBuilder {
        PipelineBuilder { name: name.into(), tenant: Tenant::default(), weight: 1, steps: Steps::default() }
    }

    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> PipelineId {
        self.id
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Returns whose it is.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Returns the jobs of its steps, parents before children; submit them in one atomic batch.
    #[must_use]
    pub fn jobs(&self) -> &[NewJob] {
        &self.jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;

    fn step(id: &str, needs: &[&str]) -> Step {
        needs.iter().fold(Step::new(id, JobSpec::command(["true"])), |step, need| step.needs(*need))
    }

    fn build(steps: Vec<Step>) -> Result<Pipeline> {
        let builder = steps.into_iter().fold(Pipeline::builder("p"), PipelineBuilder::step);
        builder.build_within(&PipelineLimits { steps: 20, needs: 3, ..PipelineLimits::default() })
    }

    #[test]
    fn each_fault_is_told_exactly() {
        let many: Vec<Step> = (0..21).map(|n| step(&n.to_string(), &[])).collect();
        let long = (0..19).map(|n| step(&format!("s{n}"), &[&format!("s{}", (n + 18) % 19)])).collect();
        let cases: Vec<(Vec<Step>, &str)> = vec![
            (vec![], "steps: empty"),
            (many, "steps: too_many (limit 20)"),
            (vec![step("a", &[]), step("a", &[])], "steps.a: duplicate_step"),
            (vec![step("a", &["b"])], "steps.a.needs: unknown_dep: b"),
            (vec![step("a", &["a"])], "steps.a.needs: self_dep"),
            (vec![step("a", &[]), step("b", &["a", "a"])], "steps.b.needs: duplicate: a"),
            (vec![step("a", &["b"]), step("b", &["a"])], "steps: cycle: a -> b -> a"),
            (vec![step("a/b", &[])], "steps.a/b.name: bad_char: a/b"),
            (
                long,
                "steps: cycle: s0 -> s1 -> s2 -> s3 -> s4 -> s5 -> s6 -> s7 -> (4 more) -> s12 -> s13 -> s14 -> s15 \
                 -> s16 -> s17 -> s18 -> s0",
            ),
        ];
        for (steps, expected) in cases {
            let error = build(steps).unwrap_err();
            assert_eq!(error.to_string(), format!("pipeline.build: invalid input: {expected}"));
        }
        let wide = vec![
            step("a", &[]),
            step("b", &[]),
            step("c", &[]),
            step("d", &[]),
            step("e", &["a", "b", "c", "d"]),
        ];
        let error = build(wide).unwrap_err();
        assert_eq!(error.to_string(), "pipeline.build: invalid input: steps.e.needs: too_many (limit 3)");
    }

    #[test]
    fn faults_of_names_and_specs_are_told_with_their_step() {
        let spec = |argv: &[&str]| JobSpec::command(argv.iter().copied());
        let error = Pipeline::builder("a b")
            .step(Step::new("a", spec(&[""])))
            .build_within(&PipelineLimits::default())
            .unwrap_err();
        assert_eq!(error.to_string(), "pipeline.build: invalid input: name: bad_char: a b");
        let error = Pipeline::builder("p")
            .step(Step::new("a", spec(&[""])))
            .step(Step::new("b", spec(&["x\0"]).env("A=B", "")).needs("a"))
            .build()
            .unwrap_err();
        let told: Vec<_> = error.faults().iter().map(|fault| (fault.field.as_str(), fault.code)).collect();
        let expected =
            [("steps.a.argv[0]", "empty"), ("steps.b.argv[0]", "nul"), ("steps.b.env.name", "has_eq")];
        assert_eq!(told, expected);
        let long = build(vec![step(&"x".repeat(1_000_000), &["\u{202e}"])]).unwrap_err();
        assert!(long.to_string().len() < 300, "a long id is told short");
    }

    #[test]
    fn ends_and_successes_are_asked_for_as_said() {
        let pipeline = build(vec![
            step("a", &[]),
            step("b", &[]),
            Step::new("c", JobSpec::command(["true"])).needs("a").needs_end_of("b"),
        ])
        .unwrap();
        let asked: Vec<_> = pipeline.jobs()[2].parents.iter().map(|parent| parent.requires).collect();
        assert_eq!(asked, [Requires::Success, Requires::Ended]);
    }

    #[test]
    fn the_steps_of_a_pipeline_have_their_turns_together() {
        for (steps, is_small) in [(1, true), (16, true), (17, false), (20, false)] {
            let pipeline = build((0..steps).map(|n| step(&n.to_string(), &[])).collect()).unwrap();
            let share = if is_small { Share::SMALL } else { Share::of(pipeline.id()) };
            assert!(pipeline.jobs().iter().all(|job| job.spec.request().share() == share));
            let spec = &pipeline.jobs()[0].spec;
            assert_eq!(spec.class(), spec.request().class(), "as it is known without hashing");
            let added = NewJob::new(JobSpec::command(["true"]).build().unwrap()).in_pipeline(pipeline.id());
            let asks = added.spec.request();
            assert_eq!((asks.share(), asks.class()), (Share::of(pipeline.id()), added.spec.class()));
            assert_eq!(asks.without_share(), JobSpec::command(["true"]).build().unwrap().request());
        }
    }

    #[test]
    fn what_a_pipeline_weighs_is_told_exactly_and_kept_by_its_steps() {
        for (weight, expected) in [(0, "weight: zero"), (101, "weight: too_large (limit 100)")] {
            let error = Pipeline::builder("p").weight(weight).step(step("a", &[])).build().unwrap_err();
            assert_eq!(error.to_string(), format!("pipeline.build: invalid input: {expected}"));
        }
        for (weight, steps) in [(1, 3), (100, 3), (1, 20), (7, 20)] {
            let builder = Pipeline::builder("p").weight(weight);
            let steps = (0..steps).map(|n| step(&n.to_string(), &[]));
            let pipeline = steps.fold(builder, PipelineBuilder::step).build().unwrap();
            let share = Share::of_steps(pipeline.id(), pipeline.jobs().len()).weighing(weight);
            for job in pipeline.jobs() {
                assert_eq!((job.spec.request().share(), share.weight()), (share, weight));
                assert_eq!(job.spec.class(), job.spec.request().class());
            }
            // As it is resumed: with the spec of a step.
            let other = PipelineId::mint(&Tenant::default(), &SystemClock);
            let again = NewJob::new(Arc::clone(&pipeline.jobs()[0].spec)).in_pipeline(other);
            assert_eq!(again.spec.request().share(), Share::of(other).weighing(weight));
        }
    }

    #[test]
    fn ids_are_minted_once_and_carry_the_tenant() {
        let tenant = Tenant::new("acme").unwrap();
        let pipeline = Pipeline::builder("p").tenant(tenant.clone()).step(step("a", &[])).build().unwrap();
        let prints = |pipeline: &Pipeline| -> Vec<_> {
            pipeline.jobs().iter().map(|job| (job.id, job.fingerprint())).collect()
        };
        assert_eq!(prints(&pipeline), prints(&pipeline.clone()));
        assert_eq!(
            (pipeline.jobs()[0].tenant.clone(), pipeline.jobs()[0].id.slot()),
            (tenant.clone(), tenant.slot())
        );
    }

    #[test]
    fn the_limits_are_exact() {
        let steps = |n: usize| (0..n).map(|n| step(&format!("s{n}"), &[])).collect::<Vec<_>>();
        assert_eq!(build(steps(20)).unwrap().jobs().len(), 20);
        assert_eq!(build(steps(21)).unwrap_err().faults()[0].limit, Some(20));
        let mut needy = steps(3);
        needy.push(step("e", &["s0", "s1", "s2"]));
        assert!(build(needy).is_ok());
    }

    /// Builds `n` steps, each of which needs what `needs` says.
    fn large(n: usize, needs: impl Fn(usize) -> Vec<usize>) -> Result<Pipeline> {
        let limits = PipelineLimits::default().steps(n);
        let mut builder = Pipeline::builder("large");
        for step in 0..n {
            let spec = Step::new(format!("s{step}"), JobSpec::command(["true"]));
            builder =
                builder.step(needs(step).into_iter().fold(spec, |spec, need| spec.needs(format!("s{need}"))));
        }
        builder.build_within(&limits)
    }

    #[test]
    fn deep_wide_and_dense_pipelines_are_built() {
        let chain = large(100_000, |n| n.checked_sub(1).into_iter().collect()).unwrap();
        assert_eq!(chain.jobs().len(), 100_000);
        let fan_in = large(10_001, |n| if n == 10_000 { (0..n).collect() } else { Vec::new() }).unwrap();
        assert_eq!(fan_in.jobs()[10_000].parents.len(), 10_000);
        // Two to the 5,000th paths from the first to the last.
        let diamonds = large(15_000, |n| match n % 3 {
            0 => n.checked_sub(1).into_iter().chain(n.checked_sub(2)).collect(),
            rest => vec![n - rest],
        });
        assert_eq!(diamonds.unwrap().jobs().len(), 15_000);
        let cycle = large(100_000, |n| vec![(n + 99_999) % 100_000]).unwrap_err();
        assert!(cycle.to_string().len() < 300, "a long cycle is told short");
    }

    #[test]
    fn a_chain_of_a_million_steps_is_built() {
        let chain = large(1_000_000, |n| n.checked_sub(1).into_iter().collect()).unwrap();
        let pairs = chain.jobs().windows(2);
        assert_eq!(chain.jobs().len(), 1_000_000);
        assert!(
            pairs
                .clone()
                .all(|pair| *pair[1].parents == [Parent { id: pair[0].id, requires: Requires::Success }])
        );
    }

    #[test]
    fn jobs_come_parents_first_and_know_their_parents() {
        let pipeline = build(vec![step("c", &["a", "b"]), step("b", &["a"]), step("a", &[])]).unwrap();
        let names: Vec<&str> = pipeline.jobs().iter().map(|job| job.spec.name().as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let [a, b, c] = pipeline.jobs() else { panic!("three jobs") };
        assert_eq!(c.parents.iter().map(|parent| parent.id).collect::<Vec<_>>(), [a.id, b.id]);
        assert!(pipeline.jobs().iter().all(|job| job.pipeline == Some(pipeline.id()) && job.check().is_ok()));
    }
}
