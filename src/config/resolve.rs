//! Every setting is looked up here, and what is wrong with it is noted.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use directories::ProjectDirs;

use super::flags::{Flags, global_flags};
use super::handover::Handover;
use super::keys::{
    self, AGENT_ID, APPROVERS, BACKGROUND, CACHE, CHANNEL, COLOR, CONTEXT_ALERT, CONTEXT_LIMIT, CONTEXT_WARN,
    DEADLINE, HEARTBEAT, JSON, KEYS, KILL_AFTER, MIN_INTERVAL, NO_POST, Origin, POLL_INTERVAL,
    PROGRESS_REGEX, QUIET, REPO, STRICT, TAIL, TASK_NAME, TASK_TYPE, THREAD, TIMEOUT, VERBOSE,
};
use super::launch;
use super::sources::{Sources, Unusable};
use super::{Config, DEFAULT_CHANNEL, Environment, Problem, Supervision, Target};
#[cfg(feature = "serve")]
use super::{DEFAULT_LISTEN, Serve};
use crate::args::{BackgroundChoice, ColorChoice, GlobalArgs, progress_pattern};
use crate::checkpoint::context::Thresholds;
use crate::checkpoint::mask::Masker;
use crate::checkpoint::parse::{self, Invalid, Thread};
use crate::checkpoint::question;
use crate::delivery::http::Network;
use crate::exit::{Exit, Failure, one_line};
use crate::secret::Secret;
use crate::trust::Authorities;

/// Where a proxy may be named, in the order in which Slack's own SDK for Python looks for one.
const PROXIES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const DEFAULT_MIN_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);
/// Apps with the strictest limits may read a thread once a minute; the others' limits leave room for several questions.
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_KILL_AFTER: Duration = Duration::from_secs(10);
/// In lines.
const DEFAULT_TAIL: usize = 20;

