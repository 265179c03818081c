//! The index in memory is what the rows say, and contradictions among the rows are found.

use std::fs;
use std::time::Duration;

use hodei_core::job::{
    Failure, FailureClass, Finish, JobSummary, Lease, NewJob, Output, Parent, Priority, Requires, State,
};
use hodei_core::store::{
    Consistency, Coordination, JobStore, Limit, LimitOf, Move, Policies, Query, Retention, Scope, Store,
    SubmitOptions, Term,
};
use hodei_core::{Clock, JobId, Name, Tenant};
use hodei_store_redb::RedbStore;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use redb::{Database, ReadableTable, TableDefinition};

use crate::env::{Env, claim, job_of, owner, report, spec, tenant, term};
use crate::reopen::populate;

/// One step of a random life.
#[derive(Clone, Debug)]
enum Step {
    Submit { tenant: bool, n: usize, parent: Option<Index>, delay: u8, limited: bool },
    SubmitAndFail,
    Claim { n: u32 },
    Report { which: Index, how: u8 },
    Cancel(Index),
    Redrive(Index),
    Limit { of: u8, max: u32 },
    NoLimit(u8),
    Wait(u8),
    Reap,
    Prune,
    Retire,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let submit = (any::<bool>(), 1..5_usize, prop::option::of(any::<Index>()), 0..40_u8, any::<bool>());
    let submit = submit.prop_map(|(tenant, n, parent, delay, limited)| Step::Submit {
        tenant,
        n,
        parent,
        delay: delay.saturating_sub(20),
        limited,
    });
    prop_oneof![
        5 => submit,
        1 => Just(Step::SubmitAndFail),
        4 => (1..4_u32).prop_map(|n| Step::Claim { n }),
        8 => (any::<Index>(), 0..7_u8).prop_map(|(which, how)| Step::Report { which, how }),
        2 => any::<Index>().prop_map(Step::Cancel),
        2 => any::<Index>().prop_map(Step::Redrive),
        2 => (0..4_u8, 0..4_u32).prop_map(|(of, max)| Step::Limit { of, max }),
        1 => (0..4_u8).prop_map(Step::NoLimit),
        2 => (1..30_u8).prop_map(Step::Wait),
        2 => Just(Step::Reap),
        1 => Just(Step::Prune),
        1 => Just(Step::Retire),
        1 => Just(Step::Reopen),
    ]
}

fn limit_of(which: u8) -> LimitOf {
    match which {
        0 => LimitOf::All,
        1 => LimitOf::Tenant(Tenant::default()),
        2 => LimitOf::Queue(Tenant::default(), Name::literal("default")),
        _ => LimitOf::Key(Tenant::default(), Name::literal("db")),
    }
}

/// A store and what a random life knows of it.
struct Life {
    env: Env,
    store: RedbStore,
    node: Lease,
    term: Term,
    ids: Vec<JobId>,
}

impl Life {
    async fn new() -> Self {
        let env = Env::new();
        let store = env.builder().max_jobs(200).open().expect("a new file");
        let (node, term) = Self::begin(&store).await;
        Self { env, store, node, term, ids: Vec::new() }
    }

    async fn begin(store: &dyn Store) -> (Lease, Term) {
        let node = owner(store, "node").await;
        let term = term(store, "maintain", &node).await;
        (node, term)
    }

    fn pick(&self, which: &Index) -> Vec<JobId> {
        if self.ids.is_empty() { Vec::new() } else { vec![*which.get(&self.ids)] }
    }

    async fn submit(&mut self, of: (bool, usize), parent: Option<&Index>, delay: u8, limited: bool) {
        let tenant = if of.0 { Tenant::default() } else { tenant("b") };
        let parents = parent.map(|which| self.pick(which)).unwrap_or_default();
        let now = self.env.clock.now();
        let make = |n: usize| {
            let spec = spec().priority(Priority::new(30 + u8::try_from(n).expect("few")).expect("a level"));
            let job = job_of(&tenant, if limited { spec.limited_by("db") } else { spec });
            let needs = |id: &JobId| {
                let requires = if n == 1 { Requires::Ended } else { Requires::Success };
                Parent { id: *id, requires }
            };
            let job = job.after(parents.iter().map(needs)).unique(format!("{now}-{}", n / 2));
            let later = now.saturating_add(Duration::from_secs(u64::from(delay)));
            let job = if n == 2 { job.deadline(later) } else { job };
            if delay > 0 { job.run_at(later) } else { job }
        };
        let jobs: Vec<NewJob> = (0..of.1).map(make).collect();
        // A full store, an unknown parent and a key that is taken are part of life.
        if let Ok(done) = self.store.submit(jobs, SubmitOptions::each()).await {
            self.ids.extend(done.replies.iter().filter_map(|reply| match reply {
                hodei_core::store::Submitted::New(id) => Some(*id),
                _ => None,
            }));
        }
    }

