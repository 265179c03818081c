//! The manifests under `deploy/`: they parse, and say what the code says.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use hodei_core::job::{JobSpec, NewJob};
use hodei_core::store::{Coordination as _, JobStore as _, SubmitOptions};
use hodei_store_pg::PgStore;
use hodei_test_servers::Postgres;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Value, json};

use crate::house::root;

/// The documents of a manifest, as the values that an API server would make of them.
fn documents(name: &str) -> Vec<Value> {
    let text =
        fs::read_to_string(root().join("deploy/kubernetes").join(name)).expect("the manifest is there");
    read(&text).unwrap_or_else(|why| panic!("{name}: {why}"))
}

/// What is being read: the items of a list, or the pairs of a mapping and the key that waits for its value.
enum Open {
    List(Vec<Value>),
    Map(serde_json::Map<String, Value>, Option<String>),
}

fn read(text: &str) -> Result<Vec<Value>, String> {
    let (mut open, mut documents): (Vec<Open>, Vec<Value>) = (Vec::new(), Vec::new());
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let done = match event {
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(serde_json::Map::new(), None));
                continue;
            }
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(items)) => Value::Array(items),
                Some(Open::Map(pairs, None)) => Value::Object(pairs),
                _ => return Err("a key without a value".to_owned()),
            },
            Event::Alias(_) => return Err("an alias".to_owned()),
            _ => continue,
        };
        match open.last_mut() {
            None => documents.push(done),
            Some(Open::List(items)) => items.push(done),
            Some(Open::Map(pairs, key)) => match key.take() {
                None => *key = Some(done.as_str().ok_or("a key that is no text")?.to_owned()),
                Some(name) => {
                    if pairs.insert(name.clone(), done).is_some() {
                        return Err(format!("line {}: {name} comes twice", span.start.line()));
                    }
                }
            },
        }
    }
    Ok(documents)
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return json!(text);
    }
    match text {
        "true" => json!(true),
        "false" => json!(false),
        "" | "~" | "null" => Value::Null,
        _ => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
    }
}

