//! From what was typed to a question: read, masked and checked.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use crate::args::{AskArgs, TimeoutChoice};
use crate::checkpoint::mask::Masker;
use crate::checkpoint::parse;
use crate::checkpoint::question::{OnTimeout, Question, RequestId, Whereabouts, nonce};
use crate::checkpoint::time::Moment;
use crate::cmd::{environment, masking};
use crate::config::Config;
use crate::config::identity::branch_and_host;
use crate::exit::{Exit, Failure, cause};

/// The most of details and of a command that is taken, in bytes: nobody reads more, and nothing of it is cut.
const READ_MAX: usize = 1024 * 1024;
/// Most that one question offers: Slack shows no more buttons in a row.
const CHOICES_MAX: usize = 25;
/// Most that a button shows.
const LABEL_MAX: usize = 75;

/// The question of an agent, as of now.
pub(super) fn question(
    args: &AskArgs,
    config: &Config,
    (agent_id, repo): (&str, Option<String>),
    now: Moment,
) -> Result<Question, Failure> {
    let masker = config.masker();
    let text = args.question.trim();
    if text.is_empty() {
        return Err(Failure::new(Exit::Usage, "QUESTION: '' is empty").hint("say what is to be approved"));
    }
    let approvers = approvers(args, config);
    check_quorum(args.quorum, &approvers)?;
    if args.timeout.is_zero() {
        return Err(Failure::new(Exit::Usage, "--timeout: '0s' leaves no time for an answer")
            .hint("give a length of time such as 15m"));
    }
    let dir = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    let (branch, host) = branch_and_host(&environment, &dir);
    let mask = |text: &str| masking::said(&masker, text);
    Ok(Question {
        id: RequestId::new(now),
        nonce: nonce(),
        agent_id: agent_id.to_owned(),
        text: mask(text),
        details: read("--details", args.details.as_deref(), true, &masker)?,
        command: read("--command", args.command.as_deref(), false, &masker)?,
        choices: choices(&args.choice, &masker)?,
        approvers,
        quorum: args.quorum,
        at: Whereabouts {
            repo,
            branch: branch.as_deref().map(mask),
            directory: Some(mask(&dir.to_string_lossy())),
            host: Some(host),
        },
        on_timeout: match args.on_timeout {
            TimeoutChoice::Fail => OnTimeout::Fail,
            TimeoutChoice::Reject => OnTimeout::Reject,
            TimeoutChoice::Approve => OnTimeout::Approve,
        },
        polled: !super::is_webhook(config) && config.socket_access().is_none(),
        launch: None,
        asked_at: now,
        expires_at: now.plus(args.timeout),
    })
}

/// A flag is more than the setting: it names those of this question.
fn approvers(args: &AskArgs, config: &Config) -> Vec<String> {
    let named = if args.approver.is_empty() { config.approvers.as_deref() } else { Some(&args.approver[..]) };
    let mut approvers: Vec<String> = Vec::new();
    for id in named.unwrap_or_default() {
        if !approvers.contains(id) {
            approvers.push(id.clone());
        }
    }
    approvers
}

fn check_quorum(quorum: u32, approvers: &[String]) -> Result<(), Failure> {
    let people = u32::try_from(approvers.len()).unwrap_or(u32::MAX);
    if people > 0 && quorum > people {
        let message = format!("--quorum: '{quorum}' is more than the {people} who may answer");
        return Err(Failure::new(Exit::Usage, message).hint("name more people with --approver"));
    }
    Ok(())
}

fn choices(labels: &[String], masker: &Masker) -> Result<Vec<String>, Failure> {
    let wrong = |message: String, hint: &str| Err(Failure::new(Exit::Usage, message).hint(hint));
    if labels.len() > CHOICES_MAX {
        let message = format!("--choice: {} are too many", labels.len());
        return wrong(message, "offer at most 25 choices");
    }
    let mut choices: Vec<String> = Vec::new();
    for label in labels {
        let label = masking::said(masker, label.trim());
        if label.is_empty() {
            return wrong("--choice: '' is empty".to_owned(), "give each choice a label");
        }
        if label.chars().count() > LABEL_MAX {
            let message = format!("--choice: '{label}' has more than {LABEL_MAX} characters");
            return wrong(message, "use a short label, and say more with --details");
        }
        if choices.iter().any(|other| other.to_lowercase() == label.to_lowercase()) {
            return wrong(
                format!("--choice: '{label}' was given twice"),
                "give each choice a label of its own",
            );
        }
        choices.push(label);
    }
    Ok(choices)
}

/// A text that is shown whole: as it was typed, or from standard input where that is asked for.
fn read(
    flag: &str,
    typed: Option<&OsStr>,
    may_be_piped: bool,
    masker: &Masker,
) -> Result<Option<String>, Failure> {
    let Some(typed) = typed else { return Ok(None) };
    let text = if may_be_piped && typed == "-" {
        let mut bytes = Vec::new();
        let max = u64::try_from(READ_MAX).unwrap_or(u64::MAX);
        std::io::stdin().lock().take(max + 1).read_to_end(&mut bytes).map_err(|error| {
            Failure::new(Exit::Usage, format!("could not read {flag} from standard input: {}", cause(&error)))
                .hint("give it a file or a pipe")
        })?;
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        typed.to_string_lossy().into_owned()
    };
    if text.len() > READ_MAX {
        return Err(Failure::new(Exit::Usage, format!("{flag}: the text is longer than 1 MiB"))
            .hint("show what matters; nobody approves what cannot be read"));
    }
    let text = parse::free_text(text.trim_end()).map_err(|error| {
        Failure::new(Exit::Usage, format!("{flag}: the text {}", error.reason)).hint(error.hint)
    })?;
    Ok(Some(masking::said(masker, &text)).filter(|text| !text.trim().is_empty()))
}
