//! Scaling of processes and of Kubernetes workloads, and the load that a store tells.
#![expect(clippy::unwrap_used, reason = "what a test sets up does not fail")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hodei_core::gateway::Offer;
use hodei_core::job::{
    Encoding, JobSpec, JobSpecBuilder, NewJob, Payload, Priority, Resources, Runs, Selector,
};
use hodei_core::store::{
    Coordination, Exchange, JobStore, MemoryStore, Pick, Retention, Scope, Served, SubmitOptions,
};
use hodei_core::text::TextMap;
use hodei_core::{ErrorKind, ManualClock, Name, OwnerId, Timestamp};
use hodei_sched::autoscale::{
    AgentProgram, Autoscaler, KubeScale, LoadReader, LocalProcesses, ScalePolicy, ScaleTarget, scale,
};
use tokio::sync::Mutex;

fn alive(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    for _ in 0..3_000 {
        if happened().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

fn shell(script: &str) -> AgentProgram {
    AgentProgram::new("/bin/sh").arg("-c").arg(script)
}

#[tokio::test]
async fn processes_are_started_numbered_and_drained() {
    let directory = tempfile::tempdir().unwrap();
    let note = "trap 'echo $HODEI_AGENT >> $DIR/drained; exit 0' TERM; touch $DIR/up$HODEI_AGENT; while kill -0 $PPID; do sleep 0.02; done";
    let agents = LocalProcesses::new(shell(note).env("DIR", directory.path()));
    agents.scale_to(3).await.unwrap();
    let ids = agents.ids().await;
    assert_eq!((agents.current().await.unwrap(), ids.len()), (3, 3));
    let up = |n: u32| directory.path().join(format!("up{n}")).exists();
    until("their start", async || (0..3).all(up)).await;
    agents.scale_to(3).await.unwrap();
    assert_eq!(agents.ids().await, ids, "nothing to do");
    agents.scale_to(1).await.unwrap();
    assert_eq!(agents.current().await.unwrap(), 1, "those that end do not count");
    until("their end", async || {
        agents.current().await.unwrap() == 1 && !ids[1..].iter().any(|id| alive(*id))
    })
    .await;
    let drained = std::fs::read_to_string(directory.path().join("drained")).unwrap();
    let mut drained: Vec<&str> = drained.lines().collect();
    drained.sort_unstable();
    assert_eq!(drained, ["1", "2"]);
    assert!(alive(ids[0]));
    agents.shutdown().await;
    assert!(!alive(ids[0]));
}

#[tokio::test]
async fn the_number_of_a_process_that_is_ending_is_not_given_to_another() {
    let directory = tempfile::tempdir().unwrap();
    let drains = "trap 'while [ ! -e $DIR/go ]; do sleep 0.02; done; exit 0' TERM; touch $DIR/up$HODEI_AGENT; while kill -0 $PPID; do sleep 0.02; done";
    let agents = LocalProcesses::new(shell(drains).env("DIR", directory.path()));
    let up = |n: u32| directory.path().join(format!("up{n}")).exists();
    agents.scale_to(2).await.unwrap();
    until("their start", async || (0..2).all(up)).await;
    agents.scale_to(1).await.unwrap();
    agents.scale_to(2).await.unwrap();
    until("the start of another", async || up(2)).await;
    std::fs::write(directory.path().join("go"), "").unwrap();
    agents.shutdown().await;
}

#[tokio::test]
async fn a_process_that_does_not_end_is_killed_after_its_grace() {
    let directory = tempfile::tempdir().unwrap();
    let program = shell("trap '' TERM; touch $DIR/up; while kill -0 $PPID; do sleep 0.02; done");
    let program = program.env("DIR", directory.path()).grace(Duration::from_millis(100));
    let agents = LocalProcesses::new(program);
    agents.scale_to(1).await.unwrap();
    let ids = agents.ids().await;
    until("its start", async || directory.path().join("up").exists()).await;
    agents.shutdown().await;
    assert!(!alive(ids[0]));
}

#[tokio::test]
async fn a_process_that_died_is_replaced_after_a_wait() {
    let agents = LocalProcesses::new(shell("exec sleep 1000"));
    agents.scale_to(2).await.unwrap();
    let ids = agents.ids().await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(ids[1]).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("its death", async || agents.current().await.unwrap() == 1).await;
    let error = agents.scale_to(2).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "it died young");
    until("its replacement", async || agents.scale_to(2).await.is_ok()).await;
    assert_eq!(agents.ids().await[0], ids[0]);
    agents.shutdown().await;
    let missing = LocalProcesses::new(AgentProgram::new("/no/such/agent"));
    assert_eq!(missing.scale_to(1).await.unwrap_err().kind(), ErrorKind::Io);
}

/// One that had lived for long made the waits forget, whatever became of those that were started.
#[tokio::test(start_paused = true)]
#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the test stands still, and a process ends by another one"
)]
async fn one_that_lives_hides_no_other_that_dies_at_once() {
    let agents = LocalProcesses::new(shell("[ $HODEI_AGENT = 0 ] && exec sleep 1000"));
    agents.scale_to(1).await.unwrap();
    tokio::time::advance(Duration::from_secs(11)).await;
    for wait in [1, 2, 4, 8] {
        agents.scale_to(2).await.unwrap();
        for _ in 0..30_000 {
            if agents.current().await.unwrap() == 1 {
                break;
            }
            // The process runs on another clock than this test.
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(agents.current().await.unwrap(), 1);
        tokio::time::advance(Duration::from_millis(wait * 1_000 - 1)).await;
        let error = agents.scale_to(2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "it died young: {wait}");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    agents.shutdown().await;
}

#[tokio::test]
async fn the_load_of_a_store_is_read_by_its_clock() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_000_000)));
    let store = MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock));
    let job = || NewJob::new(JobSpec::command(["true"]).build().unwrap());
    let later = job().run_at(Timestamp::from_micros(900_000_000));
    let cancelled = job();
    let gone = cancelled.id;
    let reader = LoadReader::new(&store, Scope::All);
    store.submit(vec![job(), job(), cancelled, later], SubmitOptions::each()).await.unwrap();
    store.request_cancel(&Scope::All, vec![gone]).await.unwrap();
    clock.advance(Duration::from_secs(7));
    let load = reader.read().await.unwrap();
    assert_eq!((load.queued, load.running, load.ended), (2, 0, 1));
    assert_eq!((load.oldest, load.at), (Duration::from_secs(7), Timestamp::from_micros(8_000_000)));
}

