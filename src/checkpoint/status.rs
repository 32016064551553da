//! The nine statuses an agent can be in, and what each means for its task.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::parse::Invalid;

/// What a checkpoint says of its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Starting,
    Planning,
    Working,
    Checkpoint,
    WaitingApproval,
    Blocked,
    Error,
    Complete,
    Cancelled,
}

/// Where a task stands in the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TaskState {
    Running,
    Failed,
    Completed,
    Cancelled,
    /// Somebody else's task that nobody works on yet; only a database has such.
    Pending,
    /// The same, with leave to begin.
    Approved,
}

impl Status {
    /// All nine, in the order in which help texts list them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Starting,
        Self::Planning,
        Self::Working,
        Self::Checkpoint,
        Self::WaitingApproval,
        Self::Blocked,
        Self::Error,
        Self::Complete,
        Self::Cancelled,
    ];

    /// The spelling used on the command line, in JSON and in the cache.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Planning => "planning",
            Self::Working => "working",
            Self::Checkpoint => "checkpoint",
            Self::WaitingApproval => "waiting_approval",
            Self::Blocked => "blocked",
            Self::Error => "error",
            Self::Complete => "complete",
            Self::Cancelled => "cancelled",
        }
    }

    /// The sign in front of a message.
    pub(crate) fn emoji(self) -> &'static str {
        match self {
            Self::Starting => "🚀",
            Self::Planning => "🧠",
            Self::Working => "⚙️",
            Self::Checkpoint => "📍",
            Self::WaitingApproval => "⏳",
            Self::Blocked => "🚧",
            Self::Error => "❌",
            Self::Complete => "✅",
            Self::Cancelled => "🛑",
        }
    }

    /// The bar beside a Slack message, as `#rrggbb`.
    pub(crate) fn colour(self) -> &'static str {
        match self {
            Self::Starting => "#0099ff",
            Self::Planning => "#9933ff",
            Self::Working | Self::Complete => "#00cc00",
            Self::Checkpoint => "#ffcc00",
            Self::WaitingApproval => "#ff9900",
            Self::Blocked => "#ff6600",
            Self::Error => "#ff0000",
            Self::Cancelled => "#808080",
        }
    }

    /// The state that a checkpoint of this status leaves its task in.
    pub(crate) fn task_state(self) -> TaskState {
        match self {
            Self::Error => TaskState::Failed,
            Self::Complete => TaskState::Completed,
            Self::Cancelled => TaskState::Cancelled,
            _ => TaskState::Running,
        }
    }

    /// Whether the status closes its task.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Complete | Self::Cancelled)
    }

    /// Whether people must hear of it at once, whatever the interval.
    pub(crate) fn is_immediate(self) -> bool {
        matches!(self, Self::WaitingApproval | Self::Blocked | Self::Error | Self::Complete | Self::Cancelled)
    }

    /// Reads a status as it is typed: any case, `-` for `_`.
    ///
    /// # Errors
    /// An unknown name, with the nearest right one as the hint.
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        let wanted = text.trim().to_ascii_lowercase().replace('-', "_");
        if let Some(status) = Self::ALL.into_iter().find(|status| status.name() == wanted) {
            return Ok(status);
        }
        // The beginning of a name is closer to it than any other word of the same length.
        let begun =
            Self::ALL.into_iter().find(|status| wanted.len() > 2 && status.name().starts_with(&wanted));
        let nearest = begun.map(|status| (0, status.name())).or_else(|| {
            Self::ALL
                .into_iter()
                .map(|status| (distance(&wanted, status.name()), status.name()))
                .min()
                .filter(|(far, name)| *far <= name.len() / 2)
        });
        Err(Invalid::new(
            "is not a status",
            match nearest {
                Some((_, name)) => format!("did you mean '{name}'?"),
                None => format!("use one of {}", Self::ALL.map(Self::name).join(", ")),
            },
        ))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl TaskState {
    /// All six, in the order in which help texts list them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Running, Self::Failed, Self::Completed, Self::Cancelled, Self::Pending, Self::Approved];

    /// The spelling used on the command line, in JSON and in the cache.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Pending => "pending",
            Self::Approved => "approved",
        }
    }

    /// Whether the task is over for good: what is said of it later changes nothing.
    #[cfg(feature = "postgres")]
    pub(crate) fn is_closed(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }

    /// Reads the spelling of [`TaskState::name`].
    ///
    /// # Errors
    /// Any other text.
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| {
            Invalid::new(
                "is not a task state",
                format!("use one of {}", Self::ALL.map(Self::name).join(", ")),
            )
        })
    }
}

/// The number of single-letter edits between two words (Levenshtein), for suggestions.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_names_in_any_case() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.name()), Ok(status));
            assert_eq!(Status::parse(&status.name().to_uppercase().replace('_', "-")), Ok(status));
        }
    }

    #[test]
    fn suggests_the_nearest_name() {
        for (typed, hint) in [
            ("workign", "did you mean 'working'?"),
            ("completed", "did you mean 'complete'?"),
            ("canceled", "did you mean 'cancelled'?"),
            ("waiting", "did you mean 'waiting_approval'?"),
            ("start", "did you mean 'starting'?"),
            ("block", "did you mean 'blocked'?"),
        ] {
            assert_eq!(Status::parse(typed).expect_err("not a status").hint, hint, "{typed}");
        }
        assert!(Status::parse("xyzzyxyzzyxyzzy").expect_err("not a status").hint.starts_with("use one of"));
    }
}
