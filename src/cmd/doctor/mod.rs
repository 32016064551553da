//! `doctor`: check every part of the set-up and say how to mend what is broken.

mod database;
#[cfg(feature = "serve")]
mod launch;
mod socket;
#[cfg(feature = "postgres")]
mod trail;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tasks::{hold_back, wait_words};
use super::{BUSY_MAX, DAMAGED, DAY, configure, environment, jitter, now, record};
use crate::args::{DoctorArgs, GlobalArgs};
use crate::checkpoint::Task;
use crate::checkpoint::id::{CheckpointId, TaskId};
use crate::checkpoint::outbox::{Credential, Job};
use crate::checkpoint::parse::is_conversation_id;
use crate::checkpoint::snapshot::{Excerpt, Snapshot};
use crate::checkpoint::status::Status;
use crate::checkpoint::time::{Moment, spoken};
use crate::config::identity::surroundings;
use crate::config::{Config, Flags, Origin, Target};
use crate::delivery::bot::{Bot, Channel};
use crate::delivery::http::{Answer, Http};
use crate::delivery::{Cause, Destination, Outcome, Place, Retry, deliver, retry};
use crate::exit::Exit;
use crate::render::text::plain;
use crate::store::{self, Store};
use crate::ui::{Tone, Ui};

/// How far this machine's clock may be off before messages and audit rows are ordered wrongly.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// The app that the README's set-up makes: what each scope is for stands in [`SCOPES`].
const MANIFEST: &str = include_str!("manifest.json");

/// The bot scopes we use, whether nothing works without them, and what each is for.
const SCOPES: &[(&str, bool, &str)] = &[
    ("chat:write", true, "post messages and edit the live card"),
    ("chat:write.public", false, "post in public channels without joining them"),
    ("channels:read", false, "check public channels by name"),
    ("groups:read", false, "check private channels by name"),
    ("channels:history", false, "find a message whose answer was lost, instead of sending it twice"),
    ("groups:history", false, "the same in private channels"),
    ("reactions:read", false, "see reactions that answer a question"),
    ("users:read", false, "tell bots from people who answer a question or write in a thread"),
    ("files:write", false, "attach the output of a failed command that a message has no room for"),
];

/// The name of a hold that is set to see whether the cache can be written.
const TRIAL: &str = "|doctor";

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// Works, but deserves a look.
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    message: String,
    /// How to mend it.
    hint: Option<String>,
}

/// The checks made so far.
#[derive(Debug, Default)]
struct Report(Vec<Check>);

impl Report {
    fn ok(&mut self, name: &'static str, message: impl Into<String>) {
        self.add(name, Verdict::Ok, message, None);
    }

    fn warn(&mut self, name: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(name, Verdict::Warn, message, Some(hint.into()));
    }

    fn fail(&mut self, name: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(name, Verdict::Fail, message, Some(hint.into()));
    }

    fn add(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.0.push(Check { name, verdict, message: message.into(), hint });
    }

    fn failed(&self) -> bool {
        self.0.iter().any(|check| check.verdict == Verdict::Fail)
    }
}

