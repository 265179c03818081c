//! Sessions: who is heard, what is said again, what is acknowledged.

use std::time::Duration;

use hodei_core::gateway::{Desired, News, RunningJob, SessionState, StopCause};
use hodei_core::job::{Epoch, Finish, Resources, State};
use hodei_core::store::{Applied, Exchanged, JobStore, Move, Redriven, Scope};
use hodei_core::{ErrorKind, Name};

use super::world::{Agent, World, assigned, command, now, success, whichever};
use crate::machine::{Effect, Input};

#[test]
fn a_job_goes_to_the_agent_that_waits_for_it() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    assert!(world.sync(&mut agent).is_none(), "nothing to say");
    let jobs = world.submit(command(), 1);
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!((assigned(&heard), world.job(jobs[0]).state), (jobs, State::Scheduled));
}

#[test]
fn a_call_without_news_is_answered_in_time() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    assert!(world.sync(&mut agent).is_none());
    world.pass(Duration::from_millis(1_999));
    assert!(world.hear(&mut agent).is_none());
    world.pass(Duration::from_millis(1));
    let heard = world.hear(&mut agent).expect("its time is over").expect("an answer");
    assert_eq!((heard.assign.len(), heard.next_sync), (0, Duration::from_secs(2)));
}

#[test]
fn an_agent_that_lost_the_answer_to_its_wait_does_not_wait_as_long_again() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    assert!(world.sync(&mut agent).is_none());
    world.pass(Duration::from_secs(2));
    // It hangs up, for it has something to tell, while the answer is on its way.
    let heard = world.sync(&mut agent).expect("it is told that its node is there").expect("an answer");
    assert_eq!((heard.number, heard.assign.len()), (2, 0));
    assert!(world.sync(&mut agent).is_none(), "it has heard, and waits");
}

#[test]
fn what_a_lost_reply_said_is_said_again() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 2);
    let before = agent.state.clone();
    let first = world.news(&mut agent);
    agent.state = before;
    agent.state.seq += 1;
    let again = world.news(&mut agent);
    assert_eq!((assigned(&first), assigned(&again)), (jobs.clone(), jobs));
    assert!(again.number > first.number);
    assert!(world.sync(&mut agent).is_none(), "it was seen, and is not said a third time");
}

#[test]
fn a_report_is_taken_in_once_however_often_it_is_said() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    agent.report(jobs[0], success());
    let said = agent.state.reports.clone();
    for _ in 0..3 {
        agent.state.reports = said.clone();
        world.sync(&mut agent);
    }
    let ends = world.exchanges.iter().flat_map(|exchange| &exchange.transitions);
    assert_eq!(ends.filter(|transition| matches!(transition.step, Move::Finished(_))).count(), 1);
    assert_eq!((world.job(jobs[0]).state, world.job(jobs[0]).version), (State::Succeeded, 3));
}

#[test]
fn a_report_is_acknowledged_when_it_is_durable_and_not_before() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 2);
    world.news(&mut agent);
    world.hold = true;
    agent.report(jobs[0], success());
    agent.report(jobs[1], News::Started);
    assert!(world.sync(&mut agent).is_none(), "the store has not answered");
    world.pass(Duration::from_secs(2));
    let heard = world.hear(&mut agent).expect("its time is over").expect("an answer");
    assert_eq!((heard.received, heard.acked), (2, 0));
    world.let_go();
    let heard = world.news(&mut agent);
    assert_eq!((heard.received, heard.acked), (2, 2));
}

#[test]
fn a_report_that_is_not_durable_is_not_acknowledged_with_a_later_one_that_is() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 2);
    world.news(&mut agent);
    world.hold = true;
    jobs.iter().for_each(|job| agent.report(*job, success()));
    world.sync(&mut agent);
    world.call_that(|call| matches!(call, Effect::Exchange(_)));
    let applied = vec![Applied::Unavailable, Applied::Done];
    world.tell(Input::Exchanged(Ok(Exchanged { applied, ..Exchanged::default() })));
    world.let_go();
    world.pass(Duration::from_millis(49));
    assert_eq!(world.hear(&mut agent), None, "nothing is acknowledged");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.hear(&mut agent).expect("news").expect("an answer").acked, 2);
    assert_eq!(world.job(jobs[0]).state, State::Succeeded);
}

