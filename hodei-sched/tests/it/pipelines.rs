//! Pipelines as a whole: conditions, steps that add steps, cancellation, resuming, batches, dead letters.
#![expect(clippy::unwrap_used, reason = "what a test sets up does not fail")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use hodei_agent::{Agent, AgentHandle, Context, Json, Outcome};
use hodei_core::job::{FailureClass, JobKind, JobSpec, JobSpecBuilder, NewJob, Share, State};
use hodei_core::pipeline::{Batch, Pipeline, PipelineStatus, Step, When};
use hodei_core::store::{Query, Scope};
use hodei_core::{ErrorKind, PipelineId};
use hodei_sched::{DeadLetters, Orchestrator};
use serde_json::{Value, json};

#[derive(serde::Serialize, serde::Deserialize)]
struct Act {
    what: Value,
}

impl JobKind for Act {
    const KIND: &'static str = "act";
}

/// What the handlers of a test have done and are to do.
#[derive(Debug, Default)]
struct Shared {
    ran: Mutex<Vec<String>>,
    mended: AtomicBool,
    held: AtomicU32,
}

async fn act(context: Context<Arc<Shared>>, job: Act) -> Outcome {
    let name = context.job().spec.name().as_str().to_owned();
    context.state().ran.lock().unwrap().push(name);
    let done = |value: Value| hodei_agent::IntoOutcome::into_outcome(Json(value));
    match job.what.as_str() {
        Some("fail") if !context.state().mended.load(Ordering::Relaxed) => Outcome::failed("no"),
        Some("fatal") => Outcome::fatal("never"),
        Some("hold") => {
            context.state().held.fetch_add(1, Ordering::Relaxed);
            context.cancelled().await;
            Outcome::Cancel
        }
        // Splits 1..=5, squares each, and sums the squares.
        Some("split") => {
            let squares: Vec<_> = (1..=5)
                .map(|n: i64| context.add_step(act_spec(json!(n)).name("square").build().unwrap(), []))
                .collect();
            context.add_step(act_spec(json!("sum")).name("sum").build().unwrap(), squares);
            done(json!(5))
        }
        Some("sum") => match context.inputs::<i64>("square") {
            Ok(squares) => done(json!({"sum": squares.iter().sum::<i64>(), "squares": squares})),
            Err(error) => Outcome::failed(error),
        },
        Some(_) => done(job.what),
        None => match job.what.as_i64() {
            Some(n) => done(json!(n * n)),
            None => done(job.what),
        },
    }
}

fn act_spec(what: Value) -> JobSpecBuilder {
    JobSpec::of(&Act { what }).unwrap()
}

fn step(id: &str, what: Value) -> Step {
    Step::new(id, act_spec(what))
}

struct World {
    node: Orchestrator,
    agent: AgentHandle,
    state: Arc<Shared>,
}

impl World {
    async fn new() -> Self {
        let node = Orchestrator::builder().start().await.unwrap();
        let state = Arc::new(Shared::default());
        let agent = Agent::builder(node.gateway()).slots(16).state(Arc::clone(&state)).handler(act);
        Self { agent: agent.start().await.unwrap(), node, state }
    }

    async fn run(&self, pipeline: &Pipeline) -> PipelineId {
        let id = self.node.submit_pipeline(pipeline).await.unwrap();
        self.node.wait_pipeline(id).await.unwrap();
        id
    }

    /// The steps of a pipeline, and how they ended.
    async fn states(&self, pipeline: PipelineId) -> BTreeMap<String, State> {
        self.node.wait_pipeline(pipeline).await.unwrap();
        let page = self.node.query(&Scope::All, Query::new().pipeline(pipeline)).await.unwrap();
        page.jobs.iter().map(|job| (job.name.as_str().to_owned(), job.state)).collect()
    }

    fn ran(&self) -> Vec<String> {
        let mut ran = std::mem::take(&mut *self.state.ran.lock().unwrap());
        ran.sort_unstable();
        ran
    }

    async fn end(self) {
        self.agent.shutdown().await;
        self.node.shutdown().await;
    }
}

