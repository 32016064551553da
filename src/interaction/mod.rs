//! Inbound: what people do in Slack, from Slack's wire to our words. Knows no store: whoever listens is given a function
//! that takes an [`Interaction`](wire::Interaction), and its answer goes back to Slack.

pub(crate) mod signature;
pub(crate) mod wire;