#[tokio::test]
async fn what_retention_removes_has_ended_all_the_same() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_000_000)));
    let store = MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock));
    let reader = LoadReader::new(&store, Scope::All);
    let job = NewJob::new(JobSpec::command(["true"]).build().unwrap());
    let id = job.id;
    store.submit(vec![job], SubmitOptions::each()).await.unwrap();
    store.request_cancel(&Scope::All, vec![id]).await.unwrap();
    assert_eq!(reader.read().await.unwrap().ended, 1);
    clock.advance(Duration::from_secs(30 * 86_400));
    let (owner, ttl) = (OwnerId::new("node").unwrap(), Duration::from_secs(60));
    let lease = store.register(&owner, ttl).await.unwrap();
    let term = store.take_term(&Name::literal("maintain"), &lease, ttl).await.unwrap().unwrap();
    assert_eq!(store.prune(&term, Retention::default(), 10).await.unwrap().gone.len(), 1);
    assert_eq!(reader.read().await.unwrap().ended, 1);
}

#[tokio::test]
async fn what_no_agent_could_run_is_no_load() {
    let store = MemoryStore::new();
    let large = JobSpec::command(["true"]).resources(Resources::none().memory(64 << 30)).build().unwrap();
    let handler = JobSpecBuilder::handler(Payload::Handler {
        kind: Name::literal("other"),
        version: 1,
        encoding: Encoding::Json,
        args: "1".into(),
    });
    let small = JobSpec::command(["true"]).resources(Resources::none().memory(1 << 30)).build().unwrap();
    let jobs = [large, handler.build().unwrap(), small].map(NewJob::new);
    store.submit(jobs.into(), SubmitOptions::each()).await.unwrap();
    let capacity = Resources::none().memory(8 << 30);
    let offer = Offer { runs: vec![Runs::Command], capacity, slots: 4, labels: TextMap::default() };
    let all = LoadReader::new(&store, Scope::All);
    assert_eq!(all.read().await.unwrap().queued, 3);
    assert_eq!(all.offer(offer).read().await.unwrap().queued, 1);
}

