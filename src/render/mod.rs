//! Pure: from a task's snapshot to what people see. Returns text and JSON; somebody else writes or sends them.

pub(crate) mod console;
pub(crate) mod mrkdwn;
#[cfg(feature = "serve")]
pub(crate) mod prometheus;
pub(crate) mod question;
pub(crate) mod slack;
pub(crate) mod text;
pub(crate) mod told;