#[test]
fn a_lease_that_was_lost_under_an_older_epoch_stops_no_run_of_a_newer_one() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    world.hold = true;
    agent.report(jobs[0], News::Started);
    world.sync(&mut agent);
    world.call_that(|call| matches!(call, Effect::Exchange(_)));
    // The start is told again later; meanwhile the run goes back, and comes again under the next epoch.
    let applied = vec![Applied::Unavailable];
    world.tell(Input::Exchanged(Ok(Exchanged { applied, ..Exchanged::default() })));
    agent.report(jobs[0], News::Returned);
    world.sync(&mut agent);
    world.let_go();
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!((assigned(&heard), heard.assign[0].job.epoch.number()), (jobs.clone(), 2));
    assert!(world.sync(&mut agent).is_none());
    world.pass(Duration::from_millis(50));
    let heard = world.hear(&mut agent).expect("the start is settled").expect("an answer");
    assert_eq!((heard.acked, heard.stop), (2, Vec::new()));
    agent.finish_all();
    world.sync(&mut agent);
    assert_eq!(world.job(jobs[0]).state, State::Succeeded);
}

#[test]
fn an_overtaken_call_is_cancelled_and_its_state_ignored() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    assert!(world.sync(&mut agent).is_none());
    let first = agent.ticket;
    agent.state.seq += 1;
    world.sync(&mut agent);
    let second = std::mem::replace(&mut agent.ticket, first);
    assert_eq!(world.hear(&mut agent), Some(Err(ErrorKind::Cancelled)), "a later call took its place");
    agent.state.seq = 0;
    assert_eq!(world.sync(&mut agent), Some(Err(ErrorKind::Cancelled)), "it was overtaken on its way");
    agent.ticket = second;
    world.submit(command(), 1);
    assert!(world.hear(&mut agent).expect("news").is_ok(), "the later call still waits");
}

#[test]
fn an_earlier_life_of_a_worker_is_refused() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let mut next = agent.reborn();
    world.sync(&mut next);
    assert_eq!(world.sync(&mut agent), Some(Err(ErrorKind::Conflict)));
}

#[test]
fn a_later_life_of_a_worker_takes_over() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    assert!(world.sync(&mut agent).is_none());
    let mut next = agent.reborn();
    let heard = world.news(&mut next);
    assert_eq!(world.hear(&mut agent), Some(Err(ErrorKind::Conflict)), "the old life is told");
    assert_eq!((assigned(&heard), heard.assign[0].job.epoch.number()), (jobs, 2));
}

#[test]
fn a_run_that_nobody_knows_is_stopped() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    let stale = RunningJob { epoch: Epoch::from_number(9), ..agent.state.running[0].clone() };
    agent.state.running.push(stale.clone());
    let heard = world.news(&mut agent);
    let told: Vec<_> = heard.stop.iter().map(|stop| (stop.job, stop.epoch, stop.why)).collect();
    assert_eq!(told, [(jobs[0], stale.epoch, StopCause::LeaseLost)]);
}