#[tokio::test]
async fn what_wants_other_labels_is_no_load_and_a_gang_is_one_for_each_of_its_workers() {
    let store = MemoryStore::new();
    let command = || JobSpec::command(["true"]);
    let gang = command().resources(Resources::none().workers(3).cpu_millis(100)).build().unwrap();
    let moon = command().require(Selector::is("zone", "moon")).build().unwrap();
    let not_here = command().require(Selector::NotIn("zone".into(), vec!["here".into()])).build().unwrap();
    let jobs = [gang, moon, not_here].map(NewJob::new);
    store.submit(jobs.into(), SubmitOptions::each()).await.unwrap();
    let queued = async |labels: &[(&str, &str)]| {
        let labels = TextMap::new(labels.iter().copied()).unwrap();
        let capacity = Resources::none().cpu_millis(1_000);
        let offer = Offer { runs: vec![Runs::Command], capacity, slots: 4, labels };
        LoadReader::new(&store, Scope::All).offer(offer).read().await.unwrap().queued
    };
    assert_eq!(queued(&[]).await, 3 + 1, "the gang, and what is not to be here");
    assert_eq!(queued(&[("zone", "moon")]).await, 3 + 1 + 1);
    assert_eq!(queued(&[("zone", "here")]).await, 3);
}

#[tokio::test]
async fn queues_that_are_scaled_apart_have_loads_apart() {
    let store = MemoryStore::new();
    let (fast, slow) = (Name::literal("fast"), Name::literal("slow"));
    let served = |queue: &Name| Served { queues: Some(vec![queue.clone()]), ..Served::default() };
    let reader = |queue| LoadReader::new(&store, Scope::All).served(served(queue));
    let (of_fast, of_slow) = (reader(&fast), reader(&slow));
    let job = |queue: &'static str| NewJob::new(JobSpec::command(["true"]).queue(queue).build().unwrap());
    store.submit(vec![job("fast"), job("fast"), job("slow")], SubmitOptions::each()).await.unwrap();
    let owner = store.register(&OwnerId::new("node").unwrap(), Duration::from_secs(60)).await.unwrap();
    let lanes = store.lanes(&served(&fast)).await.unwrap();
    let picks = lanes.heads.into_iter().map(|head| Pick {
        lane: head.lane,
        floor: Priority::MIN,
        ceiling: Priority::MAX,
        n: 2,
    });
    let exchange = Exchange { owner, transitions: Vec::new(), picks: picks.collect() };
    let held = store.exchange(exchange).await.unwrap().claimed;
    let load = async |reader: &LoadReader<'_>| {
        let load = reader.read().await.unwrap();
        (load.queued, load.running, load.ended)
    };
    assert_eq!((load(&of_fast).await, load(&of_slow).await), ((0, 2, 0), (1, 0, 0)));
    store.request_cancel(&Scope::All, vec![held[0].job.id]).await.unwrap();
    assert_eq!((load(&of_fast).await, load(&of_slow).await), ((0, 1, 1), (1, 0, 0)));
}

/// A target that only remembers.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<u32>>);

#[async_trait::async_trait]
impl ScaleTarget for Kept {
    async fn current(&self) -> hodei_core::Result<u32> {
        Ok(self.0.lock().await.last().copied().unwrap_or(0))
    }

