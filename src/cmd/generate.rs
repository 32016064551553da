//! `completions` and `man`: generated from the same definition that reads the command line.

use std::path::Path;
use std::{fs, io};

use clap::{Command, CommandFactory, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::config::{KEYS, VARIABLES};
use crate::exit::{CODES, Exit, Failure, cause};
use crate::ui::Ui;

const NAME: &str = "agent-checkpoint";
/// When the manual last changed a lot. A constant, so that the pages do not change with the day.
const DATE: &str = "2026-11-25";
/// Where the files are, without what differs between users.
const FILES: &[(&str, &str)] = &[
    ("$XDG_CONFIG_HOME/agent-checkpoint/config.toml", "Settings. Without XDG_CONFIG_HOME below ~/.config."),
    (
        "$XDG_STATE_HOME/agent-checkpoint/cache.db",
        "The cache: what was recorded and what waits. Without XDG_STATE_HOME below ~/.local/state.",
    ),
    ("cache.db.corrupt-TIME", "Beside the cache: a damaged one that was set aside."),
    (
        "~/Library/Application Support/agent-checkpoint/",
        "On macOS the directory of both config.toml and cache.db.",
    ),
];

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let shell: Shell = args
        .shell
        .parse()
        .map_err(|_| Failure::new(Exit::Usage, format!("SHELL: '{}' is not a known shell", args.shell)))?;
    let mut command = without_file_names(visible(Cli::command()));
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match shell {
        // clap_complete spells the dash of a program's name in two ways, so that no command would be found.
        Shell::Bash => script.replace("agent__subcmd__checkpoint__subcmd__", "agent__checkpoint__subcmd__"),
        // In a value's name it does not quote the colon, which would end the name.
        Shell::Zsh => script.replace(":CHANNEL:TS:", r":CHANNEL\:TS:"),
        Shell::Fish => script.into_owned() + &fish_arguments(&command),
        _ => script.into_owned(),
    };
    Ui::early(None).answer(script.trim_end())?;
    Ok(Exit::Done)
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    let failed = |what: &str, path: &Path, error: &io::Error| {
        Failure::new(Exit::Failed, format!("could not {what} {}: {}", path.display(), cause(error)))
            .hint("name a directory that you may write to")
    };
    fs::create_dir_all(&args.dir).map_err(|error| failed("make directory", &args.dir, &error))?;
    let write = |name: &str, page: String| {
        let path = args.dir.join(format!("{name}.1"));
        fs::write(&path, page).map_err(|error| failed("write", &path, &error))
    };
    let mut root = visible(Cli::command());
    root.build();
    let mut names = Vec::new();
    for sub in root.get_subcommands() {
        let name = page_name(NAME, sub);
        for below in sub.get_subcommands() {
            let name_below = page_name(&name, below);
            let mut page = page(&name_below, below.clone().display_name(&name_below))?;
            section(&mut page, "SEE ALSO", |roff| see_also(roff, std::slice::from_ref(&name)));
            write(&name_below, page)?;
        }
        let mut page = page(&name, sub.clone().display_name(&name))?;
        section(&mut page, "SEE ALSO", |roff| see_also(roff, &[NAME.to_owned()]));
        write(&name, page)?;
        names.push(name);
    }
    let mut page = page(NAME, root)?;
    section(&mut page, "EXIT STATUS", |roff| {
        for (code, meaning) in CODES {
            entry(roff, code, meaning);
        }
    });
    section(&mut page, "ENVIRONMENT", |roff| {
        for key in KEYS {
            entry(roff, key.env, key.meaning);
        }
        for (name, meaning) in VARIABLES {
            entry(roff, name, meaning);
        }
        roff.control("PP", []);
        roff.text([roman(
            "In the config file the settings have the names of the long flags in snake case. \
             A secret may be given as file:PATH.",
        )]);
    });
    section(&mut page, "FILES", |roff| {
        for (name, meaning) in FILES {
            entry(roff, name, meaning);
        }
    });
    section(&mut page, "SEE ALSO", |roff| see_also(roff, &names));
    write(NAME, page)?;
    Ok(Exit::Done)
}

fn page_name(above: &str, command: &Command) -> String {
    format!("{above}-{}", command.get_name())
}

/// The definition without what is started by the program itself.
fn visible(command: Command) -> Command {
    // clap cannot remove a subcommand, so the others are put into a new command with the same options.
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned().collect::<Vec<_>>();
    let mut visible = Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .args(command.get_arguments().cloned().collect::<Vec<_>>())
        .subcommands(shown);
    if let Some(about) = command.get_long_about() {
        visible = visible.long_about(about.clone());
    }
    if let Some(after) = command.get_after_long_help() {
        visible = visible.after_long_help(after.clone());
    }
    visible
}