    async fn report(&self, which: &Index, how: u8) {
        let held = self.store.leases_of(&self.node).await.expect("the store is sound");
        let Some(of) = (!held.is_empty()).then(|| which.get(&held)) else { return };
        let failure = Failure::new(FailureClass::Error, "so it goes");
        let mut finish = Finish::succeeded(Output::none());
        finish.spawn = vec![job_of(&of.job.tenant, spec())];
        let wait = Duration::from_secs(5);
        let step = match how {
            0 => Move::Started { lease: None },
            1 => Move::Finished(Box::new(Finish::succeeded(Output::none()))),
            2 => Move::Finished(Box::new(Finish::failed(failure))),
            3 => Move::Retried { failure, wait, manifest: None },
            4 => Move::Snoozed { wait },
            5 => Move::Returned,
            _ => Move::Preempted,
        };
        report(&self.store, &self.node, (of.job.id, of.job.epoch), step).await;
    }

    async fn take(&mut self, step: &Step) {
        let (store, sound) = (self.store.clone(), "the store is sound");
        match step {
            Step::Submit { tenant, n, parent, delay, limited } => {
                self.submit((*tenant, *n), parent.as_ref(), *delay, *limited).await;
            }
            Step::SubmitAndFail => {
                let jobs = vec![job_of(&tenant("c"), spec()), crate::group::huge()];
                store.submit(jobs, SubmitOptions::each()).await.expect_err("too large for a row");
            }
            Step::Claim { n } => drop(claim(&store, &self.node, *n).await),
            Step::Report { which, how } => self.report(which, *how).await,
            Step::Cancel(which) => {
                store.request_cancel(&Scope::All, self.pick(which)).await.expect(sound);
            }
            Step::Redrive(which) => {
                store.redrive(&Scope::All, self.pick(which)).await.expect(sound);
            }
            Step::Limit { of, max } => {
                store.set_limit(Limit::new(limit_of(*of), *max)).await.expect(sound);
            }
            Step::NoLimit(of) => {
                store.remove_limit(&limit_of(*of)).await.expect(sound);
            }
            Step::Wait(secs) => self.env.clock.advance(Duration::from_secs(u64::from(*secs))),
            Step::Reap => drop(store.reap(&self.term, 2, 3).await.expect(sound)),
            Step::Prune => self.prune().await,
            Step::Retire => {
                store.retire(&self.node).await.expect(sound);
                (self.node, self.term) = Self::begin(&store).await;
            }
            Step::Reopen => {
                drop(store);
                self.reopen().await;
            }
        }
    }

    async fn prune(&mut self) {
        self.env.clock.advance(Retention::KEYS_MIN);
        self.node = owner(&self.store, "node").await;
        self.term = term(&self.store, "maintain", &self.node).await;
        let retention = Retention { jobs: Duration::ZERO, changes: 7, ..Retention::default() };
        self.store.prune(&self.term, retention, 5).await.expect("the store is sound");
    }

    async fn reopen(&mut self) {
        let elsewhere = Env::new();
        // The file has to be free before it can be opened.
        self.store = elsewhere.open();
        self.store = self.env.builder().max_jobs(200).open().expect("the file is sound");
        (self.node, self.term) = Self::begin(&self.store).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_is_what_the_rows_say_after_any_life(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut life = Life::new().await;
            for step in &steps {
                life.take(step).await;
                let wrong = life.store.verify_indexes().await.unwrap();
                prop_assert_eq!(wrong, Vec::<String>::new(), "after {:?}", step);
                newest_are_the_last_of_the_oldest(&life.store, step).await?;
            }
            Ok(())
        })?;
    }
}

/// What lists begin with is kept in memory, newest first; oldest first it is read.
async fn newest_are_the_last_of_the_oldest(store: &RedbStore, step: &Step) -> Result<(), TestCaseError> {
    let states = std::iter::once(None).chain(State::ALL.map(Some));
    for state in states {
        let query = Query { state, ..Query::new().limit(7) };
        let newest = store.query(&Scope::All, query.clone()).await.expect("a page");
        let second = match newest.next {
            Some(next) => store.query(&Scope::All, query.clone().after(next)).await.expect("a page").jobs,
            None => Vec::new(),
        };
        let all =
            store.query(&Scope::All, query.oldest_first().limit(Query::LIMIT_MAX)).await.expect("a page");
        prop_assert!(all.next.is_none());
        let expected: Vec<JobSummary> = all.jobs.into_iter().rev().take(14).collect();
        prop_assert_eq!([newest.jobs, second].concat(), expected, "{:?} after {:?}", state, step);
    }
    Ok(())
}

