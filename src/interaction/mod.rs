//! Inbound: what people do in Slack, from Slack's wire to our words. Knows no store: whoever listens is given a function
//! that takes an [`Interaction`](wire::Interaction), and its answer goes back to Slack.

mod dial;
pub(crate) mod grammar;
pub(crate) mod open;
pub(crate) mod signature;
pub(crate) mod socket;
pub(crate) mod wire;