#[tokio::test]
async fn a_step_runs_only_when_its_conditions_hold() {
    let world = World::new().await;
    let pipeline = Pipeline::builder("p")
        .step(step("test", json!({"ok": true, "coverage": 80})))
        .step(step("deploy", json!(1)).needs("test").when([When::is("test", "/ok", true)]))
        .step(step("warn", json!(1)).needs("test").when([When::is_not("test", "/coverage", 80)]))
        .step(step("mail", json!(1)).needs("warn"))
        .step(step("repair", json!(1)).needs_failure_of("test"))
        .step(step("odd", json!(1)).needs("test").when([When::is("who", "", 1)]))
        .build()
        .unwrap();
    let id = world.run(&pipeline).await;
    let states: Vec<(String, State)> = world.states(id).await.into_iter().collect();
    let expected = [
        ("deploy", State::Succeeded),
        ("mail", State::Cancelled),
        ("odd", State::Failed),
        ("repair", State::Cancelled),
        ("test", State::Succeeded),
        ("warn", State::Cancelled),
    ];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state)));
    assert_eq!(world.ran(), ["deploy", "test"]);
    world.end().await;
}

#[tokio::test]
async fn a_step_fans_out_and_another_gathers() {
    let world = World::new().await;
    let pipeline = Pipeline::builder("p").step(step("split", json!("split"))).build().unwrap();
    let id = world.node.submit_pipeline(&pipeline).await.unwrap();
    // The steps come with the end of the first.
    world.node.wait(pipeline.jobs()[0].id).await.unwrap();
    let states = world.states(id).await;
    assert_eq!(states.len(), 3, "split, square and sum");
    assert_eq!(world.node.wait_pipeline(id).await.unwrap().counts().of(State::Succeeded), 7);
    let sum =
        world.node.query(&Scope::All, Query::new().pipeline(id).name(hodei_core::Name::literal("sum"))).await;
    let sum = world.node.get(sum.unwrap().jobs[0].id).await.unwrap();
    assert_eq!(sum.spec.request().share(), Share::of(id), "it has its turns with the pipeline's others");
    let output: Value = serde_json::from_slice(sum.output().unwrap().inline().unwrap()).unwrap();
    assert_eq!(output, json!({"sum": 55, "squares": [1, 4, 9, 16, 25]}), "in the order of the parents");
    world.end().await;
}

