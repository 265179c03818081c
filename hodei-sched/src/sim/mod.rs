//! The deterministic simulator: nodes, agents and a store in virtual time, with faults, from one seed.
//!
//! What runs in it is the engine itself: the scheduling machine, the questions that its driver asks the store, the duties
//! of a node, the store in memory. Only what lies between them is made up: time, the network, deaths, the agents and
//! the clients. There is no runtime and no thread; one seed gives one trace, byte for byte.
//!
//! ```
//! use hodei_sched::sim::{Options, SimpleAgent, Simulation};
//!
//! # fn main() -> hodei_core::Result<()> {
//! let outcome = Simulation::<SimpleAgent>::swarm(Options::swarm(7), 100)?.run();
//! assert!(outcome.is_clean(), "{outcome}");
//! # Ok(()) }
//! ```
//!
//! Each seed draws what it is of: how many nodes, how many dispatchers each of them has, which balancer chooses, whether urgent work
//! stops other work, whether idle nodes rest, which limits and rates there are, and which faults.
//!
//! What is checked: the recorded history is held to the guarantees (see [`hodei_core::testkit::history`]), and the
//! simulator watches that no agent runs more than it has room for, that a run which was told to stop ends, that nobody begins a
//! job while another agent is at work on it, unless that one stands still, that nobody is declared dead before its time, that
//! schedules fire each of their times once, in order, and leave out only what was missed, that what a run spawns is there with
//! its end, that nobody acts under a term that somebody else took, that nothing is cancelled of which nobody asked the end, that bounds
//! of tenants are kept, that a job which comes alone and in calm is not kept waiting, whoever rests, that the indexes
//! of the store are right, and, in liveness mode, that everything ends within a bound once faults are over.
//!
//! Two guarantees have nothing to be judged by here. That no secret is shown: jobs name secrets by references, and arguments are
//! encrypted before they reach a store and decoded behind the agent's machine, so that nothing which runs here ever has the value
//! of one. It is judged where values are: over all that a node, its agent and its store write down. And that recovering once more
//! changes nothing: the store of the models has no file to recover. It is judged where files are, and processes are killed.
//!
//! To simulate a policy of your own, write a [`Workload`] and set [`Options::scheduler`]; the workload sees every
//! transition. [`Bug`]s can be planted in the models: a checker that has never failed proves nothing.

mod agent;
mod bug;
mod chaos;
mod clients;
mod company;
mod desk;
mod door;
mod fires;
mod host;
mod ledger;
mod listener;
mod mixed;
mod network;
mod node;
mod options;
mod outcome;
mod planted;
mod random;
mod simple;
mod simulation;
mod task;
mod trace;
mod watch;
mod workload;
mod world;

pub use agent::{Action, AgentModel};
pub use bug::Bug;
pub use mixed::MixedLoad;
pub use options::{Faults, Mode, Options};
pub use outcome::{Figures, Outcome};
pub use random::Random;
pub use simple::SimpleAgent;
pub use simulation::{Campaign, Failed, Simulation};
pub use workload::{Act, RunPlan, Scene, Workload};
