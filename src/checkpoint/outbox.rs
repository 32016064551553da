//! The outbox's words: entries that wait, who may send them, and what became of an attempt.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::id::{CheckpointId, EntryKey};
use super::question::{Answer, Question, Vote};
use super::snapshot::Snapshot;
use super::status::Status;
use super::time::Moment;
use super::{Card, Task};

/// What became of a checkpoint's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Delivery {
    /// Slack has it.
    Sent,
    /// Inside the interval: a later message covers it.
    Coalesced,
    /// Will be tried (again).
    Queued,
    /// The answer was lost: it may have arrived, and will be looked for before it is sent again.
    Unconfirmed,
    /// Refused for good.
    Rejected,
    /// No destination is configured, so it was printed.
    Printed,
    /// Not to be posted.
    Off,
}

impl Delivery {
    /// The spelling used in JSON and in the cache.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Coalesced => "coalesced",
            Self::Queued => "queued",
            Self::Unconfirmed => "unconfirmed",
            Self::Rejected => "rejected",
            Self::Printed => "printed",
            Self::Off => "off",
        }
    }

    /// Reads the spelling of [`Delivery::name`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [
            Self::Sent,
            Self::Coalesced,
            Self::Queued,
            Self::Unconfirmed,
            Self::Rejected,
            Self::Printed,
            Self::Off,
        ]
        .into_iter()
        .find(|delivery| delivery.name() == text)
    }
}

/// What an entry does in Slack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EntryKind {
    /// Posts a message for a checkpoint.
    Post,
    /// Edits the task's live card to the newest state.
    Card,
    /// Says in the task's thread that a task started from it began or ended.
    Note,
    /// Attaches the whole tail of a checkpoint, or all that a question puts, to the task's thread.
    File,
    /// Edits a question's message: who agrees so far, or what was decided.
    Question,
}

/// A question as its message shows it, and where that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) question: Question,
    /// Words that count so far.
    pub(crate) votes: Vec<Vote>,
    pub(crate) answer: Option<Answer>,
    /// The message as `(channel, ts)`, once it is posted.
    pub(crate) message: Option<(String, String)>,
}

/// What a note says of a task that was started from the one whose thread it stands in, or of that task itself when its
/// thread goes on elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) agent_id: String,
    pub(crate) status: Status,
    /// Milliseconds since that task's first checkpoint.
    pub(crate) elapsed_ms: u64,
    /// Where that task's card is, as `(channel, ts)`, once it is posted.
    #[serde(skip)]
    pub(crate) card: Option<(String, String)>,
    /// The thread that it stands in, as `(channel, ts)`, when that is the task's no more: the card is that of the one
    /// that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) given_up: Option<(String, String)>,
}

/// Which entries go first when Slack's limits let only some through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Sent whatever the interval, and never replaced by a newer one.
    Immediate,
    /// May wait, and then carries the newest state.
    Routine,
}

/// An entry of a task that is still in the outbox, as planning needs to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) key: EntryKey,
    pub(crate) priority: Priority,
    /// Being sent at this moment, so no longer to be changed.
    pub(crate) in_flight: bool,
    pub(crate) due_at: Moment,
}

/// An entry that its holder alone may send now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub(crate) entry: EntryKey,
    pub(crate) kind: EntryKind,
    pub(crate) priority: Priority,
    pub(crate) task: Task,
    /// What the message shows.
    pub(crate) snapshot: Snapshot,
    /// For a [`EntryKind::Note`], what it says.
    pub(crate) note: Option<Note>,
    /// The question that the message puts, or that is edited or attached.
    pub(crate) asked: Option<Box<Asked>>,
    /// For a [`EntryKind::File`], its content.
    pub(crate) file: Option<String>,
    /// The checkpoint that the message stands for; the newest one for a card.
    pub(crate) checkpoint: CheckpointId,
    /// How often it was tried before.
    pub(crate) attempts: u32,
    /// An earlier attempt may have reached Slack without an answer reaching us.
    pub(crate) maybe_sent: bool,
    pub(crate) created_at: Moment,
    /// When Slack's limits let it through: now, or a little later.
    pub(crate) start_at: Moment,
}

