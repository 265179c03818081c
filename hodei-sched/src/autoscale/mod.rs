//! How many agents there should be, and who starts and stops them.
//!
//! [`Autoscaler`] decides and is pure: it is shown the load and the time, and says how many agents are wanted and why. A
//! [`ScaleTarget`] carries that out: agents as processes of this machine (feature `processes`), or the replicas of a
//! Kubernetes workload (feature `kube`). [`scale`] drives the one with the other.
//!
//! ```
//! use std::time::Duration;
//! use hodei_core::Timestamp;
//! use hodei_sched::autoscale::{Autoscaler, Load, ScalePolicy};
//!
//! let mut autoscaler = Autoscaler::new(ScalePolicy::between(0, 10).slots(4))?;
//! let load = Load { queued: 100, ..Load::at(Timestamp::EPOCH) };
//! assert!(autoscaler.decide(&load, 0).agents > 0, "work wakes what was scaled to zero");
//! // When so many were started:
//! autoscaler.carried_out();
//! # Ok::<(), hodei_core::Error>(())
//! ```

#[cfg(feature = "kube")]
mod kube;
mod policy;
#[cfg(feature = "processes")]
mod processes;
mod run;
mod target;

#[cfg(feature = "kube")]
#[cfg_attr(docsrs, doc(cfg(feature = "kube")))]
pub use kube::{KubeScale, KubeScaleBuilder};
pub use policy::{Autoscaler, Decision, Load, ScalePolicy, Why};
#[cfg(feature = "processes")]
#[cfg_attr(docsrs, doc(cfg(feature = "processes")))]
pub use processes::{AgentProgram, LocalProcesses};
pub use run::{LoadReader, scale};
pub use target::ScaleTarget;