#[test]
fn each_reply_names_what_is_to_be_stopped_until_it_runs_no_more() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 4));
    let jobs = world.submit(command(), 2);
    world.news(&mut agent);
    let stale = RunningJob { epoch: Epoch::from_number(9), ..agent.state.running[0].clone() };
    agent.state.running.push(stale.clone());
    assert!(world.sync(&mut agent).is_some(), "it is told to stop what nobody knows");
    world.tell(Input::Cancelled(whichever(&jobs[1..])));
    let told = |heard: &Desired| -> Vec<_> {
        heard.stop.iter().map(|stop| (stop.job, stop.epoch, stop.why)).collect()
    };
    let unknown = (jobs[0], stale.epoch, StopCause::LeaseLost);
    let cancelled = (jobs[1], agent.state.running[1].epoch, StopCause::Cancelled);
    assert_eq!(told(&world.news(&mut agent)), [unknown, cancelled]);
    assert!(world.sync(&mut agent).is_none(), "that they have not ended yet is no news");
    world.submit(command(), 1);
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!((heard.assign.len(), told(&heard)), (1, vec![unknown, cancelled]));
    agent.state.running.retain(|run| *run != stale);
    agent.report(jobs[0], success());
    assert_eq!(told(&world.news(&mut agent)), [cancelled]);
    agent.report(jobs[1], News::Ended(Box::new(Finish::cancelled())));
    assert_eq!(told(&world.news(&mut agent)), []);
}

#[test]
fn what_a_lost_reply_said_is_to_be_stopped_is_said_again_at_once() {
    // The reply is lost, or the agent has heard another node since and so ignores it.
    for heard_elsewhere in [0, 7] {
        let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
        let jobs = world.submit(command(), 1);
        world.news(&mut agent);
        assert!(world.sync(&mut agent).is_none());
        let seen = agent.state.seen;
        world.tell(Input::Cancelled(whichever(&jobs)));
        let first = world.hear(&mut agent).expect("news").expect("an answer");
        agent.state.seen = seen + heard_elsewhere;
        let again = world.news(&mut agent);
        assert_eq!((first.stop.len(), &again.stop), (1, &first.stop));
        assert!(world.sync(&mut agent).is_none(), "it was seen, and is said with the next news");
    }
}

#[test]
fn what_is_assigned_is_not_to_be_stopped_any_more() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 2));
    world.hold = true;
    let jobs = world.submit(command(), 1);
    agent.runs(jobs[0], 1, Resources::none());
    assert_eq!(world.news(&mut agent).stop.len(), 1, "nobody has a lease for it yet");
    assert!(world.sync(&mut agent).is_none());
    world.let_go();
    let heard = world.hear(&mut agent).expect("news").expect("an answer");
    assert_eq!((heard.assign[0].job.epoch, heard.stop), (Epoch::from_number(1), Vec::new()));
}

#[test]
fn a_run_is_stopped_although_another_nodes_reply_had_the_number_of_the_one_that_said_so() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 8));
    let mut other = World::beside(&world, "other");
    let first = world.submit(command(), 1);
    world.news(&mut agent);
    assert!(world.sync(&mut agent).is_none());
    // The next call is long on its way, and the answer to this one comes before it arrives.
    let mut late = agent.state.clone();
    late.seq += 1;
    let second = world.submit(command(), 1);
    let one = world.hear(&mut agent).expect("news").expect("an answer");
    let now = std::mem::replace(&mut agent.state, late);
    let same = other.news(&mut agent);
    assert_eq!((one.number, same.number, same.stop[0].job), (2, 2, first[0]));
    // It ignores that.
    agent.state = SessionState { seq: agent.state.seq, ..now };
    let stopped: Vec<_> = other.news(&mut agent).stop.iter().map(|stop| stop.job).collect();
    assert_eq!(stopped, [first, second].concat());
}

#[test]
fn a_run_whose_lease_was_lost_is_stopped_and_its_end_not_reported() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    let jobs = world.submit(command(), 1);
    world.news(&mut agent);
    // Scheduled in the store still: cancelled at once, under a higher epoch.
    world.cancel_in_store(jobs[0]);
    agent.report(jobs[0], News::Started);
    let heard = world.news(&mut agent);
    assert_eq!(heard.stop.iter().map(|stop| stop.why).collect::<Vec<_>>(), [StopCause::LeaseLost]);
    let before = world.exchanges.len();
    agent.report(jobs[0], success());
    let heard = world.news(&mut agent);
    assert_eq!((heard.acked, world.exchanges.len()), (2, before), "acknowledged, and nothing written");
    assert_eq!(world.job(jobs[0]).state, State::Cancelled);
}

