//! `completions` and `man`: generated from the same definition that reads the command line.

use std::fs;
use std::io::Write;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::{CODES, Exit, Failure};
use crate::ui::Ui;

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let shell: Shell = args
        .shell
        .parse()
        .map_err(|_| Failure::new(Exit::Usage, format!("SHELL: '{}' is not a known shell", args.shell)))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(Cli::command()), "agent-checkpoint", &mut script);
    Ui::plain().answer(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("could not make directory {}", args.dir.display()))?;
    let mut root = visible(Cli::command());
    root.build();
    let write = |name: &str, command: Command, is_root: bool| -> anyhow::Result<()> {
        let path = args.dir.join(format!("{name}.1"));
        fs::write(&path, page(name, command, is_root)?)
            .with_context(|| format!("could not write {}", path.display()))
    };
    for sub in root.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("agent-checkpoint-{}", sub.get_name());
        write(&name, sub.clone().display_name(&name), false)?;
    }
    write("agent-checkpoint", root.clone(), true)?;
    Ok(Exit::Done)
}

/// The definition without what is started by the program itself.
fn visible(command: Command) -> Command {
    let hidden: Vec<String> = command
        .get_subcommands()
        .filter(|sub| sub.is_hide_set())
        .map(|sub| sub.get_name().to_owned())
        .collect();
    if hidden.is_empty() {
        return command;
    }
    // clap cannot remove a subcommand, so the others are put into a new command with the same options.
    let mut visible = Command::new("agent-checkpoint")
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .args(command.get_arguments().cloned().collect::<Vec<_>>())
        .subcommands(command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned().collect::<Vec<_>>());
    if let Some(after) = command.get_after_long_help() {
        visible = visible.after_long_help(after.clone());
    }
    visible
}

fn page(name: &str, command: Command, is_root: bool) -> anyhow::Result<Vec<u8>> {
    // No date: the page must not change with the day.
    let man = Man::new(command)
        .title(name)
        .section("1")
        .date("")
        .source(concat!("agent-checkpoint ", env!("CARGO_PKG_VERSION")))
        .manual("");
    let mut page = Vec::new();
    man.render(&mut page)?;
    if is_root {
        let mut codes = Roff::new();
        codes.control("SH", ["EXIT STATUS"]);
        for (code, meaning) in CODES {
            codes.control("TP", []);
            codes.text([bold(code.to_string())]);
            codes.text([roman(*meaning)]);
        }
        page.write_all(codes.render().as_bytes())?;
    }
    Ok(page)
}
