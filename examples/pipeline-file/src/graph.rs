//! What the steps need of one another: every need is another step, and no step waits for itself.

use std::collections::HashMap;

use crate::{
    Step,
    decode::Draft,
    error::{Fault, quoted},
    name,
};

/// The most ids of a cycle that a message shows.
const SHOWN_IDS: usize = 32;

/// Checks the needs of all steps, in time that grows with steps and needs.
pub(crate) fn checked(drafts: Vec<Draft>) -> Result<Vec<Step>, Fault> {
    let edges = edges(&drafts)?;
    if let Some(cycle) = find_cycle(&edges) {
        return Err(cycle_fault(&drafts, &cycle));
    }
    Ok(drafts.into_iter().map(|draft| draft.step).collect())
}

/// The needs of each step as places in the file.
fn edges(drafts: &[Draft]) -> Result<Vec<Vec<usize>>, Fault> {
    let places: HashMap<&str, usize> =
        drafts.iter().enumerate().map(|(place, draft)| (draft.step.id.as_str(), place)).collect();
    let place_of = |draft: &Draft, need: &str, line: u64| match places.get(need) {
        Some(_) if need == draft.step.id => {
            Err(Fault::at(line, format!("step {} needs itself", quoted(need))))
        }
        Some(&place) => Ok(place),
        None => Err(unknown_need(drafts, draft, need, line)),
    };
    let needs_of = |draft: &Draft| {
        let needs = draft.step.needs.iter().zip(&draft.need_lines);
        needs.map(|(need, &line)| place_of(draft, need, line)).collect()
    };
    drafts.iter().map(needs_of).collect()
}

fn unknown_need(drafts: &[Draft], draft: &Draft, need: &str, line: u64) -> Fault {
    let others = drafts.iter().map(|other| other.step.id.as_str()).filter(|id| *id != draft.step.id);
    let hint = name::suggestion(need, others).unwrap_or_default();
    let cause = format!("step {} needs {}, which no step has{hint}", quoted(&draft.step.id), quoted(need));
    Fault::at(line, cause)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    OnPath,
    Done,
}

/// Walks depth first with a stack of its own; the first way back onto the path is a cycle.
fn find_cycle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut marks = vec![Mark::New; edges.len()];
    let mut path: Vec<(usize, usize)> = Vec::new();
    for start in 0..edges.len() {
        if marks[start] == Mark::New {
            marks[start] = Mark::OnPath;
            path.push((start, 0));
        }
        while let Some((step, next)) = path.last_mut() {
            let Some(&need) = edges[*step].get(*next) else {
                marks[*step] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match marks[need] {
                Mark::Done => {}
                Mark::New => {
                    marks[need] = Mark::OnPath;
                    path.push((need, 0));
                }
                Mark::OnPath => {
                    let on_cycle = path.iter().map(|&(step, _)| step).skip_while(|&step| step != need);
                    return Some(on_cycle.collect());
                }
            }
        }
    }
    None
}

/// Tells the cycle from its first step in the file; `a -> b` reads "a needs b".
fn cycle_fault(drafts: &[Draft], cycle: &[usize]) -> Fault {
    let first = cycle.iter().copied().min().unwrap_or(0);
    let turn = cycle.iter().position(|&step| step == first).unwrap_or(0);
    let round = cycle.iter().cycle().skip(turn).take(cycle.len());
    let mut ids: Vec<&str> = round.map(|&step| drafts[step].step.id.as_str()).take(SHOWN_IDS).collect();
    let hidden = format!("({} more)", cycle.len() - ids.len());
    if cycle.len() > ids.len() {
        ids.push(&hidden);
    }
    ids.push(&drafts[first].step.id);
    Fault::at(drafts[first].step.line, format!("cycle: {}", ids.join(" -> ")))
}