/// The tables that follow from others, and those that every job has a row in.
const TABLES: [&str; 9] =
    ["ended", "open", "pipelines", "unique", "children", "counts", "born", "heads", "ends"];

/// Changes a table of a closed file past the store: takes its first row out, or puts a row in.
fn plant(env: &Env, table: &str, row: Option<&[u8]>) {
    let db = Database::create(env.path()).expect("nobody has it open");
    let txn = db.begin_write().expect("the file is sound");
    {
        let mut table = txn.open_table(TableDefinition::<&[u8], &[u8]>::new(table)).expect("bytes to bytes");
        match row {
            Some(key) => drop(table.insert(key, &[][..]).expect("room")),
            None => {
                let first = table.first().expect("a sound file").map(|(key, _)| key.value().to_vec());
                table.remove(first.expect("the table has a row").as_slice()).expect("a sound file");
            }
        }
    }
    txn.commit().expect("room");
}

/// What the store says of a file: that it is corrupt when it is opened, or what contradicts.
async fn findings(env: &Env) -> Vec<String> {
    match env.builder().open() {
        Ok(store) => store.verify_indexes().await.unwrap_or_else(|error| vec![error.to_string()]),
        Err(error) => vec![error.to_string()],
    }
}

#[tokio::test]
async fn a_row_too_few_and_a_row_too_many_are_found_in_every_table_of_jobs() {
    let env = Env::new();
    let store = env.open();
    populate(&env, &store).await;
    let step = job_of(&Tenant::default(), spec());
    let pipeline = hodei_core::PipelineId::mint(&Tenant::default(), &*env.clock);
    store.submit(vec![step.in_pipeline(pipeline)], SubmitOptions::each()).await.unwrap();
    assert_eq!(store.verify_indexes().await.unwrap(), Vec::<String>::new());
    drop(store);
    let whole = fs::read(env.path()).unwrap();
    for table in TABLES {
        for row in [None, Some(&[0xff; 48][..])] {
            fs::write(env.path(), &whole).unwrap();
            plant(&env, table, row);
            let found = findings(&env).await;
            assert!(!found.is_empty(), "{table} with {row:?} is told");
        }
    }
    fs::write(env.path(), &whole).unwrap();
    assert_eq!(findings(&env).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_open_job_that_lost_a_row_is_told_to_whoever_opens_or_reads_it() {
    for table in ["born", "heads", "open"] {
        let env = Env::new();
        let store = env.open();
        let node = owner(&store, "node").await;
        let ids = crate::env::submit(&store, vec![crate::env::job()]).await;
        assert_eq!(claim(&store, &node, 1).await.len(), 1);
        drop(store);
        plant(&env, table, None);
        let read = match env.builder().open() {
            Ok(store) => store.get_many(&Scope::All, ids, Consistency::Latest).await.map(drop),
            Err(error) => Err(error),
        };
        assert_eq!(read.unwrap_err().kind(), hodei_core::ErrorKind::Corrupt, "{table}");
    }
}

#[tokio::test]
async fn an_ended_job_that_lost_what_moves_is_told_to_whoever_reads_or_lists_it() {
    let env = Env::new();
    let store = env.open();
    let ids = crate::env::submit(&store, vec![crate::env::job(), crate::env::job()]).await;
    store.request_cancel(&Scope::All, ids.clone()).await.unwrap();
    drop(store);
    plant(&env, "heads", None);
    let store = env.open();
    let read = store.get_many(&Scope::All, ids, Consistency::Latest).await;
    assert_eq!(read.unwrap_err().kind(), hodei_core::ErrorKind::Corrupt);
    let listed = store.query(&Scope::All, Query::new()).await;
    assert_eq!(listed.unwrap_err().kind(), hodei_core::ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_change_that_is_not_there_is_told_to_whoever_follows() {
    let env = Env::new();
    let store = env.open();
    for _ in 0..2 {
        crate::env::submit(&store, vec![crate::env::job()]).await;
    }
    drop(store);
    plant(&env, "changes", None);
    let page = env.open().changes(&Scope::All, None, 10).await;
    assert_eq!(page.unwrap_err().kind(), hodei_core::ErrorKind::Corrupt);
}