/// Offers file names only where a file is wanted: shells offer them for whatever they know nothing of.
///
/// Only of flags: where zsh knows nothing to offer for an argument, it offers no flags there either.
fn without_file_names(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let takes_anything = arg.get_action().takes_values() && arg.get_value_hint() == ValueHint::Unknown;
        if takes_anything && !arg.is_positional() { arg.value_hint(ValueHint::Other) } else { arg }
    });
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_file_names))
}

/// What clap_complete leaves out for fish: the values of arguments that are no flags.
fn fish_arguments(command: &Command) -> String {
    let mut lines = String::new();
    for sub in command.get_subcommands() {
        let values = sub.get_positionals().flat_map(|arg| arg.get_possible_values());
        let values: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        if !values.is_empty() {
            lines.push_str(&format!(
                "complete -c {NAME} -n \"__fish_agent_checkpoint_using_subcommand {}\" -f -a \"{}\"\n",
                sub.get_name(),
                values.join(" ")
            ));
        }
    }
    lines
}

/// A page as far as clap's definition goes.
fn page(name: &str, mut command: Command) -> anyhow::Result<String> {
    let usage = command.render_usage().to_string();
    let (after, examples) = after_help(&command);
    let mut head = Roff::new();
    head.control(
        "TH",
        [name, "1", DATE, concat!("agent-checkpoint ", env!("CARGO_PKG_VERSION")), "User Commands"],
    );
    let mut page = head.render();
    let man = Man::new(command);
    let mut part = Vec::new();
    man.render_name_section(&mut part)?;
    append(&mut page, &part);
    section(&mut page, "SYNOPSIS", |roff| synopsis(roff, &usage));
    part.clear();
    man.render_description_section(&mut part)?;
    append(&mut page, &part);
    if !after.is_empty() {
        let mut more = Roff::new();
        more.control("PP", []);
        more.text([roman(after)]);
        append(&mut page, more.render().as_bytes());
    }
    part.clear();
    man.render_options_section(&mut part)?;
    if usage.contains("<COMMAND>") {
        man.render_subcommands_section(&mut part)?;
    }
    append(&mut page, &part);
    section(&mut page, "EXAMPLES", |roff| {
        roff.control("nf", []);
        for example in examples {
            roff.text([roman(example)]);
        }
        roff.control("fi", []);
    });
    Ok(page)
}

/// What stands below the options in the help: sentences, then examples.
fn after_help(command: &Command) -> (String, Vec<String>) {
    let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let (sentences, examples) = text.split_once("Examples:\n").unwrap_or((&text, ""));
    let examples = examples.lines().map(|line| line.trim().to_owned()).collect();
    (sentences.split_whitespace().collect::<Vec<_>>().join(" "), examples)
}

/// `Usage: NAME [OPTIONS] <ARG>`: the name in bold, what is to be replaced in italics.
fn synopsis(roff: &mut Roff, usage: &str) {
    let usage = usage.trim_start_matches("Usage: ");
    let start = usage.find(['[', '<']).unwrap_or(usage.len());
    let (name, rest) = usage.split_at(start);
    let words = rest.split_inclusive(['[', ']', '<', '>', ' ']).flat_map(|part| {
        let cut = part.trim_end_matches(['[', ']', '<', '>', ' ']).len();
        [(italic as fn(String) -> _, &part[..cut]), (roman, &part[cut..])]
    });
    let words = words.filter(|(_, text)| !text.is_empty()).map(|(font, text)| font(text.to_owned()));
    roff.text([bold(name.trim_end()), roman(" ")].into_iter().chain(words).collect::<Vec<_>>());
}

fn section(page: &mut String, heading: &str, fill: impl FnOnce(&mut Roff)) {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    fill(&mut roff);
    append(page, roff.render().as_bytes());
}

fn entry(roff: &mut Roff, name: &str, meaning: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(meaning)]);
}

fn see_also(roff: &mut Roff, names: &[String]) {
    let last = names.len().saturating_sub(1);
    for (index, name) in names.iter().enumerate() {
        let end = if index < last { "(1)," } else { "(1)" };
        roff.text([bold(name), roman(end)]);
    }
}

/// Adds a part, without what each part begins with, and with one empty line where clap_mangen makes a doubtful two.
fn append(page: &mut String, part: &[u8]) {
    let part = String::from_utf8_lossy(part);
    let begin = Roff::new().render();
    page.push_str(&part.replace(&begin, "").replace(".br\n\n.br\n", ".sp\n"));
}
