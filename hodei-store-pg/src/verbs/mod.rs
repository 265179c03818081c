//! The verbs that write.

mod cancel;
mod claim;
mod exchange;
mod fire;
mod inbox;
mod prune;
mod reap;
mod submit;
mod tend;
mod terms;

pub(crate) use cancel::{Cancel, Redrive};
pub(crate) use claim::{at, claimed, inputs_of, pipeline_of, what};
pub(crate) use exchange::{ExchangeVerb, Picks, Settle, picks_of};
pub(crate) use fire::Fire;
pub(crate) use prune::Prune;
pub(crate) use reap::Reap;
pub(crate) use submit::Submit;
pub(crate) use tend::{Need, Tend, Tended};