pub(super) fn run(global: &GlobalArgs, args: &DoctorArgs) -> anyhow::Result<Exit> {
    if args.manifest {
        Ui::early(None).answer(MANIFEST.trim_end())?;
        return Ok(Exit::Done);
    }
    let flags = Flags { channel: args.channel.clone(), deadline: args.deadline, ..Flags::default() };
    let (config, ui) = configure(global, flags)?;
    let mut report = Report::default();
    check_settings(&mut report, &config);
    check_identity(&mut report, &config);
    check_approvers(&mut report, &config);
    #[cfg(feature = "serve")]
    launch::check(&mut report, &config);
    let store = check_cache(&mut report, &config, &ui);
    let (began, time) = (Instant::now(), config.deadline.min(DAY));
    let deadline = began + time;
    let mut about_database = Report::default();
    // Time is left for Slack, if that has to be asked as well.
    let share = if matches!(config.target, Target::Slack(_)) { time / 2 } else { time };
    database::check(&mut about_database, &config, began + share);
    let mut http = Http::new(config.network.clone());
    if let Some(witness) = ui.witness() {
        http.watch(witness);
    }
    match &config.target {
        Target::Nowhere => report.warn(
            "destination",
            "none is configured: checkpoints are recorded and printed",
            "set SLACK_BOT_TOKEN (or SLACK_WEBHOOK_URL)",
        ),
        Target::Broken => {
            report.fail("destination", "it cannot be used: messages wait", "mend the setting named above");
        }
        Target::Slack(Destination::Bot { token, api_url }) => {
            let mut bot = Bot { http: &mut http, token, api_url, deadline };
            check_token(&mut report, &config, &mut bot);
        }
        Target::Slack(destination @ Destination::Webhook { .. }) => {
            report.ok("destination", format!("incoming webhook at {}", destination.host()));
            report.warn(
                "webhook",
                "messages stand alone: a webhook gives no thread and no live card, and can only be tried by posting",
                "run doctor --post to try it; set SLACK_BOT_TOKEN for threads",
            );
            report.warn(
                "answers",
                "what ask asks can be answered by agent-checkpoint answer alone: a webhook hears nothing",
                "set SLACK_BOT_TOKEN for answers in Slack",
            );
            let chosen = config.settings().into_iter().find(|(name, ..)| *name == "channel");
            if let Some((_, channel, origin)) = chosen
                && origin != Origin::Default
            {
                report.warn(
                    "channel",
                    format!("{channel} is not used: a webhook posts to the channel that it was made for"),
                    "make a webhook for that channel, or set SLACK_BOT_TOKEN",
                );
            }
        }
    }
    socket::check(&mut report, &config, deadline);
    report.0.append(&mut about_database.0);
    if args.post {
        post(&mut report, &config, &mut http, store, deadline);
    }
    if config.json {
        ui.answer(&report_json(&report, &config).to_string())?;
    } else {
        ui.answer(&page(&report, &config, &ui))?;
    }
    Ok(if report.failed() { Exit::Config } else { Exit::Done })
}

fn check_settings(report: &mut Report, config: &Config) {
    for problem in &config.problems {
        let verdict = if problem.harmless { Verdict::Warn } else { Verdict::Fail };
        report.add("settings", verdict, problem.message.clone(), Some(problem.hint.clone()));
    }
    if config.problems.is_empty() {
        report.ok("settings", "nothing wrong");
    }
}

fn check_identity(report: &mut Report, config: &Config) {
    let dir = std::env::current_dir().unwrap_or_default();
    let around = surroundings(config.agent_id.as_deref(), &environment, &dir);
    let repo = config.repo.clone().or(around.repo).map_or_else(String::new, |repo| format!(", repo {repo}"));
    report.ok("identity", format!("{}{repo}", around.agent_id));
}

fn check_approvers(report: &mut Report, config: &Config) {
    // Where no app is configured nobody can be asked.
    if !matches!(config.target, Target::Slack(Destination::Bot { .. })) {
        return;
    }
    // What is wrong with a list that cannot be read is said above: it lets nobody in.
    let Some(approvers) = &config.approvers else { return };
    match approvers.len() {
        0 => report.warn(
            "approvers",
            "anybody in the channel may answer what ask asks",
            "name those who may in AGENT_CHECKPOINT_APPROVERS, by their ids in Slack",
        ),
        1 => report.ok("approvers", "one person may answer what ask asks"),
        count => report.ok("approvers", format!("{count} people may answer what ask asks")),
    }
}