/// Which of Slack's limits an entry falls under: a card that was deleted is posted anew like any message.
pub(crate) fn limited_as(kind: EntryKind, has_card: bool) -> EntryKind {
    match kind {
        EntryKind::Card if has_card => EntryKind::Card,
        EntryKind::Question => EntryKind::Card,
        EntryKind::Card | EntryKind::Post => EntryKind::Post,
        EntryKind::Note | EntryKind::File => kind,
    }
}

/// Whether something is read in Slack before an entry is sent: whether it is there already, where a note's link leads,
/// where a file may be put.
pub(crate) fn reads_first(kind: EntryKind, maybe_sent: bool) -> bool {
    match kind {
        EntryKind::Post | EntryKind::Card => maybe_sent,
        EntryKind::Question => false,
        EntryKind::Note | EntryKind::File => true,
    }
}

impl Job {
    /// Which of Slack's limits it falls under.
    pub(crate) fn limited_as(&self) -> EntryKind {
        limited_as(self.kind, self.task.card != Card::Missing)
    }

    /// A message that stands in no outbox, to be sent now.
    pub(crate) fn alone(task: Task, checkpoint: CheckpointId, now: Moment) -> Self {
        Self {
            entry: EntryKey(0),
            kind: EntryKind::Post,
            priority: Priority::Immediate,
            snapshot: task.snapshot.clone(),
            note: None,
            asked: None,
            file: None,
            checkpoint,
            attempts: 0,
            maybe_sent: false,
            created_at: now,
            start_at: now,
            task,
        }
    }
}

/// What to write back for an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Slack has the message; what it answered.
    Posted {
        /// The conversation's id.
        channel_id: Option<String>,
        /// The message's `ts`; a webhook tells none.
        ts: Option<String>,
        /// The thread that the message stands in, when it is a reply.
        thread_ts: Option<String>,
    },
    /// The card shows the newest state, or is left as it is: nothing remains to be edited.
    Edited,
    /// To be tried again.
    Retry {
        at: Moment,
        reason: String,
        maybe_sent: bool,
        /// The link that nothing answered by; by another one it may be tried at once.
        via: Option<Link>,
    },
    /// Refused for good.
    Rejected { reason: String },
    /// The card was deleted in Slack: post a new one.
    CardGone,
    /// The card can never be edited again.
    CardFrozen,
    /// The thread is gone: the next message starts a new one.
    ThreadGone,
    /// Not tried after all.
    Released { at: Moment },
}

/// A fingerprint of a bot token or webhook URL: tells two apart without holding either.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Credential(String);

impl Credential {
    /// The fingerprint of a bot token.
    ///
    /// Tokens are written `xoxb-WORKSPACE-BOT-SECRET`: a token that was rotated keeps the first three parts, so it
    /// keeps its fingerprint; one for another workspace has another.
    pub(crate) fn bot(token: &str) -> Self {
        let parts: Vec<&str> = token.splitn(4, '-').collect();
        match parts[..] {
            [kind, workspace, bot, _] if is_number(workspace) && is_number(bot) => {
                Self(format!("bot:{workspace}:{}", digest(&format!("{kind}-{workspace}-{bot}"))))
            }
            _ => Self(format!("bot::{}", digest(token))),
        }
    }

    /// The fingerprint of an incoming webhook, `…/services/WORKSPACE/HOOK/SECRET`.
    pub(crate) fn webhook(url: &str) -> Self {
        let workspace = url
            .split_once("/services/")
            .and_then(|(_, path)| path.split('/').next())
            .filter(|id| id.starts_with('T') && id.bytes().all(|b| b.is_ascii_alphanumeric()))
            .unwrap_or_default();
        Self(format!("webhook:{workspace}:{}", digest(url)))
    }

