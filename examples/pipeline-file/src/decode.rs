//! Nodes become a pipeline: every field has its type and its limits.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    Limits, PipelineFile, Resources, Run, Step,
    error::{Fault, quoted},
    graph,
    name::{self, NAME_RULE},
    quantity,
    tree::Tree,
    value::{Entry, Fields, Value},
};

const FILE_FIELDS: [&str; 3] = ["name", "env", "steps"];
const STEP_FIELDS: [&str; 8] = ["id", "run", "needs", "env", "timeout", "retries", "resources", "outputs"];
const RESOURCE_FIELDS: [&str; 3] = ["cpu", "memory", "gpu"];

/// A step and what only the checks between steps use: the lines of its id and of each of its needs.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) step: Step,
    pub(crate) id_line: u64,
    pub(crate) need_lines: Vec<u64>,
}

/// Decodes the whole file; `stem` is the name if the file has none.
pub(crate) fn pipeline(tree: &Tree<'_>, stem: &str, limits: &Limits) -> Result<PipelineFile, Fault> {
    let root = Value::new(tree, tree.root(), "the file");
    let entries = root.entries("a mapping with \"steps\"")?;
    let fields = Fields::known(entries, "the file", "", &FILE_FIELDS)?;
    let name = match fields.get("name") {
        Some(name) => name.name()?.to_owned(),
        None if name::is_name(stem) => stem.to_owned(),
        None => {
            return Err(Fault::whole(format!(
                "the file needs a \"name\": its stem is not one ({NAME_RULE})"
            )));
        }
    };
    let env = fields.get("env").map_or_else(|| Ok(BTreeMap::new()), |value| env(value, limits))?;
    let steps = fields.get("steps").ok_or_else(|| root.fault("has no \"steps\""))?;
    Ok(PipelineFile { name, env, steps: graph::checked(drafts(steps, limits)?)? })
}

fn drafts(steps: &Value<'_>, limits: &Limits) -> Result<Vec<Draft>, Fault> {
    let items = steps.items("a list of steps")?;
    if items.is_empty() {
        return Err(steps.fault("is empty; a pipeline has at least one step"));
    }
    if items.len() > limits.steps {
        let mut file = steps.clone();
        file.relabel("the file");
        return Err(file.above(items.len(), "steps", limits.steps));
    }
    let mut drafts: Vec<Draft> = Vec::with_capacity(items.len());
    let mut first_lines: HashMap<String, u64> = HashMap::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let draft = draft(item, at + 1, limits)?;
        if let Some(first) = first_lines.insert(draft.step.id.clone(), draft.id_line) {
            let cause = format!("the id {} is there twice; first at line {first}", quoted(&draft.step.id));
            return Err(Fault::at(draft.id_line, cause));
        }
        drafts.push(draft);
    }
    Ok(drafts)
}

/// Decodes one step. Its id comes first, because all other complaints use it.
fn draft(mut item: Value<'_>, ordinal: usize, limits: &Limits) -> Result<Draft, Fault> {
    item.relabel(format!("step {ordinal}"));
    let entries = item.entries("a mapping with \"id\" and \"run\"")?;
    let (id, id_line) = step_id(&entries, &item, ordinal)?;
    let owner = format!("step {}", quoted(id));
    item.relabel(owner.clone());
    let fields = Fields::known(entries, &owner, &format!("{owner}: "), &STEP_FIELDS)?;
    let run = fields.get("run").ok_or_else(|| item.fault("has no \"run\""))?;
    let needs = fields.get("needs").map_or_else(|| Ok(Vec::new()), |value| needs(value, limits))?;
    let step = Step {
        id: id.to_owned(),
        run: self::run(run, limits)?,
        needs: needs.iter().map(|(id, _)| id.clone()).collect(),
        env: fields.get("env").map_or_else(|| Ok(BTreeMap::new()), |value| env(value, limits))?,
        timeout: fields.get("timeout").map(|value| timeout(value, limits)).transpose()?,
        retries: fields.get("retries").map_or(Ok(0), |value| value.integer(0..=limits.retries))?,
        resources: resources(fields.get("resources"), &owner, limits)?,
        outputs: fields.get("outputs").map_or_else(|| Ok(Vec::new()), |value| outputs(value, limits))?,
        line: item.line(),
    };
    Ok(Draft { step, id_line, need_lines: needs.into_iter().map(|(_, line)| line).collect() })
}

fn step_id<'t>(entries: &[Entry<'t>], item: &Value<'_>, ordinal: usize) -> Result<(&'t str, u64), Fault> {
    let entry = entries.iter().find(|entry| entry.key == "id");
    let mut id = entry.ok_or_else(|| item.fault("has no \"id\""))?.value.clone();
    id.relabel(format!("step {ordinal}: id"));
    Ok((id.name()?, id.line()))
}

