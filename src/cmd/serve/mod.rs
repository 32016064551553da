//! `serve`: answers over HTTP.

mod ears;
#[cfg(feature = "postgres")]
mod fleet;
mod launch;
mod reader;
mod unit;

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::{configure, environment, open_or_fail, report_problems};
use crate::args::{GlobalArgs, ServeArgs};
#[cfg(feature = "postgres")]
use crate::config::database::Audit;
use crate::config::{Config, Flags};
use crate::exit::{Exit, Failure, cause};
use crate::secret::Secret;
use crate::serve::{Gate, Log, Notify, Setup, Source};
use crate::ui::Ui;
#[cfg(feature = "postgres")]
use fleet::Fleet;
use reader::Cache;

pub(super) fn run(global: &GlobalArgs, args: &ServeArgs) -> anyhow::Result<Exit> {
    let flags = Flags { listen: args.listen.clone(), ..Flags::default() };
    let (mut config, ui) = configure(global, flags)?;
    if args.unit {
        report_problems(&config, &ui);
        ui.answer(unit::text(&config)?.trim_end())?;
        return Ok(Exit::Done);
    }
    config.insist()?;
    report_problems(&config, &ui);
    config.launch.repo = launch::repo(&config);
    config.launch.starts_here = !config.launch.command.is_empty() && !config.named_approvers().is_empty();
    let token = token(&config)?;
    let addresses = addresses(&config.serve.listen)?;
    let gate = gate(token, &addresses)?;
    // One that cannot be used is better told now than to everybody who asks.
    let store = open_or_fail(&config, &ui)?;
    serve(Arc::new(config), &ui, store, &addresses, gate)
}

fn serve(
    config: Arc<Config>,
    ui: &Ui,
    store: crate::store::Store,
    addresses: &[SocketAddr],
    gate: Gate,
) -> anyhow::Result<Exit> {
    let notify = Notify::to(environment("NOTIFY_SOCKET")).unwrap_or_else(|error| {
        ui.warn(&format!("NOTIFY_SOCKET cannot be used: {}", cause(&error)), None);
        Notify::default()
    });
    let log = (config.verbose > 0).then(|| {
        let ui = ui.clone();
        Arc::new(move |line: &str| ui.detail(line)) as Log
    });
    let no_thread =
        |error| Failure::new(Exit::Failed, format!("could not start a thread: {}", cause(&error)));
    let slack = ears::slack(&config, ui).map_err(no_thread)?;
    ears::socket(&config, ui).map_err(no_thread)?;
    launch::begin(&config, ui).map_err(no_thread)?;
    #[cfg(feature = "postgres")]
    super::interact::elsewhere::keep(&config, ui, true, &super::interact::Owed::default());
    let listen = config.serve.listen.clone();
    let setup = Setup {
        gate,
        source: source(config, ui, store).map_err(no_thread)?,
        slack: Some(slack),
        log,
        notify,
    };
    crate::serve::serve(addresses, setup, |address| ui.note(&format!("listening on http://{address}")))
        .map_err(|(address, error)| {
            let at = address.map_or(listen, |address| address.to_string());
            let hint = match error.kind() {
                ErrorKind::AddrInUse => {
                    "another program listens there: end it, or give another port with --listen"
                }
                ErrorKind::PermissionDenied => "give a port above 1023 with --listen",
                ErrorKind::AddrNotAvailable => "give an address of this machine with --listen",
                _ => "give another address with --listen",
            };
            Failure::new(Exit::Failed, format!("could not listen on {at}: {}", cause(&error))).hint(hint)
        })?;
    Ok(Exit::Done)
}

/// What is read: the database where one is configured, as it has what all machines did, and else the cache.
fn source(config: Arc<Config>, ui: &Ui, store: crate::store::Store) -> io::Result<Arc<dyn Source>> {
    let cache = Cache::new(Arc::clone(&config), ui.clone(), store);
    #[cfg(feature = "postgres")]
    if let Audit::Database(database) = &config.audit {
        let fleet = Fleet::new(database, config.masker(), cache, ui.clone())?;
        ui.note("tasks and metrics are read from the database");
        return Ok(fleet);
    }
    Ok(Arc::new(cache))
}

/// What readers have to show.
fn token(config: &Config) -> Result<Option<Secret>, Failure> {
    config.serve.token.clone().map_err(|problem| {
        let message = problem.message.trim_end_matches("; only serve uses it").to_owned();
        Failure::new(Exit::Config, message).hint(problem.hint)
    })
}

/// Where to listen: a name may stand for several addresses.
fn addresses(listen: &str) -> Result<Vec<SocketAddr>, Failure> {
    let unknown = |why: String| {
        Failure::new(Exit::Config, format!("could not find the address of '{listen}'{why}"))
            .hint("give one of this machine's addresses with --listen, such as 127.0.0.1:3001")
    };
    let found: Vec<SocketAddr> =
        listen.to_socket_addrs().map_err(|error| unknown(format!(": {}", cause(&error))))?.collect();
    if found.is_empty() { Err(unknown(String::new())) } else { Ok(found) }
}

/// Who may read. Whoever can be reached from elsewhere asks for a token.
fn gate(token: Option<Secret>, addresses: &[SocketAddr]) -> Result<Gate, Failure> {
    let open = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
    match (token, open) {
        (None, Some(address)) => Err(Failure::new(
            Exit::Config,
            format!("{address} can be reached from other machines, and there is no token for readers"),
        )
        .hint("set AGENT_CHECKPOINT_SERVE_TOKEN, for example to what openssl rand -hex 32 prints")),
        (token, _) => Ok(Gate::new(token)),
    }
}
