//! One quiet Slack thread per agent, from any shell script, subprocess or CI step.
//!
//! Data flows one way: args → checkpoint → store → delivery → audit. Only `cmd` sees all of them.

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("agent-checkpoint supports Linux and macOS only");

mod args;
#[cfg(feature = "postgres")]
mod audit;
mod checkpoint;
mod child;
mod cmd;
mod config;
mod delivery;
mod exit;
mod fault;
mod input;
mod interaction;
mod pace;
mod render;
mod secret;
#[cfg(feature = "serve")]
mod serve;
mod store;
mod trust;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    cmd::stand_guard();
    fault::install(|exit| std::process::exit(exit.code().into()));
    let mut ui = ui::Ui::early(None);
    let exit = match args::parse(std::env::args_os()) {
        Ok(Ok(cli)) => {
            ui = ui::Ui::early(cli.global.color);
            cmd::run(cli)
        }
        Ok(Err(help)) => ui.answer(help.trim_end()).map(|()| exit::Exit::Done),
        Err(failure) => Err(failure.into()),
    };
    exit.unwrap_or_else(|error| {
        let failure = exit::Failure::from(error);
        ui.masking(config::masker_of(&|name| std::env::var_os(name))).failure(&failure);
        failure.exit
    })
    .into()
}