/// The store comes back if it can be used.
fn check_cache(report: &mut Report, config: &Config, ui: &Ui) -> Option<Store> {
    let Some(path) = &config.cache else {
        report.fail("cache", "there is no home directory to keep it in", "name a file with --cache");
        return None;
    };
    let opened = match Store::open_at(path, BUSY_MAX) {
        Ok(opened) => opened,
        Err(error) => {
            report.fail("cache", error.to_string(), "mend the file or name another one with --cache");
            return None;
        }
    };
    if let Some(aside) = &opened.set_aside {
        let kept = format!("the damaged one is kept as {}", aside.display());
        report.warn("cache", format!("{} was damaged; started afresh", path.display()), kept);
    }
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777).unwrap_or(0o600);
    if mode & 0o077 != 0 {
        let hint = format!("run chmod 600 {}", path.display());
        report.warn("cache", format!("{} can be read by others (mode {mode:o})", path.display()), hint);
    }
    let mut store = opened.store;
    record::bury_all(&mut store, config, ui);
    let problems = store.write(|tx| {
        // Leaves nothing behind, but has to be written: on a full disk only that fails.
        tx.hold(TRIAL, now(), now())?;
        tx.lift(TRIAL)?;
        let mut problems = tx.problems()?;
        problems.waiting.iter_mut().try_for_each(|wait| hold_back(tx, wait, config))?;
        Ok(problems)
    });
    let damage =
        store.read(|tx| tx.damage()).unwrap_or_else(|error| error.corrupt.then(|| error.to_string()));
    if let Some(damage) = damage {
        let message = format!("{} is damaged: {}", path.display(), plain(&damage, false));
        report.fail("cache", message, DAMAGED);
        return None;
    }
    match problems {
        Ok(problems) => {
            report.ok("cache", format!("{} (schema {})", path.display(), store::schema_version()));
            check_outbox(report, &problems);
            #[cfg(feature = "postgres")]
            trail::check(report, config, &mut store);
            Some(store)
        }
        Err(error) => {
            let message = format!("could not use cache {}: {error}", path.display());
            report.fail("cache", message, "free or mend the disk");
            None
        }
    }
}

fn check_outbox(report: &mut Report, problems: &store::Problems) {
    let at = now();
    match &problems.waiting {
        None => report.ok("outbox", "nothing waits"),
        Some(wait) => {
            let age = spoken(at.since(wait.since));
            let message = format!("{} waiting, the oldest for {age}: {}", wait.count, wait_words(wait, at));
            report.warn("outbox", message, "run agent-checkpoint flush");
        }
    }
    for wait in &problems.rejected {
        let reason = wait.reason.as_deref().unwrap_or("unknown");
        let hint = format!("{}; then run agent-checkpoint flush --rejected", mend(reason));
        report.fail("outbox", format!("{} refused by Slack: {reason}", wait.count), hint);
    }
}

/// How to mend what Slack refused.
fn mend(reason: &str) -> &'static str {
    match reason.split([' ', '(']).next().unwrap_or_default() {
        "not_authed" | "invalid_auth" | "account_inactive" | "token_revoked" | "token_expired" => {
            "copy a fresh Bot User OAuth Token from the app's OAuth & Permissions page into SLACK_BOT_TOKEN"
        }
        "not_allowed_token_type" => "use a bot token, which begins with xoxb-",
        "missing_scope" => "add the scope to the app (doctor --manifest has them all) and install it again",
        "channel_not_found" => "check the channel's name; invite the bot if it is private",
        "not_in_channel" => "invite the bot with /invite @agent-checkpoint",
        "is_archived" | "channel_is_archived" => "unarchive the channel or name another with SLACK_CHANNEL",
        "no_service" | "no_active_hooks" | "invalid_token" => {
            "make a new incoming webhook and set SLACK_WEBHOOK_URL"
        }
        _ => "see Slack's description of the error",
    }
}

fn check_token(report: &mut Report, config: &Config, bot: &mut Bot<'_>) {
    let host = crate::delivery::http::host(bot.api_url).to_owned();
    let (reply, answer) = match bot.auth_test() {
        Ok(found) => found,
        Err(Retry { reason, .. }) => {
            report.fail(
                "network",
                format!("Slack did not answer: {reason}"),
                "check the connection, HTTPS_PROXY and SSL_CERT_FILE",
            );
            return;
        }
    };
    report.ok("network", format!("{host} answers"));
    check_clock(report, &answer);
    if !reply.ok {
        let reason = reply.reason();
        report.fail("credentials", format!("Slack refused the token: {reason}"), mend(&reason));
        return;
    }
    // What stands in for Slack may not say whose token it is.
    let known = !reply.user.is_empty() && !reply.team.is_empty();
    let whose = || format!("{} in {}", reply.user, reply.team);
    report.ok("credentials", if known { whose() } else { "the token is accepted".to_owned() });
    let Some(scopes) = &answer.scopes else {
        report.warn("scopes", "Slack did not say what the token may do", "run doctor --post to try it");
        return check_channel(report, config, bot);
    };
    let held: Vec<&str> = scopes.split(',').map(str::trim).collect();
    let missing = || SCOPES.iter().filter(|(scope, ..)| !held.contains(scope));
    for (scope, needed, purpose) in missing() {
        let verdict = if *needed { Verdict::Fail } else { Verdict::Warn };
        let hint = "add it to the app (doctor --manifest has them all) and install the app again".to_owned();
        report.add("scopes", verdict, format!("{scope} is missing: {purpose}"), Some(hint));
    }
    if missing().next().is_none() {
        report.ok("scopes", "all that are used");
    }
    #[cfg(feature = "serve")]
    launch::check_scopes(report, config, &held);
    check_channel(report, config, bot);
}

