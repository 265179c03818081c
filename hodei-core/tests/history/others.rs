//! Histories of what others wrote down: a change log, and the ids that a process acknowledged before it was killed.

use hodei_core::job::{Cause, NewJob, State};
use hodei_core::store::{Change, JobStore, MemoryStore, QueueQuery, Scope, SubmitOptions};
use hodei_core::testkit::history::{History, Invariant, Recorder, RecordingStore, Survey, check};
use hodei_core::testkit::typical_job;

/// Stores jobs and reads the log and the rows back, as after a restart.
fn stored(jobs: &[NewJob]) -> Survey {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    runtime.block_on(async {
        let store = MemoryStore::new();
        store.submit(jobs.to_vec(), SubmitOptions::each()).await.expect("an answer");
        let ids = jobs.iter().map(|job| job.id).collect();
        let rows = store.get_many(&Scope::All, ids, hodei_core::store::Consistency::Latest).await;
        Survey {
            changes: store.changes(&Scope::All, None, 1_000).await.expect("an answer").changes,
            jobs: Some(rows.expect("an answer").into_iter().flatten().collect()),
            counts: Some(store.counts(&Scope::All).await.expect("an answer")),
            queues: Some(store.queue_counts(&Scope::All, QueueQuery::new()).await.expect("an answer")),
            limits: Vec::new(),
        }
    })
}

#[test]
fn acknowledged_ids_and_a_log_are_enough() {
    let jobs = [typical_job(), typical_job()];
    let mut history = History::new();
    jobs.iter().for_each(|job| history.acknowledged(job.id));
    history.restarted();
    let survey = stored(&jobs);
    history.surveyed(Survey { changes: survey.changes.clone(), ..Survey::default() });
    history.surveyed(survey);
    let report = check(&history);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.figures.jobs, report.figures.acknowledged), (2, 2));
}

#[test]
fn an_acknowledged_id_that_the_log_lacks_is_lost() {
    let jobs = [typical_job(), typical_job()];
    for rows in [false, true] {
        let mut history = History::new();
        jobs.iter().for_each(|job| history.acknowledged(job.id));
        let survey = stored(&jobs[..1]);
        let kept = survey.jobs.clone().filter(|_| rows);
        history.surveyed(Survey { jobs: kept, counts: None, queues: None, ..survey });
        let report = check(&history);
        assert!(report.violations.iter().all(|v| v.invariant == Invariant::NoLostAck), "{report}");
        assert_eq!(report.violations[0].job, Some(jobs[1].id), "{report}");
    }
}

#[test]
fn a_job_that_nobody_attempted_is_a_phantom() {
    let jobs = [typical_job(), typical_job()];
    let mut history = History::new();
    history.attempted(&jobs[0]);
    history.surveyed(stored(&jobs));
    let report = check(&history);
    assert_eq!(report.violations.len(), 1, "{report}");
    assert_eq!(
        (report.violations[0].invariant, report.violations[0].job),
        (Invariant::NoPhantom, Some(jobs[1].id))
    );
}

#[test]
fn a_log_with_a_job_that_ends_twice_is_not_legal() {
    let jobs = [typical_job()];
    let mut survey = stored(&jobs);
    let first = survey.changes[0].clone();
    let end = Change {
        version: 2,
        from: Some(State::Pending),
        to: State::Cancelled,
        cause: Cause::Cancelled,
        epoch: first.epoch.next(),
        ..first
    };
    let again = Change { version: 3, from: Some(State::Cancelled), ..end.clone() };
    survey.changes.extend([end, again]);
    let mut history = History::new();
    history.surveyed(Survey { changes: survey.changes, ..Survey::default() });
    let report = check(&history);
    assert_eq!(report.violations.len(), 1, "{report}");
    assert!(report.breaks(Invariant::LegalPath), "{report}");
}

#[test]
fn what_a_later_process_recorded_continues_the_history() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let store = MemoryStore::new();
    let mut histories = Vec::new();
    for _ in 0..2 {
        // Each process counts its calls from zero.
        let recording = RecordingStore::new(store.clone(), Recorder::new());
        runtime.block_on(async {
            recording.submit(vec![typical_job()], SubmitOptions::each()).await.expect("an answer");
            recording.survey().await.expect("an answer");
        });
        histories.push(recording.recorder().history());
    }
    let mut whole = histories.remove(0);
    whole.continued(histories.remove(0));
    let report = check(&whole);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.figures.calls, report.figures.acknowledged), (2, 2));
}

#[test]
fn a_report_reads_as_text() {
    let mut history = History::new();
    history.acknowledged(typical_job().id);
    history.surveyed(Survey::default());
    let text = check(&history).to_string();
    assert!(text.starts_with("1 violations in 0 transitions of 0 jobs, 1 acknowledged"), "{text}");
    assert!(text.contains("I1 no lost acknowledgement: job "), "{text}");
}