#[test]
fn an_agent_that_comes_back_is_heard_although_it_has_seen_many_replies() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    for _ in 0..3 {
        world.submit(command(), 1);
        world.news(&mut agent);
        agent.finish_all();
        world.sync(&mut agent);
    }
    let seen = agent.state.seen;
    world.pass(Duration::from_secs(60));
    assert_eq!(world.machine.workers().count(), 0, "it was silent too long");
    let jobs = world.submit(command(), 1);
    let heard = world.news(&mut agent);
    assert!(heard.number > seen, "an agent ignores a reply that is not new");
    assert_eq!((agent.jobs(), heard.received), (jobs, 0));
}

#[test]
fn an_agent_whose_calls_take_each_others_place_is_answered_in_time() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 1));
    world.submit(command(), 1);
    world.news(&mut agent);
    // As one does that tells how far its runs are: each call takes the place of the one before.
    let mut answers = 0;
    for _ in 0..40 {
        world.sync(&mut agent);
        world.pass(Duration::from_millis(100));
        answers += usize::from(world.hear(&mut agent).is_some_and(|answer| answer.is_ok()));
    }
    assert_eq!(answers, 2, "once in two seconds: else it would take its node for dead");
}

#[test]
fn an_offer_is_shown_while_the_agent_is_heard_of() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 3));
    assert_eq!(world.machine.workers().count(), 0);
    world.sync(&mut agent);
    let shown: Vec<_> =
        world.machine.workers().map(|(name, _, offer)| (name.as_str().to_owned(), offer.slots)).collect();
    assert_eq!(shown, [("w".to_owned(), 3)]);
    world.tell(Input::Abandon);
    assert_eq!(world.machine.workers().count(), 0);
}

/// Whoever shows the workers had to copy all of them for each that came.
#[test]
fn each_coming_and_going_is_told_once_however_many_workers_there_are() {
    const MANY: usize = 200;
    let mut world = World::new();
    let names: Vec<String> = (0..MANY).map(|n| format!("w{n:03}")).collect();
    world.sync(&mut Agent::new("first", 1));
    assert_eq!(world.machine.take_comings_and_goings(), [Name::literal("first")], "who was there before");
    let mut told = Vec::new();
    for name in &names {
        let mut agent = Agent::new("w", 1);
        agent.state.worker = Name::new(name).expect("a name");
        world.sync(&mut agent);
        told.extend(world.machine.take_comings_and_goings());
    }
    assert_eq!(told.iter().map(Name::as_str).collect::<Vec<_>>(), names);
    let mut agent = Agent::new("w007", 1).reborn();
    world.sync(&mut agent);
    assert_eq!(world.machine.take_comings_and_goings(), [Name::literal("w007")], "it went and came");
    assert_eq!(
        world.machine.worker(&Name::literal("w007")).map(|(life, _)| life),
        Some(agent.state.incarnation)
    );
    world.tell(Input::Abandon);
    assert_eq!(world.machine.take_comings_and_goings().len(), MANY + 1);
    assert_eq!(world.machine.take_comings_and_goings(), []);
    assert_eq!(world.machine.worker(&Name::literal("w007")), None);
}

#[test]
fn a_job_that_comes_back_before_the_agent_heard_of_it_is_said_once() {
    let (mut world, mut agent) = (World::new(), Agent::new("w", 4));
    world.submit(command(), 1);
    world.news(&mut agent);
    // It has not called again, so this one waits to be said.
    let jobs = world.submit(command(), 1);
    world.cancel_in_store(jobs[0]);
    let redriven = now(world.store.redrive(&Scope::All, jobs.clone())).expect("the store redrives");
    assert_eq!(redriven.replies, [Redriven::Done]);
    world.tell(Input::Woken);
    let heard = world.news(&mut agent);
    assert_eq!((assigned(&heard), heard.assign[0].job.epoch), (jobs.clone(), world.job(jobs[0]).epoch));
}