fn check_clock(report: &mut Report, answer: &Answer) {
    let Some(theirs) = answer.date.as_deref().and_then(http_date) else { return };
    let ours = now();
    let skew = ours.since(theirs).max(theirs.since(ours));
    if skew > CLOCK_SKEW_MAX {
        let direction = if ours > theirs { "ahead" } else { "behind" };
        let message = format!("this machine's clock is {} {direction}", spoken(skew));
        report.warn("clock", message, "set the clock, for example with a time synchronisation service");
    } else {
        report.ok("clock", "agrees with Slack's");
    }
}

/// The moment that an HTTP `Date` header names (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<Moment> {
    let at = jiff::fmt::rfc2822::parse(&text.replace("GMT", "+0000")).ok()?;
    Some(Moment(at.timestamp().as_millisecond()))
}

fn check_channel(report: &mut Report, config: &Config, bot: &mut Bot<'_>) {
    let named = config
        .thread
        .as_ref()
        .map(|thread| thread.channel.clone())
        .or_else(|| config.default_channel.clone());
    let Some(name) = named else { return };
    let found = if is_conversation_id(&name) { bot.channel_info(&name) } else { bot.find_channel(&name) };
    match found {
        Err(Retry { reason, .. }) => {
            report.warn("channel", format!("{name} could not be checked: {reason}"), "try again")
        }
        Ok(Err(reason)) if reason.is_empty() || reason.starts_with("channel_not_found") => report.fail(
            "channel",
            format!("{name} is not there, or private without the bot in it"),
            "check the name, or invite the bot with /invite @agent-checkpoint",
        ),
        Ok(Err(reason)) => {
            report.warn("channel", format!("{name} could not be checked: {reason}"), mend(&reason))
        }
        Ok(Ok(channel)) => judge_channel(report, &name, &channel),
    }
}

fn judge_channel(report: &mut Report, name: &str, channel: &Channel) {
    if channel.is_archived {
        report.fail("channel", format!("{name} is archived"), mend("is_archived"));
    } else if channel.is_member {
        report.ok("channel", format!("{name} ({}), the bot is a member", channel.id));
    } else if channel.is_private {
        report.fail(
            "channel",
            format!("{name} is private and the bot is not a member"),
            mend("not_in_channel"),
        );
    } else {
        report.warn(
            "channel",
            format!("{name} ({}) is public and the bot is not a member: it can post, but not look for lost messages", channel.id),
            mend("not_in_channel"),
        );
    }
}