fn run(value: &Value<'_>, limits: &Limits) -> Result<Run, Fault> {
    if value.list().is_none() {
        let script =
            value.string().map_err(|_| value.wrong_type("a string (a script) or a list (an argv)"))?;
        if script.trim().is_empty() {
            return Err(value.fault("is empty"));
        }
        return Ok(Run::Shell(script.to_owned()));
    }
    let items = value.items("a list")?;
    if items.len() > limits.argv_items {
        return Err(value.above(items.len(), "arguments", limits.argv_items));
    }
    let mut argv = Vec::with_capacity(items.len());
    for item in items {
        argv.push(item.string()?.to_owned());
    }
    match argv.first() {
        None => Err(value.fault("is an empty list; the first item is the program")),
        Some(program) if program.is_empty() => {
            Err(value.fault("has an empty program: the first item is \"\""))
        }
        Some(_) => Ok(Run::Argv(argv)),
    }
}

/// The ids that a step needs, with their lines.
fn needs(value: &Value<'_>, limits: &Limits) -> Result<Vec<(String, u64)>, Fault> {
    let items = value.items("a list of step ids")?;
    if items.len() > limits.needs_per_step {
        return Err(value.above(items.len(), "ids", limits.needs_per_step));
    }
    let ids = distinct(value, &items, Value::string)?;
    Ok(ids.into_iter().zip(items.iter().map(Value::line)).collect())
}

fn outputs(value: &Value<'_>, limits: &Limits) -> Result<Vec<String>, Fault> {
    let items = value.items("a list of names")?;
    if items.len() > limits.outputs_per_step {
        return Err(value.above(items.len(), "names", limits.outputs_per_step));
    }
    distinct(value, &items, Value::name)
}

/// Reads every item of `list` and refuses the second of two that are equal.
fn distinct<'t>(
    list: &Value<'_>,
    items: &[Value<'t>],
    read: impl Fn(&Value<'t>) -> Result<&'t str, Fault>,
) -> Result<Vec<String>, Fault> {
    let mut seen = HashSet::with_capacity(items.len());
    let one = |item: &Value<'t>| {
        let text = read(item)?;
        if !seen.insert(text) {
            return Err(Fault::at(item.line(), list.described(&format!("has {} twice", quoted(text)))));
        }
        Ok(text.to_owned())
    };
    items.iter().map(one).collect()
}

fn env(value: &Value<'_>, limits: &Limits) -> Result<BTreeMap<String, String>, Fault> {
    let entries = value.entries("a mapping of names to strings")?;
    if entries.len() > limits.env_entries {
        return Err(value.above(entries.len(), "variables", limits.env_entries));
    }
    let mut env = BTreeMap::new();
    for Entry { key, line, value: mut content } in entries {
        if let Some(wrong) = name::env_name_fault(key) {
            let cause = value.labelled(&format!("the variable name {} {wrong}", quoted(key)));
            return Err(Fault::at(line, cause));
        }
        content.relabel(value.labelled(key));
        let text = content.string()?;
        let (bytes, most) = (key.len() + 1 + text.len(), limits.string_bytes);
        if bytes > most {
            return Err(content.above(bytes, "bytes with its name", most));
        }
        env.insert(key.to_owned(), text.to_owned());
    }
    Ok(env)
}

fn timeout(value: &Value<'_>, limits: &Limits) -> Result<std::time::Duration, Fault> {
    value.quantity("a duration", |text| quantity::duration(text, limits.timeout))
}

fn resources(value: Option<&Value<'_>>, owner: &str, limits: &Limits) -> Result<Resources, Fault> {
    let Some(value) = value else {
        return Ok(Resources::default());
    };
    let entries = value.entries("a mapping with cpu, memory or gpu")?;
    let prefix = value.labelled("");
    let fields = Fields::known(entries, &format!("{owner}: resources"), &prefix, &RESOURCE_FIELDS)?;
    let cpu = |value: &Value<'_>| {
        value.quantity("a number of processors", |text| quantity::cpu_millis(text, limits.cpu_millis))
    };
    let memory = |value: &Value<'_>| {
        value.quantity("an amount of memory", |text| quantity::memory_bytes(text, limits.memory_bytes))
    };
    Ok(Resources {
        cpu_millis: fields.get("cpu").map_or(Ok(0), cpu)?,
        memory_bytes: fields.get("memory").map_or(Ok(0), memory)?,
        gpus: fields.get("gpu").map_or(Ok(0), |value| value.integer(0..=limits.gpus))?,
    })
}
