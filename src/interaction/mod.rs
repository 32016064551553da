//! Inbound: what people do in Slack, from Slack's wire to our words. Knows no store: whoever listens is given a function
//! that takes an [`Interaction`](wire::Interaction), and its answer goes back to Slack.

mod dial;
pub(crate) mod grammar;
pub(crate) mod open;
#[cfg(feature = "postgres")]
pub(crate) mod proof;
#[cfg_attr(not(any(test, feature = "serve")), expect(dead_code, reason = "Slack speaks HTTP to serve only"))]
pub(crate) mod signature;
pub(crate) mod socket;
#[cfg_attr(not(any(test, feature = "serve")), expect(dead_code, reason = "Slack speaks HTTP to serve only"))]
pub(crate) mod wire;
