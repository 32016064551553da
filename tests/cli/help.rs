//! The help of every command: examples that can be typed, and lines that fit a terminal.

use crate::support::Sandbox;

const COMMANDS: &[&str] = &[
    "emit",
    "run",
    "stream",
    "ask",
    "answer",
    "replies",
    "tasks",
    "show",
    "metrics",
    "flush",
    #[cfg(feature = "postgres")]
    "db",
    #[cfg(feature = "serve")]
    "serve",
    "doctor",
    "completions",
    "man",
];

/// The widest line, in characters.
const WIDTH_MAX: usize = 100;

#[test]
fn every_command_explains_itself_in_lines_that_fit() {
    let sandbox = Sandbox::new();
    for command in [None].into_iter().chain(COMMANDS.iter().copied().map(Some)) {
        for flag in ["--help", "-h"] {
            let output = sandbox.cmd(command.into_iter().chain([flag])).run().success().stderr_is("");
            let long = output.stdout.lines().find(|line| line.chars().count() > WIDTH_MAX);
            assert_eq!(long, None, "{output}");
            assert!(output.stdout.contains("Usage: agent-checkpoint"), "{output}");
            assert!(!output.stdout.contains("\n  courier "), "{output}");
        }
    }
}

#[test]
fn every_command_shows_examples_and_they_can_be_typed() {
    let sandbox = Sandbox::new();
    for command in [None].into_iter().chain(COMMANDS.iter().copied().map(Some)) {
        let help = sandbox.cmd(command.into_iter().chain(["--help"])).run().success();
        let (_, examples) = help.stdout.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{help}"));
        assert!(!examples.trim().is_empty(), "{help}");
        for example in examples.lines() {
            // Every flag and value is accepted: help is asked for behind them.
            let (start, _) = example.split_once(" >").unwrap_or((example, ""));
            let line = match start.rsplit_once("agent-checkpoint ") {
                // What stands behind `--` is another program's.
                Some((_, args)) => match args.split_once(" -- ") {
                    Some((args, _)) => format!("$BIN {args} --help"),
                    None => format!("$BIN {args} --help"),
                },
                None => panic!("not a call: {example}"),
            };
            sandbox.shell(&line).run().success().stderr_is("").stdout_has("Usage: agent-checkpoint");
        }
    }
}

#[test]
fn the_root_lists_every_command() {
    let sandbox = Sandbox::new();
    let output = sandbox.cmd(["--help"]).run().success();
    let (_, list) = output.stdout.split_once("\nCommands:\n").expect("a list");
    let listed: Vec<&str> = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed, COMMANDS);
    let version = format!("agent-checkpoint {}\n", env!("CARGO_PKG_VERSION"));
    sandbox.cmd(["--version"]).run().success().stdout_is(&version).stderr_is("");
}

#[test]
fn a_length_of_time_and_a_thread_are_explained_where_they_are_asked_for() {
    let sandbox = Sandbox::new();
    for command in COMMANDS {
        let help = sandbox.cmd([command, "--help"]).run().success();
        for (value, example) in
            [(" <DUR>", "30s, 5m or 1h30m"), (" <CHANNEL:TS>", "C0123456789:1503435956.000247")]
        {
            assert_eq!(help.stdout.contains(value), help.stdout.contains(example), "{value}: {help}");
        }
    }
}