    async fn scale_to(&self, agents: u32) -> hodei_core::Result<()> {
        self.0.lock().await.push(agents);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn work_in_a_store_scales_a_target_and_idleness_scales_it_to_zero() {
    let clock = Arc::new(ManualClock::at(Timestamp::EPOCH));
    let store = MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock));
    let jobs: Vec<NewJob> =
        (0..12).map(|_| NewJob::new(JobSpec::command(["true"]).build().unwrap())).collect();
    let ids = jobs.iter().map(|job| job.id).collect();
    let target = Kept::default();
    let policy = ScalePolicy::between(0, 5)
        .slots(4)
        .idle(Duration::from_secs(60))
        .down_window(Duration::from_secs(60));
    let all = Scope::All;
    let reader = LoadReader::new(&store, Scope::All).served(Served::default());
    let scaling =
        scale(&reader, &target, Autoscaler::new(policy).unwrap(), Duration::from_secs(1), |_, decision| {
            assert!(decision.is_ok(), "{decision:?}")
        });
    let life = async {
        let seconds = async |n: u64| {
            for _ in 0..n {
                clock.advance(Duration::from_secs(1));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        seconds(5).await;
        store.submit(jobs, SubmitOptions::each()).await.unwrap();
        seconds(5).await;
        assert_eq!(*target.0.lock().await, [3], "twelve jobs, four to an agent");
        store.request_cancel(&all, ids).await.unwrap();
        seconds(200).await;
        assert_eq!(target.0.lock().await.last(), Some(&0));
    };
    tokio::select! {
        () = scaling => {}
        () = life => {}
    }
}

/// A target that refuses a number of times.
#[derive(Debug)]
struct Refusing(Mutex<(u32, u32)>);

#[async_trait::async_trait]
impl ScaleTarget for Refusing {
    async fn current(&self) -> hodei_core::Result<u32> {
        Ok(self.0.lock().await.1)
    }

    async fn scale_to(&self, agents: u32) -> hodei_core::Result<()> {
        let mut state = self.0.lock().await;
        if state.0 > 0 {
            state.0 -= 1;
            return Err(hodei_core::Error::new(ErrorKind::Unavailable, "test.scale_to"));
        }
        state.1 = agents;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_target_refuses_is_tried_again_at_the_next_look() {
    let clock = Arc::new(ManualClock::at(Timestamp::EPOCH));
    let store = MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock));
    let job = NewJob::new(JobSpec::command(["true"]).build().unwrap());
    store.submit(vec![job], SubmitOptions::each()).await.unwrap();
    // It waits longer than it may, and the refusals last longer than a cooldown.
    clock.advance(Duration::from_secs(60));
    let target = Refusing(Mutex::new((20, 1)));
    let policy = ScalePolicy::between(0, 5).cooldown(Duration::from_secs(10));
    let reader = LoadReader::new(&store, Scope::All);
    let (mut refused, mut taken) = (0, Vec::new());
    let told = |_, decision: hodei_core::Result<hodei_sched::autoscale::Decision>| match decision {
        Ok(decision) => taken.push(decision.agents),
        Err(_) => refused += 1,
    };
    let scaling = scale(&reader, &target, Autoscaler::new(policy).unwrap(), Duration::from_secs(1), told);
    let life = async {
        for _ in 0..22 {
            clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = scaling => {}
        () = life => {}
    }
    assert_eq!((refused, taken), (20, vec![2]));
}

/// One call of a recorded exchange: what is expected of the request, and the reply.
struct Recorded {
    request: &'static str,
    body: &'static str,
    status: &'static str,
    reply: &'static str,
}

/// Plays an API server that was recorded, one call to a connection, and fails the test when it is asked anything else.
fn play(exchange: Vec<Recorded>) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for call in exchange {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let (mut buffer, mut expected) = ([0; 4_096], usize::MAX);
            while asked.len() < expected {
                let n = stream.read(&mut buffer).unwrap();
                assert!(n > 0, "the request was cut off");
                asked.extend_from_slice(&buffer[..n]);
                if let Some(end) = asked.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&asked[..end]).to_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    expected = end + 4 + length.map_or(0, |length| length.parse().unwrap());
                }
            }
            let asked = String::from_utf8(asked).unwrap();
            let (head, body) = asked.split_once("\r\n\r\n").unwrap();
            assert_eq!((head.lines().next().unwrap(), body), (call.request, call.body));
            let head = head.to_lowercase();
            assert!(head.contains("authorization: bearer secret"), "{head}");
            assert!(body.is_empty() || head.contains("content-type: application/merge-patch+json"), "{head}");
            let (status, reply) = (call.status, call.reply);
            let length = reply.len();
            let text = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{reply}"
            );
            stream.write_all(text.as_bytes()).unwrap();
        }
    });
    (address, server)
}

