//! The committed completion scripts and manual pages: what the program generates, and fit for use.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Output, Sandbox};

/// Each shell, and its script under the name that the shell expects.
const SCRIPTS: [(&str, &str); 5] = [
    ("bash", "agent-checkpoint.bash"),
    ("zsh", "_agent-checkpoint"),
    ("fish", "agent-checkpoint.fish"),
    ("powershell", "_agent-checkpoint.ps1"),
    ("elvish", "agent-checkpoint.elv"),
];

/// A beginning of a command line, its last word, and what completes that word.
const COMPLETIONS: [(&str, &str, &str); 8] = [
    ("agent-checkpoint", "em", "emit"),
    ("agent-checkpoint emit", "--stri", "--strict"),
    ("agent-checkpoint emit --status", "wor", "working"),
    ("agent-checkpoint emit --background", "al", "always"),
    ("agent-checkpoint tasks --state", "fa", "failed"),
    ("agent-checkpoint completions", "el", "elvish"),
    ("agent-checkpoint show", "--js", "--json"),
    // Only a file is completed from files.
    ("agent-checkpoint emit --artifact", "rep", "report.txt"),
];

fn committed(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// The files of a directory and what they hold.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("a text file"))
        })
        .collect()
}

#[track_caller]
fn assert_committed(folder: &str, generated: &BTreeMap<String, String>) {
    let found = files(&committed(folder));
    let advice = "run tests/generate and commit what it writes";
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(generated), "the files of {folder}/ are not those generated: {advice}");
    for (name, text) in generated {
        assert!(found[name] == *text, "{folder}/{name} is not what the program generates: {advice}");
    }
}

/// Runs a shell, which `tests/run` installs.
fn shell(sandbox: &Sandbox, program: &str, script: &str, args: &[&str]) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    let words = args.iter().map(|arg| format!(" '{arg}'")).collect::<String>();
    let file = sandbox.write(format!("script.{program}"), script);
    let bare = match program {
        "bash" => "bash --norc",
        "zsh" => "zsh -f",
        _ => "fish --no-config",
    };
    let line = format!("command -v {program} >/dev/null || exit 99; exec {bare} '{}'{words}", file.display());
    let output = sandbox.shell(&line).env("PATH", path).run();
    assert_ne!(output.code, Some(99), "{program} is missing: tests/run installs it");
    output
}

#[test]
fn the_completion_scripts_are_the_committed_ones() {
    let sandbox = Sandbox::new();
    let generated = SCRIPTS.map(|(shell, name)| {
        let output = sandbox.cmd(["completions", shell]).run().success().stderr_is("");
        (name.to_owned(), output.stdout)
    });
    assert_committed("completions", &generated.into());
}

#[test]
fn the_manual_pages_are_the_committed_ones() {
    let sandbox = Sandbox::new();
    sandbox.cmd(["man", "pages/deep"]).run().success().silent();
    assert_committed("man", &files(&sandbox.work().join("pages/deep")));
}

#[test]
fn every_manual_page_that_another_one_names_is_there() {
    let pages = files(&committed("man"));
    for (name, text) in &pages {
        let text = text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
        let named = text.split_whitespace().filter_map(|word| word.trim_end_matches(',').strip_suffix("(1)"));
        for page in named.filter(|page| page.starts_with("agent-checkpoint")) {
            assert!(pages.contains_key(&format!("{page}.1")), "{name} names {page}(1)");
        }
    }
    assert!(pages["agent-checkpoint-db-migrate.1"].contains(r"\-\-deadline"));
}

#[test]
fn a_directory_that_cannot_be_written_is_named_with_a_hint() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("file", "");
    let taken = sandbox.work().join("taken");
    fs::create_dir_all(taken.join("agent-checkpoint-emit.1")).expect("a directory");
    for (dir, what) in [
        (file.join("man"), format!("make directory {}: Not a directory", file.join("man").display())),
        (taken.clone(), format!("write {}: Is a directory", taken.join("agent-checkpoint-emit.1").display())),
    ] {
        let output = sandbox.cmd(["man".as_ref(), dir.as_os_str()]).run().code(1);
        output.stderr_is(&format!(
            "agent-checkpoint: could not {what}\nhint: name a directory that you may write to\n"
        ));
    }
}

#[test]
fn what_is_generated_does_not_depend_on_the_surroundings() {
    let sandbox = Sandbox::new();
    sandbox
        .env("COLUMNS", "40")
        .env("TERM", "xterm-256color")
        .env("LANG", "de_DE.UTF-8")
        .env("TZ", "Asia/Tokyo");
    sandbox.env("HOME", "/nonexistent").env("AGENT_CHECKPOINT_COLOR", "always").env_remove("NO_COLOR");
    sandbox.env("SLACK_BOT_TOKEN", "xoxb-secret").env("SOURCE_DATE_EPOCH", "0");
    let output = sandbox.cmd(["completions", "fish"]).run().success();
    assert_eq!(output.stdout, files(&committed("completions"))["agent-checkpoint.fish"]);
    sandbox.cmd(["man", "pages"]).run().success().silent();
    assert_committed("man", &files(&sandbox.work().join("pages")));
}

