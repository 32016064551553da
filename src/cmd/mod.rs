//! From a command to what it does. Only this layer sees all the others, reads the clock and prints.

mod answer;
mod ask;
mod courier;
#[cfg(feature = "postgres")]
mod db;
mod deliver;
mod doctor;
mod emit;
#[cfg(feature = "postgres")]
mod fleet;
mod flush;
#[cfg(feature = "postgres")]
mod forward;
#[cfg(not(feature = "postgres"))]
#[path = "forward_off.rs"]
mod forward;
mod generate;
mod guard;
mod handover;
mod interact;
mod masking;
mod metrics;
#[cfg(test)]
mod readme;
mod receipt;
mod record;
mod replies;
mod run;
#[cfg(feature = "serve")]
mod serve;
mod show;
mod stream;
mod tasks;
mod worker;
mod wrapper;

pub(crate) use guard::stand as stand_guard;
use std::ffi::OsString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::args::{Cli, Command};
use crate::checkpoint::time::Moment;
use crate::config::{Config, Flags, Target};
use crate::exit::{Exit, Failure};
use crate::store::{OpenError, Opened, Store, StoreError};
use crate::ui::Ui;

/// The longest that a transaction waits for other processes.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// A deadline further off than this means none; the clock itself could not count to some that can be typed.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The least time that a transaction waits for them, however short the deadline: they take milliseconds each.
const BUSY_MIN: Duration = Duration::from_secs(1);

/// Runs a command.
///
/// # Errors
/// What the user should read; a [`Failure`] where it means a certain exit code.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { global, command } = cli;
    crate::child::outlive_file_limit(matches!(command, Command::Run(_)));
    match command {
        Command::Emit(args) => emit::run(&global, *args),
        Command::Run(args) => run::run(&global, &args),
        Command::Stream(args) => stream::run(&global, &args),
        Command::Ask(args) => ask::run(&global, *args),
        Command::Answer(args) => answer::run(&global, &args),
        Command::Replies(args) => replies::run(&global, &args),
        #[cfg(feature = "postgres")]
        Command::Tasks(args) if args.source.fleet => fleet::list(&global, &args),
        Command::Tasks(args) => tasks::run(&global, &args),
        #[cfg(feature = "postgres")]
        Command::Show(args) if args.source.fleet => fleet::find(&global, &args),
        Command::Show(args) => show::run(&global, &args),
        #[cfg(feature = "postgres")]
        Command::Metrics(args) if args.source.fleet => fleet::totals(&global, &args),
        Command::Metrics(args) => metrics::run(&global, &args),
        Command::Flush(args) => flush::run(&global, &args),
        #[cfg(feature = "postgres")]
        Command::Db(args) => db::run(&global, &args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&global, &args),
        Command::Doctor(args) => doctor::run(&global, &args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
        Command::Courier(args) => courier::run(&global, &args),
        Command::Guard(args) => guard::run(&global, &args),
    }
}

/// The moment of an event that is about to be stamped.
fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A number from 0 to 1 that differs between processes that fail together.
fn jitter() -> f64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    f64::from(nanos.wrapping_mul(std::process::id().wrapping_mul(2_654_435_761) | 1)) / f64::from(u32::MAX)
}

fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Resolves the configuration and says what is wrong with it.
fn configure(global: &crate::args::GlobalArgs, flags: Flags) -> anyhow::Result<(Config, Ui)> {
    let config = crate::config::resolve(global, flags, &environment)?;
    let ui = Ui::new(config.color, config.quiet, config.verbose, config.masker());
    Ok((config, ui))
}

/// Names every wrong setting on standard error.
fn report_problems(config: &Config, ui: &Ui) {
    for problem in &config.problems {
        if problem.harmless {
            ui.warn(&problem.message, Some(&problem.hint));
        } else {
            ui.wrong(&problem.message, Some(&problem.hint));
        }
    }
}

/// How long a caller with a deadline waits for the cache: where anything is posted the other half is for doing so without
/// it, should it stay busy.
fn busy_max(config: &Config) -> Duration {
    let posts = matches!(config.target, Target::Slack(_)) && !config.no_post;
    let share = if posts { config.deadline / 2 } else { config.deadline };
    share.clamp(BUSY_MIN, BUSY_MAX)
}

/// Opens the cache, and says so if it had to start afresh.
fn open(config: &Config, ui: &Ui, busy: Duration) -> Result<Store, OpenError> {
    let Some(path) = &config.cache else {
        return Err(OpenError::Unusable {
            path: "cache.db".into(),
            reason: "there is no home directory to keep it in; name a file with --cache".to_owned(),
        });
    };
    Store::open_at(path, busy).map(|opened| unpack(opened, ui))
}

/// Opens the cache for a thread that lives long and does without it while it cannot be had.
fn open_quietly(config: &Config, busy: Duration) -> Option<Store> {
    let mut store = Store::open_at(config.cache.as_ref()?, busy).ok()?.store;
    store.keep_statements();
    Some(store)
}

fn unpack(Opened { store, set_aside }: Opened, ui: &Ui) -> Store {
    if let Some(aside) = set_aside {
        ui.wrong(
            &format!("cache {} was damaged; started afresh", store.path().display()),
            Some(&format!("the damaged one is kept as {}", aside.display())),
        );
    }
    store
}

/// What to do about a cache of which some part cannot be read.
const DAMAGED: &str = "move the file away: the next call begins a new one";

/// What the user should read of a cache that failed in use.
fn about_cache(error: anyhow::Error, config: &Config) -> anyhow::Error {
    let (error, path) = match (error.downcast::<StoreError>(), &config.cache) {
        (Ok(error), Some(path)) => (error, path),
        (Ok(error), None) => return error.into(),
        (Err(error), _) => return error,
    };
    let hint = if error.corrupt { DAMAGED } else { "run agent-checkpoint doctor" };
    Failure::new(Exit::Failed, format!("could not use cache {}: {error}", path.display())).hint(hint).into()
}

/// Opens the cache for a command that is of no use without it.
fn open_or_fail(config: &Config, ui: &Ui) -> anyhow::Result<Store> {
    open(config, ui, BUSY_MAX).map_err(|error| {
        let hint = "mend the file, or name another one with --cache";
        Failure::new(Exit::Failed, error.to_string()).hint(hint).into()
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::GlobalArgs;
    use crate::config::resolve;

    #[test]
    fn only_who_posts_keeps_time_for_posting_without_a_busy_cache() {
        let busy = |token: Option<&str>, no_post| {
            let env = |name: &str| {
                token
                    .filter(|_| name == "SLACK_BOT_TOKEN")
                    .or((name == "SLACK_CHANNEL").then_some("C0AGENT000"))
                    .map(OsString::from)
            };
            let flags = Flags { no_post, deadline: Some(Duration::from_secs(8)), ..Flags::default() };
            busy_max(&resolve(&GlobalArgs::default(), flags, &env).expect("settings"))
        };
        let (half, all) = (Duration::from_secs(4), Duration::from_secs(8));
        assert_eq!(busy(Some("xoxb-1-2-abc"), false), half);
        assert_eq!((busy(Some("xoxb-1-2-abc"), true), busy(None, false)), (all, all));
    }
}