/// The document of a kind.
fn of_kind(name: &str, kind: &str) -> Value {
    let found: Vec<Value> = documents(name).into_iter().filter(|document| document["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{name} has one {kind}");
    found.into_iter().next().unwrap_or_default()
}

fn files() -> Vec<String> {
    let entries = fs::read_dir(root().join("deploy/kubernetes")).expect("the manifests are there");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_document_has_a_version_a_kind_a_name_and_the_namespace() {
    let mut kinds = BTreeMap::new();
    for name in files() {
        for document in documents(&name) {
            let text = |value: &Value| value.as_str().map(str::to_owned).expect("a text");
            let (version, kind) = (text(&document["apiVersion"]), text(&document["kind"]));
            assert!(!text(&document["metadata"]["name"]).is_empty(), "{name}");
            assert_eq!(document["metadata"]["namespace"], "hodei", "{name}");
            kinds.insert(kind, version);
        }
    }
    let version = |kind: &str| kinds.get(kind).map(String::as_str);
    assert_eq!(version("Deployment"), Some("apps/v1"));
    assert_eq!(version("HorizontalPodAutoscaler"), Some("autoscaling/v2"));
    assert_eq!(version("ScaledObject"), Some("keda.sh/v1alpha1"));
}

#[test]
fn all_scale_the_same_workload() {
    let worker = of_kind("worker.yaml", "Deployment");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": worker["metadata"]["name"]});
    assert_eq!(of_kind("hpa.yaml", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"], target);
    assert_eq!(of_kind("keda.yaml", "ScaledObject")["spec"]["scaleTargetRef"], target);
    assert_eq!(worker["spec"]["replicas"], Value::Null, "applying it again scales nothing");
    let rule = &of_kind("scaler.yaml", "Role")["rules"][0];
    assert_eq!(
        (&rule["resourceNames"][0], &rule["resources"][0]),
        (&target["name"], &json!("deployments/scale"))
    );
    assert_eq!(rule["verbs"], json!(["get", "patch"]), "what KubeScale calls");
    assert_eq!(worker["spec"]["selector"]["matchLabels"], worker["spec"]["template"]["metadata"]["labels"]);
}

#[test]
fn bounds_and_metrics_are_what_their_controllers_take() {
    let hpa = &of_kind("hpa.yaml", "HorizontalPodAutoscaler")["spec"];
    let (min, max) = (hpa["minReplicas"].as_i64(), hpa["maxReplicas"].as_i64());
    assert!(min.is_some_and(|min| min >= 1) && max > min);
    assert_eq!(hpa["metrics"][0]["resource"]["target"]["type"], "Utilization");
    let requests =
        &of_kind("worker.yaml", "Deployment")["spec"]["template"]["spec"]["containers"][0]["resources"];
    assert!(requests["requests"]["cpu"].is_string(), "a use of what was requested needs a request");
    let keda = &of_kind("keda.yaml", "ScaledObject")["spec"];
    let trigger = &keda["triggers"][0];
    let values = trigger["metadata"].as_object().expect("a mapping").values();
    assert!(values.clone().count() == 3 && values.clone().all(Value::is_string), "KEDA takes texts only");
    assert_eq!(
        trigger["authenticationRef"]["name"],
        of_kind("keda.yaml", "TriggerAuthentication")["metadata"]["name"]
    );
    let grace =
        of_kind("worker.yaml", "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            .as_i64();
    assert!(keda["cooldownPeriod"].as_i64() > grace);
}

/// The query that tells how much there is to do.
fn query_of(keda: &Value) -> String {
    keda["spec"]["triggers"][0]["metadata"]["query"].as_str().expect("a query").to_owned()
}

/// Only nodes make delayed jobs ready, so where there are none, those that are due have to wake one.
#[tokio::test]
async fn the_trigger_counts_what_is_due_where_there_is_no_node() {
    let postgres = Postgres::shared().expect("PostgreSQL");
    let database = postgres.database().expect("a database");
    let store = PgStore::builder(database.url()).connections(2).connect().await.expect("the store opens");
    let query = query_of(&of_kind("keda.yaml", "ScaledObject"));
    let count = || postgres.sql(database.name(), &query).expect("the query is answered");
    let day = Duration::from_secs(86_400);
    let due = store.now().await.expect("the time").saturating_add(day);
    let job = || NewJob::new(JobSpec::command(["true"]).build().expect("a valid spec"));
    let jobs = vec![job().run_at(due), job().run_at(due.saturating_add(day))];
    store.submit(jobs, SubmitOptions::each()).await.expect("the store takes them");
    assert_eq!(count(), "0", "they are delayed");
    // A day passes.
    let passes = format!("UPDATE hodei.delayed SET eligible_at = eligible_at - {}", day.as_micros());
    postgres.sql(database.name(), &passes).expect("it is changed");
    assert_eq!(count(), "1", "the first one is due");
    store.submit(vec![job()], SubmitOptions::each()).await.expect("the store takes it");
    assert_eq!(count(), "2", "and one is ready");
    store.close().await;
}

#[test]
fn who_scales_to_zero_is_told_of_schedules() {
    let manifest = fs::read_to_string(root().join("deploy/kubernetes/keda.yaml")).expect("the manifest");
    assert!(manifest.contains("# At least 1 where there are schedules (cron)"), "beside minReplicaCount: 0");
    assert_eq!(of_kind("keda.yaml", "ScaledObject")["spec"]["minReplicaCount"], 0);
    let readme = fs::read_to_string(root().join("deploy/README.md")).expect("the text beside it");
    assert!(readme.contains("with schedules set `minReplicaCount: 1`"));
}

#[test]
fn the_trigger_asks_for_tables_that_the_store_has() {
    let schema = fs::read_to_string(root().join("hodei-store-pg/src/schema/tables.sql")).expect("the schema");
    let keda = of_kind("keda.yaml", "ScaledObject");
    let query = query_of(&keda);
    let tables: Vec<&str> =
        query.split("FROM ").skip(1).filter_map(|rest| rest.split([')', ' ']).next()).collect();
    assert_eq!(tables, ["hodei.ready", "hodei.leased", "hodei.delayed"]);
    for table in tables {
        assert!(schema.contains(&format!("CREATE TABLE {table} (")), "{table} is in the schema");
    }
}

#[test]
fn a_manifest_that_is_wrong_is_found() {
    assert!(read("a: 1\na: 2\n").is_err());
    assert!(read("a: [1\n").is_err());
    assert!(read("a: &b 1\nc: *b\n").is_err());
    assert_eq!(
        read("a: \"1\"\nb: [x, 2]\n---\nc: yes\n").unwrap(),
        [json!({"a": "1", "b": ["x", 2]}), json!({"c": "yes"})]
    );
}