// PowerShell and elvish are no packages of Debian 12: of their scripts only the comparison above is made.

#[test]
fn bash_completes_commands_flags_and_values() {
    let sandbox = Sandbox::new();
    sandbox.write("report.txt", "");
    let script = r#"
        compopt() { :; }
        source "$1"
        read -ra words <<<"$2"
        COMP_WORDS=("${words[@]}" "$3")
        COMP_CWORD=${#words[@]}
        function=$(complete -p agent-checkpoint | sed 's/.*-F \([^ ]*\).*/\1/')
        "$function" agent-checkpoint "$3" "${words[COMP_CWORD - 1]}"
        echo "${COMPREPLY[@]}"
    "#;
    let file = committed("completions/agent-checkpoint.bash");
    for (line, word, whole) in COMPLETIONS {
        let args = [&file.display().to_string(), line, word];
        shell(&sandbox, "bash", script, &args).success().stderr_is("").stdout_is(&format!("{whole}\n"));
    }
    let args = [&file.display().to_string(), "agent-checkpoint emit --channel", "rep"];
    shell(&sandbox, "bash", script, &args).success().stdout_is("rep\n");
}

#[test]
fn fish_completes_commands_flags_and_values() {
    let sandbox = Sandbox::new();
    sandbox.write("report.txt", "");
    let script = "source $argv[1]; complete -C \"$argv[2]\"";
    let file = committed("completions/agent-checkpoint.fish");
    for (line, word, whole) in COMPLETIONS {
        let (file, line) = (file.display().to_string(), format!("{line} {word}"));
        let output = shell(&sandbox, "fish", script, &[&file, &line]).success().stderr_is("");
        let found: Vec<&str> = output.stdout.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(found, [whole], "{line}\n{output}");
    }
}

#[test]
fn zsh_completes_commands_flags_and_values() {
    let sandbox = Sandbox::new();
    sandbox.write("report.txt", "");
    // A shell behind a pseudo-terminal, since completion works only in an interactive one. A key shows the line.
    let script = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell "PS1= PROMPT= RPROMPT=; unsetopt beep; fpath=(${(q)1} \$fpath); autoload -Uz compinit
            compinit -u -D; show() { print -r -- \"<\$BUFFER>\"; BUFFER= }; zle -N show; bindkey '^G' show
            print ready-\$((1 + 1))"
        wait_for() { seen=; until [[ $seen == $~1 ]]; do zpty -r shell part || exit 1; seen+=$part; done }
        wait_for '*ready-2*'
        for line in "${@[2,-1]}"; do
            zpty -w -n shell "$line"$'\t\a'
            wait_for '*<agent-checkpoint*>*'
            print -r -- "${${seen#*<}%%>*}"
        done
        zpty -w shell exit
    "#;
    // Behind `run` stands a command of its own.
    let command = [
        ("agent-checkpoint run --tail 5", "mkfif", "mkfifo"),
        ("agent-checkpoint run --", "mkfif", "mkfifo"),
    ];
    let rows = [&COMPLETIONS[..], &command].concat();
    let lines: Vec<String> = rows.iter().map(|(line, word, _)| format!("{line} {word}")).collect();
    let folder = committed("completions").display().to_string();
    let args: Vec<&str> = std::iter::once(&folder).chain(&lines).map(String::as_str).collect();
    let expected: String = rows.iter().map(|(line, _, whole)| format!("{line} {whole} \n")).collect();
    shell(&sandbox, "zsh", script, &args).success().stderr_is("").stdout_is(&expected);
}

#[test]
fn the_manual_pages_are_sound_and_whole() {
    let sandbox = Sandbox::new();
    let path = std::env::var("PATH").unwrap_or_default();
    let pages = files(&committed("man"));
    let names = pages.keys().map(|name| format!(" '{}'", committed("man").join(name).display()));
    let line = "command -v mandoc >/dev/null || exit 99; mandoc -Tlint -W warning".to_owned();
    let output = sandbox.shell(&(line + &names.collect::<String>())).env("PATH", path).run();
    assert_ne!(output.code, Some(99), "mandoc is missing: tests/run installs it");
    output.success().silent();
    let root = &pages["agent-checkpoint.1"];
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SUBCOMMANDS", "EXAMPLES"] {
        assert!(root.contains(&format!(".SH {section}\n")), "{section}");
    }
    for section in [".SH \"EXIT STATUS\"\n", ".SH ENVIRONMENT\n", ".SH FILES\n", ".SH \"SEE ALSO\"\n"] {
        assert!(root.contains(section), "{section}");
    }
    for page in pages.values() {
        assert!(page.contains(".SH EXAMPLES\n"), "{page}");
        assert!(!page.contains("courier\\fR"), "a command that is not for people: {page}");
    }
}