/// Resolves everything.
///
/// # Errors
/// A file that a flag names and that cannot be read (64).
pub(crate) fn resolve(global: &GlobalArgs, flags: Flags, env: Environment<'_>) -> Result<Config, Failure> {
    let mut sources = Sources::new(env);
    let dirs = ProjectDirs::from("", "", "agent-checkpoint");
    let (env_file, config_file) = sources.read_files(global, dirs.as_ref())?;

    for (key, value) in flags.given().into_iter().chain(global_flags(global)) {
        sources.note(key, &value, Origin::Flag);
    }
    let mut secrets = Vec::new();
    let target = sources.target(&mut secrets);
    let (signing_secret, app_token) = sources.inbound(&mut secrets);
    let authorities = Authorities {
        file: sources.plain_env("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(absolute),
        dirs: sources.plain_env("SSL_CERT_DIR").filter(|path| !path.is_empty()).map(absolute_each),
    };
    #[cfg(feature = "serve")]
    let serve_token = sources.serve_token(&mut secrets);
    #[cfg(not(feature = "serve"))]
    secrets.extend(sources.unused_secret(keys::SERVE_TOKEN));
    #[cfg(feature = "postgres")]
    let audit = sources.audit(&authorities, &mut secrets);
    #[cfg(not(feature = "postgres"))]
    for key in [keys::DATABASE_URL, keys::NEON_DATABASE_URL] {
        if let Some(secret) = sources.unused_secret(key) {
            secrets.extend(password_of(secret.reveal()).map(Secret::new));
            secrets.push(secret);
        }
    }
    let Aim { target, channel, default_channel, thread } = aim(&flags, target, &mut sources);
    let secret_text = |key: &str| sources.plain_env(key).filter(|value| !value.is_empty()).map(Secret::new);
    let proxy = PROXIES.into_iter().find_map(secret_text);
    let network = Network {
        proxy,
        no_proxy: sources.plain_env("NO_PROXY").or_else(|| sources.plain_env("no_proxy")),
        authorities,
    };
    secrets.extend(network.proxy.as_ref().and_then(|proxy| password_of(proxy.reveal())).map(Secret::new));

    let no_color = sources.plain_env("NO_COLOR").is_some_and(|value| !value.is_empty())
        || sources.plain_env("TERM").as_deref() == Some("dumb");
    let default_color = if no_color { ColorChoice::Never } else { ColorChoice::Auto };
    let cache = cache_path(global, dirs.as_ref(), env, &mut sources);
    sources.tell_of_unreadable_files(matches!(target, Target::Broken));
    let thresholds = thresholds((flags.context_warn, flags.context_alert), &mut sources)?;
    let config = Config {
        json: global.json || sources.tuning(JSON, parse::switch).unwrap_or(false),
        quiet: global.quiet || sources.tuning(QUIET, parse::switch).unwrap_or(false),
        verbose: match global.verbose {
            0 => sources.tuning(VERBOSE, verbosity).unwrap_or(0),
            count => count,
        },
        color: global.color.or_else(|| sources.tuning(COLOR, choice)).unwrap_or(default_color),
        cache,
        agent_id: flags.agent_id.or_else(|| sources.tuning(AGENT_ID, parse::agent_id)),
        task_name: flags
            .task_name
            .or_else(|| sources.tuning(TASK_NAME, parse::name))
            .filter(|text| !text.is_empty()),
        task_type: flags
            .task_type
            .or_else(|| sources.tuning(TASK_TYPE, parse::name))
            .filter(|text| !text.is_empty()),
        repo: flags.repo.or_else(|| sources.tuning(REPO, parse::name)).filter(|text| !text.is_empty()),
        channel,
        default_channel,
        thread,
        handover: Handover::find(env, &mut sources),
        min_interval: flags
            .min_interval
            .or_else(|| sources.tuning(MIN_INTERVAL, parse::duration))
            .unwrap_or(DEFAULT_MIN_INTERVAL),
        deadline: flags
            .deadline
            .or_else(|| sources.tuning(DEADLINE, parse::duration))
            .unwrap_or(DEFAULT_DEADLINE),
        background: flags
            .background
            .or_else(|| sources.tuning(BACKGROUND, choice))
            .unwrap_or(BackgroundChoice::Auto),
        strict: flags.strict || sources.tuning(STRICT, parse::switch).unwrap_or(false),
        no_post: flags.no_post || sources.tuning(NO_POST, parse::switch).unwrap_or(false),
        // A list that cannot be read is not one that lets everybody in: nobody is asked, and nobody may cancel.
        approvers: sources
            .destination_or(APPROVERS, question::user_ids, "nobody can be asked until it is mended", false)
            .ok()
            .map(Option::unwrap_or_default),
        launch: launch::Launch::find(&mut sources),
        poll_interval: sources
            .tuning(POLL_INTERVAL, parse::duration)
            .unwrap_or(DEFAULT_POLL_INTERVAL)
            .max(Duration::from_millis(20)),
        supervision: Supervision {
            heartbeat: Some(
                flags
                    .heartbeat
                    .or_else(|| sources.tuning(HEARTBEAT, parse::duration))
                    .unwrap_or(DEFAULT_HEARTBEAT),
            )
            .filter(|every| !every.is_zero()),
            timeout: flags
                .timeout
                .or_else(|| sources.tuning(TIMEOUT, parse::duration))
                .filter(|limit| !limit.is_zero()),
            kill_after: flags
                .kill_after
                .or_else(|| sources.tuning(KILL_AFTER, parse::duration))
                .unwrap_or(DEFAULT_KILL_AFTER),
            tail: flags
                .tail
                .or_else(|| sources.tuning(TAIL, parse::count))
                .map_or(DEFAULT_TAIL, |lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            pattern: flags.pattern.or_else(|| sources.tuning(PROGRESS_REGEX, progress_pattern)),
        },
        context_limit: flags.context_limit.or_else(|| sources.tuning(CONTEXT_LIMIT, parse::context_limit)),
        thresholds,
        target,
        signing_secret,
        app_token,
        #[cfg(feature = "postgres")]
        audit,
        #[cfg(feature = "serve")]
        serve: Serve {
            listen: flags
                .listen
                .or_else(|| sources.tuning(keys::LISTEN, parse::listen))
                .unwrap_or_else(|| DEFAULT_LISTEN.to_owned()),
            token: serve_token,
        },
        network,
        secrets,
        problems: sources.problems,
        origins: sources.origins,
        config_file,
        env_file,
    };
    Ok(config.masked())
}

/// Where a task's messages are to go.
struct Aim {
    target: Target,
    channel: Option<String>,
    default_channel: Option<String>,
    thread: Option<Thread>,
}

/// A flag speaks of this task; the environment and the file speak of all that say nothing else. What cannot be read
/// leaves the messages waiting: elsewhere would be another place than was asked for.
fn aim(flags: &Flags, target: Target, sources: &mut Sources<'_>) -> Aim {
    let (channel, default_channel, target) = match &flags.channel {
        Some(channel) => (Some(channel.clone()), Some(channel.clone()), target),
        None => match sources.destination(CHANNEL, parse::channel) {
            Ok(channel) => (None, Some(channel.unwrap_or_else(|| DEFAULT_CHANNEL.to_owned())), target),
            Err(Unusable) => (None, None, target.broken()),
        },
    };
    match (&flags.thread, &flags.channel) {
        (Some(thread), _) => Aim { target, channel, default_channel, thread: Some(thread.clone()) },
        (None, Some(_)) => Aim { target, channel, default_channel, thread: None },
        (None, None) => match sources.destination(THREAD, parse::thread) {
            Ok(thread) => Aim { target, channel, default_channel, thread },
            Err(Unusable) => {
                Aim { target: target.broken(), channel: None, default_channel: None, thread: None }
            }
        },
    }
}

/// The file that holds the state; `None` when there is no home directory to keep it in.
fn cache_path(
    global: &GlobalArgs,
    dirs: Option<&ProjectDirs>,
    env: Environment<'_>,
    sources: &mut Sources<'_>,
) -> Option<PathBuf> {
    let default = || {
        let dirs = dirs?;
        let path = dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).join("cache.db");
        Some(path).filter(|path| path.is_absolute())
    };
    let path = match &global.cache {
        Some(path) => Some(path.clone()),
        None => sources.tuning(CACHE, |text| Ok(PathBuf::from(text))).or_else(default),
    };
    let home = env("HOME").filter(|home| !home.is_empty() && Path::new(home).is_relative());
    if let (None, Some(home)) = (&path, home) {
        sources.problems.push(Problem {
            message: format!("HOME: '{}' is not an absolute path", one_line(&home.to_string_lossy())),
            hint: "make it one, or name a file with --cache".to_owned(),
            harmless: true,
        });
    }
    path.map(absolute)
}

/// Masks the secrets in the environment, for what is said before there is a [`Config`].
pub(crate) fn masker_of(env: Environment<'_>) -> Masker {
    let value = |name: &str| env(name)?.into_string().ok().map(|value| value.trim().to_owned());
    let secrets = KEYS.iter().filter(|key| key.secret).filter_map(|key| value(key.env));
    let passwords = [keys::DATABASE_URL.env, keys::NEON_DATABASE_URL.env].into_iter().chain(PROXIES);
    let passwords = passwords.filter_map(|name| password_of(&value(name)?));
    let all: Vec<String> = secrets.chain(passwords).filter(|text| !text.starts_with("file:")).collect();
    Masker::new(all.iter().map(String::as_str))
}

/// The thresholds, of which the warning never lies above the alert: then it could not be seen. A default gives way.
fn thresholds(
    (warn, alert): (Option<u8>, Option<u8>),
    sources: &mut Sources<'_>,
) -> Result<Thresholds, Failure> {
    let hint = "warn at a lower percentage than you alert at, such as 70 and 85";
    if let (Some(warn), Some(alert)) = (warn, alert)
        && warn > alert
    {
        let message = format!("--context-warn: '{warn}' lies above --context-alert, {alert}");
        return Err(Failure::new(Exit::Usage, message).hint(hint));
    }
    let within = |text: &str, least: Option<u8>, most: Option<u8>| {
        let value = parse::threshold(text)?;
        match (least.filter(|least| value < *least), most.filter(|most| value > *most)) {
            (Some(warn), _) => Err(Invalid::new(format!("lies below the warning at {warn}"), hint)),
            (_, Some(alert)) => Err(Invalid::new(format!("lies above the alert at {alert}"), hint)),
            _ => Ok(value),
        }
    };
    let warn = warn.or_else(|| sources.tuning(CONTEXT_WARN, |text| within(text, None, alert)));
    let alert = alert.or_else(|| sources.tuning(CONTEXT_ALERT, |text| within(text, warn, None)));
    let defaults = Thresholds::default();
    Ok(Thresholds {
        warn: warn.unwrap_or(defaults.warn.min(alert.unwrap_or(defaults.warn))),
        alert: alert.unwrap_or(defaults.alert.max(warn.unwrap_or(defaults.alert))),
    })
}

/// From the root: a courier leaves the directory of its caller.
pub(super) fn absolute(path: impl AsRef<Path>) -> PathBuf {
    std::path::absolute(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned())
}

/// The same for a list of directories, as in `PATH`.
fn absolute_each(paths: String) -> OsString {
    let paths: Vec<PathBuf> = std::env::split_paths(&paths).map(absolute).collect();
    std::env::join_paths(paths).expect("they were separated by what separates them")
}

fn choice<T: clap::ValueEnum>(text: &str) -> Result<T, Invalid> {
    T::from_str(text.trim(), true).map_err(|_| {
        let names: Vec<_> = T::value_variants()
            .iter()
            .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
            .collect();
        Invalid::new("is not a valid value", format!("use one of {}", names.join(", ")))
    })
}

fn verbosity(text: &str) -> Result<u8, Invalid> {
    match parse::switch(text) {
        Ok(on) => Ok(u8::from(on)),
        Err(_) => text.trim().parse().map_err(|_| Invalid::new("is not a level of detail", "use 0, 1 or 2")),
    }
}

/// The password in a URL, if it has one.
pub(super) fn password_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, password) = authority.rsplit_once('@')?.0.split_once(':')?;
    (!password.is_empty()).then(|| password.to_owned())
}