/// Sends a message that belongs to no task.
fn post(report: &mut Report, config: &Config, http: &mut Http, mut store: Option<Store>, deadline: Instant) {
    let Target::Slack(destination) = &config.target else {
        report.fail("post", "there is nowhere to post to", "set SLACK_BOT_TOKEN or SLACK_WEBHOOK_URL");
        return;
    };
    let place = Place { channel: config.default_channel.clone(), thread: config.thread.clone() };
    let channel = place.thread.as_ref().map(|thread| &thread.channel).or(place.channel.as_ref());
    let channel = channel.cloned().unwrap_or_default();
    let credential = destination.credential();
    let outcome = loop {
        if let Some(store) = &mut store
            && let Err(turn) = wait_for_turn(store, &credential, &channel, deadline)
        {
            let message = format!("Slack's limits leave no room for a message before {}", turn.rfc3339());
            return report.fail("post", message, "try again then, or wait for longer with --deadline");
        }
        let outcome = deliver(http, destination, &test_message(), &place, deadline);
        match (&outcome, &mut store) {
            (Outcome::Retry(Retry { cause: Cause::Limited(after), .. }), Some(store)) => {
                let at = now();
                let until = retry::limited_until(*after, jitter(), at);
                if store.write(|tx| tx.hold_posts(&credential, until, at)).is_err() {
                    break outcome;
                }
            }
            _ => break outcome,
        }
    };
    match outcome {
        Outcome::Posted { channel_id, ts, .. } => {
            let at = ts.map_or_else(String::new, |ts| format!(" as {ts}"));
            let channel = channel_id.or(place.channel).unwrap_or_default();
            let whither = if matches!(destination, Destination::Webhook { .. }) {
                "the webhook's channel".to_owned()
            } else {
                channel
            };
            report.ok("post", format!("a test message is in {whither}{at}"));
        }
        Outcome::Rejected(reason) => {
            let hint = mend(&reason);
            report.fail("post", format!("Slack refused the test message: {reason}"), hint);
        }
        Outcome::Retry(Retry { reason, .. }) => {
            report.fail("post", format!("the test message did not arrive: {reason}"), "try again");
        }
        Outcome::Edited
        | Outcome::CardGone
        | Outcome::CardFrozen
        | Outcome::CardLeft
        | Outcome::ThreadGone => {
            report.fail("post", "the thread is gone", "mend AGENT_CHECKPOINT_THREAD");
        }
    }
}

/// Waits for a turn within Slack's limits, which all who share the cache keep to together. A cache that cannot be
/// written keeps nobody waiting.
///
/// # Errors
/// The moment of the turn, when that comes too late.
fn wait_for_turn(
    store: &mut Store,
    credential: &Credential,
    channel: &str,
    deadline: Instant,
) -> Result<(), Moment> {
    loop {
        let at = now();
        let latest = at.plus(deadline.saturating_duration_since(Instant::now()));
        let turn = store.write(|tx| tx.turn(credential, channel, at, latest)).unwrap_or(Ok(at))?;
        thread::sleep(turn.since(now()));
        // Slack may have asked everyone to wait meanwhile.
        let held_until = store.read(|tx| tx.post_hold(credential, now())).unwrap_or(at);
        if held_until <= now() {
            return Ok(());
        }
    }
}

fn test_message() -> Job {
    let at = now();
    let mut snapshot = Snapshot::blank();
    snapshot.status = Status::Checkpoint;
    snapshot.name = Some("Test message".to_owned());
    snapshot.action = Some(Excerpt::of("doctor --post: messages arrive here"));
    let blank = Task::blank(TaskId::new(at), "doctor".to_owned(), "test".to_owned(), at);
    Job::alone(Task { snapshot, ..blank }, CheckpointId::new(at), at)
}

fn report_json(report: &Report, config: &Config) -> Value {
    let checks: Vec<Value> = report
        .0
        .iter()
        .map(|check| {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "fail",
            };
            json!({ "check": check.name, "verdict": verdict, "message": mask(config, &check.message), "hint": check.hint })
        })
        .collect();
    let settings: Vec<Value> = config
        .settings()
        .iter()
        .map(|(name, value, origin)| json!({ "setting": name, "value": mask(config, value), "origin": origin.to_string() }))
        .collect();
    json!({ "ok": !report.failed(), "checks": checks, "settings": settings })
}

fn page(report: &Report, config: &Config, ui: &Ui) -> String {
    let mut lines = Vec::new();
    for (name, value, origin) in &config.settings() {
        lines.push(format!(
            "{} {} {}",
            ui.tint(Tone::Dim, &format!("{name:<22}")),
            mask(config, value),
            ui.tint(Tone::Dim, &format!("({origin})"))
        ));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    for check in &report.0 {
        let (tone, sign) = match check.verdict {
            Verdict::Ok => (Tone::Good, "ok  "),
            Verdict::Warn => (Tone::Warn, "warn"),
            Verdict::Fail => (Tone::Bad, "FAIL"),
        };
        lines.push(format!("{} {:<12} {}", ui.tint(tone, sign), check.name, mask(config, &check.message)));
        lines.extend(
            check.hint.iter().map(|hint| format!("{:17} {} {hint}", "", ui.tint(Tone::Dim, "hint:"))),
        );
    }
    lines.join("\n")
}

/// A report is pasted into issues and chats.
fn mask(config: &Config, text: &str) -> String {
    config.masker().mask(text)
}