    /// The fingerprint of an app-level token, whose socket only one process is to hold.
    pub(crate) fn app(token: &str) -> Self {
        Self(format!("app::{}", digest(token)))
    }

    /// A fingerprint as the cache keeps it.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_webhook(&self) -> bool {
        self.0.starts_with("webhook:")
    }

    fn workspace(&self) -> Option<(&str, &str)> {
        let mut parts = self.0.splitn(3, ':');
        match (parts.next(), parts.next()) {
            (Some(kind), Some(workspace)) if !workspace.is_empty() => Some((kind, workspace)),
            _ => None,
        }
    }

    /// Whether messages sent with it can stand in a thread of the other's.
    #[cfg(feature = "postgres")]
    pub(crate) fn shares_threads_with(&self, other: &Self) -> bool {
        self.is_webhook() == other.is_webhook() && self.may_send(Some(other), true)
    }

    /// Whether a message recorded for `recorded` may be sent with this credential.
    ///
    /// Two programs that share a cache may post to different workspaces, and neither may send the other's messages
    /// there. When a person asks (`explicit`), as `flush` does, a credential that is merely unknown is taken for the
    /// old one's successor; one that is known to belong to another workspace never is.
    pub(crate) fn may_send(&self, recorded: Option<&Self>, explicit: bool) -> bool {
        match recorded {
            None => true,
            Some(recorded) if recorded == self => true,
            Some(recorded) => {
                let elsewhere = match (self.workspace(), recorded.workspace()) {
                    (Some((kind, mine)), Some((other_kind, other))) => kind == other_kind && mine != other,
                    _ => false,
                };
                explicit && !elsewhere
            }
        }
    }
}

/// A credential and the way on which its calls reach Slack.
///
/// Programs that share a cache and a credential may still differ in proxy, API URL or trusted certificates: one that
/// reaches nobody must not hold back those who go another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    credential: Credential,
    name: String,
}

impl Link {
    /// The link of a credential by a way: a text of everything that decides how Slack is reached.
    pub(crate) fn new(credential: Credential, way: &str) -> Self {
        let name = format!("{}|{}", credential.as_str(), digest(way));
        Self { credential, name }
    }

    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Its fingerprint, as the cache keeps it: holds no secret.
    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }
}

fn is_number(text: &str) -> bool {
    text.len() >= 6 && text.bytes().all(|b| b.is_ascii_digit())
}

fn digest(text: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_never_sends_for_another_workspace() {
        let ours = Credential::bot("xoxb-111111111-222222222-abcdefg");
        let rotated = Credential::bot("xoxb-111111111-222222222-hijklmn");
        let other = Credential::bot("xoxb-333333333-222222222-abcdefg");
        let odd = Credential::bot("xoxb-test");
        assert_eq!(ours, rotated);
        // (sender, recorded for, unasked, asked)
        for (sender, recorded, unasked, asked) in [
            (&ours, None, true, true),
            (&ours, Some(&rotated), true, true),
            (&ours, Some(&other), false, false),
            (&ours, Some(&odd), false, true),
            (&odd, Some(&ours), false, true),
        ] {
            assert_eq!(sender.may_send(recorded, false), unasked, "{sender:?} {recorded:?}");
            assert_eq!(sender.may_send(recorded, true), asked, "{sender:?} {recorded:?}");
        }
    }

    #[test]
    fn a_fingerprint_does_not_hold_the_secret() {
        for credential in [
            Credential::bot("xoxb-111111111-222222222-abcdefg"),
            Credential::webhook("https://hooks.slack.com/services/T1/B2/abcdefg"),
        ] {
            assert!(!credential.as_str().contains("abcdefg"), "{credential:?}");
            let link = Link::new(credential, "https://user:secret@proxy");
            assert!(!link.as_str().contains("abcdefg") && !link.as_str().contains("secret"), "{link:?}");
        }
    }
}
