//! The README's tables, compared with what the program knows.

use clap::CommandFactory;

use crate::args::{Cli, GlobalArgs};
use crate::checkpoint::outbox::Delivery;
use crate::checkpoint::status::Status;
use crate::config::{self, Flags, KEYS, VARIABLES};
use crate::exit::CODES;

const README: &str = include_str!("../../README.md");

/// The rows of the table whose header begins with `first`, each as its cells.
#[track_caller]
fn table(first: &str) -> Vec<Vec<&'static str>> {
    let mut lines = README.lines().skip_while(|line| !line.starts_with(&format!("| {first} |")));
    lines.next().unwrap_or_else(|| panic!("no table of {first}"));
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches(['|', ' ']).split(" | ").collect()).collect()
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[test]
fn every_setting_is_listed_with_its_flag_and_default() {
    let command = Cli::command();
    let has_flag = |flag: &str| {
        let mut subs = command.get_subcommands().chain([&command]);
        subs.any(|sub| sub.get_arguments().any(|arg| arg.get_long() == Some(flag)))
    };
    // Nobody's own settings: neither the environment nor a config file.
    let global = GlobalArgs { config: Some("/dev/null".into()), ..GlobalArgs::default() };
    let config = config::resolve(&global, Flags::default(), &|_| None).expect("no settings");
    let settings = config.settings();
    let default =
        |name: &str| settings.iter().find(|(known, ..)| *known == name).map(|(_, value, _)| value.clone());
    let rows = table("flag");
    assert_eq!(rows.len(), KEYS.len());
    for (row, key) in rows.iter().zip(KEYS) {
        let flag = key.file.replace('_', "-");
        // The flag of a command that was left out.
        let is_left_out = flag == "listen" && cfg!(not(feature = "serve"));
        let flag = if is_left_out || has_flag(&flag) { code(&format!("--{flag}")) } else { "–".to_owned() };
        assert_eq!([row[0], row[1], row[2], row[4]], [&flag, &code(key.env), &code(key.file), key.meaning]);
        match default(key.file) {
            Some(_) if key.file == "cache" => assert!(row[3].starts_with("`cache.db`"), "{row:?}"),
            Some(value) => assert_eq!(row[3], code(&value), "{row:?}"),
            None => {}
        }
    }
}

#[test]
fn every_other_variable_is_listed() {
    let rows = table("variable");
    let cell = |names: &str| names.split(", ").map(code).collect::<Vec<_>>().join(", ");
    let known: Vec<_> =
        VARIABLES.iter().map(|(names, meaning)| vec![cell(names), (*meaning).to_owned()]).collect();
    assert_eq!(rows, known);
}

#[test]
fn every_status_is_listed() {
    let rows = table("status");
    assert_eq!(rows.len(), Status::ALL.len());
    for (row, status) in rows.iter().zip(Status::ALL) {
        let posted = if status.is_immediate() { "at once" } else { "routine" };
        let colour = code(status.colour());
        let expected = [status.name(), status.emoji(), &colour, status.task_state().name(), posted];
        assert_eq!(row[..], expected);
    }
}

#[test]
fn every_exit_code_is_listed() {
    let known: Vec<_> =
        CODES.iter().map(|(code, meaning)| vec![(*code).to_owned(), (*meaning).to_owned()]).collect();
    assert_eq!(table("code"), known);
}

#[test]
fn every_delivery_is_listed() {
    let rows = table("delivery");
    for row in &rows {
        assert!(Delivery::parse(row[0].trim_matches('`')).is_some(), "{row:?}");
    }
    // The compiler names this place when there is another.
    let count = match Delivery::Sent {
        Delivery::Sent
        | Delivery::Coalesced
        | Delivery::Queued
        | Delivery::Unconfirmed
        | Delivery::Rejected
        | Delivery::Printed
        | Delivery::Off => 7,
    };
    assert_eq!(rows.len(), count);
}