const GET: &str = "GET /apis/apps/v1/namespaces/jobs/deployments/agents/scale HTTP/1.1";
const PATCH: &str = "PATCH /apis/apps/v1/namespaces/jobs/deployments/agents/scale HTTP/1.1";

fn at_three() -> &'static str {
    r#"{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"agents","namespace":"jobs","uid":"4d0f9d2b-7c55-4b62-9d0a-1b1f6d4f6f11","resourceVersion":"81234","creationTimestamp":"2026-11-20T08:00:00Z"},"spec":{"replicas":3},"status":{"replicas":3,"selector":"app=agents"}}"#
}

fn at_zero() -> &'static str {
    r#"{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"agents","namespace":"jobs"},"spec":{},"status":{"replicas":3,"selector":"app=agents"}}"#
}

#[tokio::test]
async fn the_replicas_of_a_workload_are_read_and_patched() {
    let (server, played) = play(vec![
        Recorded { request: GET, body: "", status: "200 OK", reply: at_three() },
        Recorded { request: PATCH, body: r#"{"spec":{"replicas":0}}"#, status: "200 OK", reply: at_zero() },
        Recorded { request: GET, body: "", status: "200 OK", reply: at_zero() },
    ]);
    let agents = KubeScale::deployment(server, "jobs", "agents").token("secret").build().unwrap();
    assert_eq!(agents.current().await.unwrap(), 3);
    agents.scale_to(0).await.unwrap();
    assert_eq!(agents.current().await.unwrap(), 0, "the field is left out");
    assert!(!format!("{agents:?}").contains("secret"));
    played.join().unwrap();
}

#[tokio::test]
async fn a_refusal_says_what_the_server_says() {
    let forbidden = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"deployments.apps \"agents\" is forbidden","reason":"Forbidden","code":403}"#;
    let get = |status, reply| Recorded { request: GET, body: "", status, reply };
    let (server, played) = play(vec![
        get("403 Forbidden", forbidden),
        get("401 Unauthorized", "{}"),
        get("404 Not Found", "{}"),
        get("503 Service Unavailable", "gone fishing"),
        get("200 OK", "<html>"),
        get("200 OK", "{\"kind\":\"Deployment\",\"spec\":{\"replicas\":4}}"),
        Recorded { request: PATCH, body: r#"{"spec":{"replicas":5}}"#, status: "200 OK", reply: at_three() },
    ]);
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), "secret\n").unwrap();
    let agents = KubeScale::deployment(server, "jobs", "agents").token_file(path.path()).build().unwrap();
    let error = agents.current().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("is forbidden"), "{error}");
    for kind in
        [ErrorKind::Unauthenticated, ErrorKind::NotFound, ErrorKind::Unavailable, ErrorKind::Unavailable]
    {
        assert_eq!(agents.current().await.unwrap_err().kind(), kind);
    }
    assert_eq!(agents.current().await.unwrap_err().kind(), ErrorKind::Unavailable, "not a scale");
    assert_eq!(agents.scale_to(5).await.unwrap_err().kind(), ErrorKind::Conflict);
    played.join().unwrap();
    assert_eq!(agents.current().await.unwrap_err().kind(), ErrorKind::Unavailable, "nobody listens");
}

#[test]
fn what_cannot_be_a_workload_is_refused() {
    let good = || KubeScale::deployment("https://cluster:6443", "jobs", "agents");
    assert!(good().resource("hodei.dev/v1", "fleets").build().is_ok());
    for (builder, expected) in [
        (KubeScale::deployment("cluster", "jobs", "agents"), "server: no_url"),
        (KubeScale::deployment("https://c", "jo/bs", "agents"), "namespace: bad_char: jo/bs"),
        (KubeScale::deployment("https://c", "jobs", ".."), "name: bad_char: .."),
        (good().resource("apps", "deployments"), "group: bad_char: apps"),
        (good().authority("no certificate"), "authority: no_certificate"),
    ] {
        assert_eq!(builder.build().unwrap_err().faults()[0].to_string(), expected);
    }
}
