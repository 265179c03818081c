//! A store as text, and back.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use hodei_core::job::State;
use hodei_core::store::{Consistency, JobStore, LineCounts, Scope};
use hodei_core::{Clock, ErrorKind, Tenant};
use hodei_store_redb::RedbStore;

use crate::env::{Env, claim, job, job_of, owner, spec, submit, term};
use crate::faults::Worker;
use crate::shards::{seen, tenant_in};

/// What the file of schema 2 among the golden files says.
const GOLDEN: &str = include_str!("../golden/lines-1.jsonl");

/// A text that somebody writes on another thread.
#[derive(Clone, Debug, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn exported(store: &RedbStore) -> (String, LineCounts) {
    let text = Text::default();
    let counts = store.export(text.clone()).await.expect("the store is sound");
    let bytes = std::mem::take(&mut *text.0.lock().expect("nobody panicked"));
    (String::from_utf8(bytes).expect("it is text"), counts)
}

fn imported(text: &str) -> (Env, LineCounts) {
    let env = Env::new();
    let counts = env.builder().import(text.as_bytes()).expect("it is whole");
    (env, counts)
}

#[tokio::test]
async fn the_golden_file_is_written_as_ever_and_read_whole() {
    let env = Env::new();
    fs::write(env.path(), include_bytes!("../golden/store-schema-2.redb")).unwrap();
    let (text, _) = exported(&env.open()).await;
    assert!(text == GOLDEN, "the format is another; it would be:\n{text}");
    let (env, _) = imported(GOLDEN);
    assert!(exported(&env.open()).await.0 == GOLDEN);
}

#[tokio::test]
async fn whatever_a_store_keeps_comes_back_and_is_written_again_as_it_was() {
    for seed in 1..=12 {
        let env = Env::new();
        let store = env.open();
        let mut worker = Worker::new(seed, Arc::clone(&env.clock)).repeatable();
        for _ in 0..80 {
            worker.step(&store, &|| 0).await.unwrap();
        }
        let before = seen(&store).await.unwrap();
        let (text, counts) = exported(&store).await;
        assert_eq!(counts.jobs, store.counts(&Scope::All).await.unwrap());
        let (other, read) = imported(&text);
        assert_eq!(read, counts);
        other.clock.set(env.clock.now());
        let other = other.open();
        assert_eq!(other.verify_indexes().await.unwrap(), Vec::<String>::new(), "seed {seed}");
        assert_eq!(seen(&other).await.unwrap(), before, "seed {seed}");
        assert!(exported(&other).await.0 == text, "seed {seed}");
    }
}

#[tokio::test]
async fn an_imported_store_goes_on_where_the_other_was() {
    let env = Env::new();
    let store = env.open();
    // More than one transaction brings.
    let ids = submit(&store, (0..2_500).map(|_| job()).collect()).await;
    owner(&store, "first").await;
    let node = owner(&store, "node").await;
    assert_eq!(claim(&store, &node, 10).await.len(), 10);
    let (other, _) = imported(&exported(&store).await.0);
    let other = other.builder().open().unwrap();
    let late = owner(&other, "node").await;
    assert!(late.incarnation > node.incarnation, "nobody is taken for who held a job before");
    let duty = term(&other, "maintain", &late).await;
    assert_eq!(other.reap(&duty, 3, 100).await.unwrap().changes.len(), 10, "whoever held a job is dead");
    assert_eq!(claim(&other, &late, 3_000).await.len(), 1, "what was lost is claimed alone");
    let jobs = other.get_many(&Scope::All, ids, Consistency::Latest).await.unwrap();
    assert_eq!(jobs.into_iter().flatten().count(), 2_500);
    assert_eq!(other.verify_indexes().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_export_is_of_one_moment() {
    let env = Env::new();
    let store = env.open();
    submit(&store, (0..700).map(|_| job()).collect()).await;
    let text = Text::default();
    let exporting = tokio::spawn({
        let (store, text) = (store.clone(), text.clone());
        async move { store.export(text).await }
    });
    while !exporting.is_finished() {
        submit(&store, (0..7).map(|_| job()).collect()).await;
    }
    let counts = exporting.await.unwrap().unwrap();
    assert_eq!(counts.jobs.of(State::Pending) % 7, 0, "each batch whole or not at all");
    let bytes = text.0.lock().unwrap().clone();
    let (other, read) = imported(std::str::from_utf8(&bytes).unwrap());
    assert_eq!(read, counts);
    drop(other.open());
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_behind() {
    let env = Env::new();
    let (one, two) = (tenant_in(0, 2, 0), Tenant::default());
    let store = env.open();
    let jobs = vec![job_of(&two, spec()).unique("once"), job_of(&two, spec()), job_of(&one, spec())];
    submit(&store, jobs).await;
    let text = exported(&store).await.0;
    drop(store);
    let lines: Vec<&str> = text.lines().collect();
    let of = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let twice = of(&[lines[0], lines[1], lines[2], lines[1]]);
    let key = of(&[lines[0], lines[1], &lines[2].replace("\"unique\":null", "\"unique\":\"once\"")]);
    let queue = r#"{"line":"queue","tenant":"acme","queue":"q","paused":false,"weight":1}"#;
    let limit = r#"{"line":"limit","tenant":"acme","key":"k","max":1}"#;
    let cases = [
        (twice, "4", "id", "duplicate"),
        (key, "3", "unique", "duplicate"),
        (of(&[lines[0], queue, queue]), "3", "queue", "duplicate"),
        (of(&[lines[0], limit, limit]), "3", "limit", "duplicate"),
        (of(&lines[..3]), "3", "line", "cut_off"),
    ];
    for (text, line, field, code) in cases {
        let env = Env::new();
        let error = env.builder().import(text.as_bytes()).unwrap_err();
        let fault = &error.faults()[0];
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!((error.context("line"), fault.field.as_str(), fault.code), (Some(line), field, code));
        assert_eq!(fs::read_dir(env.dir.path()).unwrap().count(), 0, "nothing is left");
    }
    let taken = env.builder().import(text.as_bytes()).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    drop(env.open());
}

#[tokio::test]
async fn an_edge_from_nowhere_is_refused() {
    let env = Env::new();
    let store = env.open();
    let parent = job();
    let needs = hodei_core::job::Parent { id: parent.id, requires: hodei_core::job::Requires::Ended };
    let child = job().after([needs]);
    submit(&store, vec![parent.clone(), child]).await;
    let text = exported(&store).await.0;
    let without: String = text
        .lines()
        .filter(|line| !line.contains(&format!("\"id\":\"{}\"", parent.id)) || line.contains("\"edges\":[["))
        .map(|line| format!("{line}\n"))
        .collect();
    let without = without.replace("\"jobs\":[1,1,", "\"jobs\":[1,0,");
    let error = Env::new().builder().import(without.as_bytes()).unwrap_err();
    assert_eq!(error.faults()[0].code, "unknown_parent", "{error}");
}