#[tokio::test]
async fn a_cancelled_pipeline_ends_with_all_its_steps() {
    let world = World::new().await;
    let mut pipeline = Pipeline::builder("p").step(step("done", json!(1)));
    for n in 0..5 {
        pipeline = pipeline.step(step(&format!("held-{n}"), json!("hold")).needs("done"));
        pipeline = pipeline.step(step(&format!("after-{n}"), json!(1)).needs(format!("held-{n}")));
        pipeline = pipeline.step(step(&format!("always-{n}"), json!(1)).needs_end_of(format!("held-{n}")));
    }
    let id = world.node.submit_pipeline(&pipeline.build().unwrap()).await.unwrap();
    while world.state.held.load(Ordering::Relaxed) < 5 {
        tokio::task::yield_now().await;
    }
    assert!(world.node.cancel_pipeline(&Scope::All, id).await.unwrap() >= 5);
    let states = world.states(id).await;
    assert_eq!(states.values().filter(|state| **state == State::Cancelled).count(), 15, "{states:?}");
    assert_eq!(world.node.cancel_pipeline(&Scope::All, id).await.unwrap(), 0);
    let other = Scope::Tenant(hodei_core::Tenant::new("other").unwrap());
    assert_eq!(world.node.cancel_pipeline(&other, id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(world.ran().iter().all(|name| !name.starts_with("a")), "nothing followed");
    world.end().await;
}

#[tokio::test]
async fn a_pipeline_is_resumed_from_what_failed() {
    let world = World::new().await;
    let pipeline = Pipeline::builder("p")
        .step(step("fetch", json!({"rows": 3})))
        .step(step("load", json!("fail")).needs("fetch"))
        .step(step("index", json!(2)).needs("load"))
        .step(step("report", json!(1)).needs("index").needs("fetch").when([When::is("fetch", "/rows", 3)]))
        .step(step("tidy", json!(1)).needs_end_of("load"))
        .step(step("beside", json!(1)).needs("fetch"))
        .build()
        .unwrap();
    let id = world.run(&pipeline).await;
    assert_eq!(world.node.wait_pipeline(id).await.unwrap().status(), PipelineStatus::Failed);
    assert_eq!(world.ran(), ["beside", "fetch", "load", "tidy"]);
    world.state.mended.store(true, Ordering::Relaxed);
    let again = world.node.resume_pipeline(&Scope::All, id).await.unwrap();
    assert_eq!(world.node.wait_pipeline(again).await.unwrap().status(), PipelineStatus::Succeeded);
    assert_eq!(world.ran(), ["index", "load", "report", "tidy"], "what succeeded is not repeated");
    assert_eq!(world.node.resume_pipeline(&Scope::All, id).await.unwrap(), again, "it was resumed");
    let error = world.node.resume_pipeline(&Scope::All, again).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Illegal, "nothing is left");
    world.end().await;
}

#[tokio::test]
async fn a_pipeline_whose_steps_stand_in_a_line_is_resumed_too() {
    let world = World::new().await;
    let step = |id: &str, what| Step::new(id, act_spec(what).sequence("line"));
    let pipeline = Pipeline::builder("p")
        .step(step("a", json!(1)))
        .step(step("b", json!("fail")).needs("a"))
        .step(step("c", json!(2)).needs("b"))
        .step(step("d", json!(3)))
        .build()
        .unwrap();
    let id = world.run(&pipeline).await;
    assert_eq!(world.ran(), ["a", "b", "d"]);
    world.state.mended.store(true, Ordering::Relaxed);
    let again = world.node.resume_pipeline(&Scope::All, id).await.unwrap();
    assert_eq!(world.node.wait_pipeline(again).await.unwrap().status(), PipelineStatus::Succeeded);
    assert_eq!(world.ran(), ["b", "c"]);
    world.end().await;
}

#[tokio::test]
async fn a_pipeline_that_runs_is_not_resumed() {
    let world = World::new().await;
    let pipeline = Pipeline::builder("p").step(step("a", json!("hold"))).build().unwrap();
    let id = world.node.submit_pipeline(&pipeline).await.unwrap();
    assert_eq!(world.node.resume_pipeline(&Scope::All, id).await.unwrap_err().kind(), ErrorKind::Illegal);
    let nobody = PipelineId::mint(&hodei_core::Tenant::default(), &hodei_core::SystemClock);
    assert_eq!(
        world.node.resume_pipeline(&Scope::All, nobody).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    world.node.cancel_pipeline(&Scope::All, id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_batch_calls_back() {
    let world = World::new().await;
    let batch = |last: Value| {
        let jobs = (0..20).map(|n| act_spec(json!(n))).chain([act_spec(last)]);
        let batch = Batch::new("b").jobs(jobs).on_success(act_spec(json!("yes")));
        batch.on_failure(act_spec(json!("oh"))).on_complete(act_spec(json!("end"))).build().unwrap()
    };
    let called = |states: BTreeMap<String, State>| {
        ["on-success", "on-failure", "on-complete"].map(|name| states[name] == State::Succeeded)
    };
    let well = world.run(&batch(json!(1))).await;
    assert_eq!(called(world.states(well).await), [true, false, true]);
    let badly = world.run(&batch(json!("fail"))).await;
    assert_eq!(called(world.states(badly).await), [false, true, true]);
    world.end().await;
}

#[tokio::test]
async fn dead_letters_are_listed_and_redriven_by_filter() {
    let world = World::new().await;
    let mut jobs = Vec::new();
    for n in 0..25 {
        let what = if n % 5 == 0 { json!("fatal") } else { json!("fail") };
        jobs.push(world.node.submit(NewJob::new(act_spec(what).build().unwrap())).await.unwrap());
    }
    for job in &jobs {
        world.node.wait(*job).await.unwrap();
    }
    let of = |class| DeadLetters::of(Query::new().limit(7)).class(class);
    let (mut fatal, mut after) = (0, None);
    loop {
        let (letters, next) =
            world.node.dead_letters(&Scope::All, &of(FailureClass::Fatal), after).await.unwrap();
        fatal += letters.len();
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(fatal, 5);
    world.state.mended.store(true, Ordering::Relaxed);
    let redrive = async |which: &DeadLetters, most| {
        world.node.redrive_dead_letters(&Scope::All, which, most).await.unwrap()
    };
    assert_eq!(redrive(&of(FailureClass::Error), 8).await, 8, "no more than asked for");
    assert_eq!(redrive(&of(FailureClass::Error), u64::MAX).await, 12);
    for job in &jobs {
        world.node.wait(*job).await.unwrap();
    }
    let (left, _) = world.node.dead_letters(&Scope::All, &DeadLetters::all(), None).await.unwrap();
    assert_eq!((left.len(), world.node.counts().await.unwrap().of(State::Succeeded)), (5, 20));
    world.end().await;
}
