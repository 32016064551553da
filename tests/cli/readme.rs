//! The README: its recipes are run as they stand there, and what it shows is what the program prints.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::unistd::gethostname;
use serde_json::Value;

use crate::fake_slack::{CHANNEL, FakeSlack, HUMAN, Message};
use crate::support::{Output, Run, Sandbox, wait_for};

pub(crate) const README: &str = include_str!("../../README.md");

/// What stands below a heading, up to the next one of any level.
#[track_caller]
fn section(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let mut fenced = false;
    let mut end = 0;
    for line in rest.split_inclusive('\n') {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            break;
        }
        end += line.len();
    }
    &rest[..end]
}

/// The fenced blocks of one language below a heading.
#[track_caller]
pub(crate) fn blocks(heading: &str, language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    let parts = section(heading).split(&begin).skip(1);
    parts.map(|part| part.split_once("```").expect("an end of the block").0).collect()
}

#[track_caller]
pub(crate) fn block(heading: &str, language: &str) -> &'static str {
    let found = blocks(heading, language);
    assert_eq!(found.len(), 1, "{heading}: {found:?}");
    found[0]
}

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    slack.set_lenient_rate();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// A line of shell that finds `agent-checkpoint` and the caller's programs by name.
pub(crate) fn line<'a>(sandbox: &'a Sandbox, line: &str) -> Run<'a> {
    let own = Path::new(env!("CARGO_BIN_EXE_agent-checkpoint")).parent().expect("a directory");
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap_or_default());
    sandbox.shell(line).env("PATH", path)
}

/// The caller's `PATH` without `agent-checkpoint`, wherever it is installed. A directory that has it stands there as a
/// copy of links, since the interpreter of a recipe may lie beside it.
fn path_without_the_program(sandbox: &Sandbox) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let without = |(number, dir): (usize, &str)| {
        if fs::symlink_metadata(Path::new(dir).join("agent-checkpoint")).is_err() {
            return dir.to_owned();
        }
        let copy = sandbox.path().join(format!("bin{number}"));
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).expect("a directory");
        for entry in fs::read_dir(dir).expect("a directory of programs").flatten() {
            if entry.file_name() != "agent-checkpoint" {
                symlink(entry.path(), copy.join(entry.file_name())).expect("a link");
            }
        }
        copy.display().to_string()
    };
    path.split(':').enumerate().map(without).collect::<Vec<_>>().join(":")
}

/// Whether a program is there; the recipe for one that is not cannot be tried.
fn is_there(sandbox: &Sandbox, program: &str) -> bool {
    line(sandbox, &format!("{program} --version")).run().code == Some(0)
}

/// The latest message of the channel, and the card, which must show the same.
#[track_caller]
fn latest(slack: &FakeSlack) -> Message {
    let messages = slack.messages(CHANNEL);
    let last = messages.last().expect("a message").clone();
    let root = messages.iter().rfind(|message| message.thread_ts.is_none()).expect("a first message");
    assert_eq!(root.text, last.text, "the card does not show the latest state");
    last
}

/// A message without the time that its agent took.
fn timeless(text: &str) -> String {
    text.lines().filter(|line| !line.contains("Elapsed: ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_shell_recipe_reports_every_end_and_keeps_the_exit_code() {
    for (build, check, code, status, words) in [
        ("exit 0", "exit 0", 0, "COMPLETE", "Last Action: Rolled out"),
        ("exit 3", "exit 0", 3, "ERROR", "Error: exit code 3"),
        ("exit 0", "exit 1", 1, "ERROR", "Last Action: Failed: Running tests"),
        ("kill -TERM $PPID", "exit 0", 143, "CANCELLED", "Last Action: Stopped by a signal"),
        ("exit 0", "kill -INT $PPID", 130, "CANCELLED", "Last Action: Stopped by a signal"),
    ] {
        let (slack, sandbox) = set_up();
        sandbox.write("recipe", block("### Shell script", "sh"));
        sandbox.write("build", format!("#!/bin/sh\n{build}\n"));
        sandbox.write("check", format!("#!/bin/sh\n{check}\n"));
        let output = line(&sandbox, "chmod +x build check; exec sh recipe").run().code(code).silent();
        let roots = slack.roots();
        assert_eq!(roots.len(), 1, "{output}");
        let text = latest(&slack).text;
        assert!(text.contains(&format!("– {status}")) && text.contains(words), "{text}\n{output}");
        assert!(text.contains("Task: Deploy X") && text.contains("Steps: Building → "), "{text}");
    }
}

#[test]
fn the_shell_recipe_goes_on_without_the_program() {
    let sandbox = Sandbox::new();
    sandbox.write("recipe", block("### Shell script", "sh"));
    for step in ["build", "check"] {
        sandbox.write(step, "#!/bin/sh\necho done\n");
    }
    let run = sandbox.shell("chmod +x build check; exec sh recipe");
    let output = run.env("PATH", path_without_the_program(&sandbox)).run().success();
    output.stdout_is("done\ndone\n").stderr_has("agent-checkpoint");
}

/// Runs a recipe three times: as it is, with work that fails, and where the program is not installed.
fn try_program(program: &str, recipe: &str, (work, failing): (&str, &str), error: &str) {
    let (slack, sandbox) = set_up();
    if !is_there(&sandbox, program) {
        return;
    }
    // What an earlier run left open has no part in this one.
    line(&sandbox, "agent-checkpoint emit --no-post 'Left open'").run().success();
    sandbox.write("recipe", recipe);
    let run = format!("exec {program} recipe");
    line(&sandbox, &run).run().success().silent();
    let text = latest(&slack).text;
    for words in ["– COMPLETE", "Task: Nightly report", "100%", "• Report: <https://example.com/report>"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let replies = slack.messages(CHANNEL).len();
    assert_eq!((slack.roots().len(), replies), (1, 2), "what is routine is held back");
    assert!(text.contains("Steps: Reading files → Part 1 of 3 → Part 2 of 3 → Part 3 of 3 →"), "{text}");

    assert!(recipe.contains(work), "{recipe}");
    sandbox.write("recipe", recipe.replace(work, failing));
    line(&sandbox, &run).run().code(1);
    let text = latest(&slack).text;
    assert!(text.contains("– ERROR") && text.contains(error), "{text}");
    assert_eq!(slack.roots().len(), 2);

    sandbox.write("recipe", recipe);
    let run = sandbox.shell(&run).env("PATH", path_without_the_program(&sandbox));
    run.run().success().stderr_has("no checkpoint: ");
}

#[test]
fn the_python_recipe_reports_every_end_and_never_stops_the_work() {
    let recipe = block("### Python", "python");
    try_program("python3", recipe, ("    work()\n", "    raise ValueError('bad')\n"), "ValueError('bad')");
}

#[test]
fn the_python_recipe_tells_every_way_to_end_apart() {
    for (end, code, status) in [
        ("raise KeyboardInterrupt", 9, "CANCELLED"),
        ("signal.raise_signal(signal.SIGTERM)", 9, "CANCELLED"),
        ("sys.exit()", 0, "COMPLETE"),
        ("sys.exit(0)", 0, "COMPLETE"),
        ("sys.exit(3)", 9, "ERROR"),
        ("sys.exit('no disk')", 9, "ERROR"),
    ] {
        let (slack, sandbox) = set_up();
        if is_there(&sandbox, "python3") {
            let recipe = block("### Python", "python").replace("    work()\n", &format!("    {end}\n"));
            sandbox.write("recipe", recipe);
            line(&sandbox, "python3 recipe || exit 9").run().code(code);
            let text = latest(&slack).text;
            assert!(text.contains(&format!("– {status}")), "{end}: {text}");
        }
    }
}

#[test]
fn a_recipe_goes_on_after_an_action_that_no_program_can_be_given() {
    for (program, heading, language, action, nul) in [
        ("python3", "### Python", "python", "\"Reading files\"", r#""Reading\0files""#),
        ("node", "### Node", "javascript", "\"Reading files\"", r#""Reading\0files""#),
    ] {
        let (slack, sandbox) = set_up();
        if is_there(&sandbox, program) {
            sandbox.write("recipe", block(heading, language).replace(action, nul));
            let run = line(&sandbox, &format!("exec {program} recipe")).run();
            run.success().stdout_is("").stderr_has("no checkpoint: ");
            assert!(latest(&slack).text.contains("– COMPLETE"));
        }
    }
}

#[test]
fn the_install_recipe_writes_what_the_shells_find() {
    let sandbox = Sandbox::new();
    let recipes = blocks("## Install", "sh");
    line(&sandbox, &format!("set -e; {}", recipes[0])).run().success().silent();
    for file in [
        ".local/share/bash-completion/completions/agent-checkpoint",
        ".config/fish/completions/agent-checkpoint.fish",
        ".local/share/man/man1/agent-checkpoint-emit.1",
    ] {
        assert!(sandbox.home().join(file).is_file(), "{file}");
    }
    sandbox.write(sandbox.home().join(".zshrc"), recipes[1]);
    let look = "exec zsh -ic 'print -r -- $_comps[agent-checkpoint]'";
    line(&sandbox, look).env("ZDOTDIR", sandbox.home()).run().success().stdout_is("_agent-checkpoint\n");
}

#[test]
fn the_node_recipe_reports_every_end_and_never_stops_the_work() {
    let recipe = block("### Node", "javascript");
    try_program("node", recipe, ("work().then(", "Promise.reject(new Error('bad')).then("), "Error: bad");
}

#[test]
fn the_node_recipe_says_that_a_signal_ended_it() {
    for (signal, code) in [("SIGINT", 130), ("SIGTERM", 143)] {
        let (slack, sandbox) = set_up();
        if is_there(&sandbox, "node") {
            let killed = format!(
                "work().then(() => new Promise(() => {{
                   setTimeout(() => {{}}, 60_000);
                   process.kill(process.pid, '{signal}');
                 }})).then("
            );
            sandbox.write("recipe", block("### Node", "javascript").replace("work().then(", &killed));
            line(&sandbox, "exec node recipe").run().code(code).silent();
            let text = latest(&slack).text;
            assert!(text.contains("– CANCELLED") && text.contains("Stopped by a signal"), "{text}");
        }
    }
}

/// The commands of a workflow that call the program, with blocks (`- |`) as one command.
pub(crate) fn commands(yaml: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut block_indent = None;
    for text in yaml.lines() {
        assert!(!text.contains('\t'), "YAML is indented with spaces: {text}");
        let indent = text.len() - text.trim_start().len();
        match block_indent {
            Some(outer) if indent > outer => {
                let command = commands.last_mut().expect("a begun command");
                *command += text.trim();
                *command += "\n";
                continue;
            }
            _ => block_indent = None,
        }
        let item = text.trim_start().trim_start_matches("- ").trim_start_matches("run: ");
        if item == "|" {
            block_indent = Some(indent);
            commands.push(String::new());
        } else if item.starts_with("agent-checkpoint ") {
            commands.push(item.to_owned());
        }
    }
    commands
}

#[test]
fn the_workflow_recipes_call_the_program_rightly() {
    let github = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_RUN_ID", "42"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_JOB", "test"),
        ("GITHUB_REPOSITORY", "acme/rocket"),
        ("GITHUB_SERVER_URL", "https://github.com"),
        ("GITHUB_WORKFLOW", "CI"),
        ("GITHUB_SHA", "0123abc"),
    ];
    let gitlab = [
        ("GITLAB_CI", "true"),
        ("CI_PIPELINE_ID", "7"),
        ("CI_JOB_ID", "8"),
        ("CI_JOB_NAME", "test"),
        ("CI_PROJECT_PATH", "acme/rocket"),
        ("CI_COMMIT_SHORT_SHA", "0123abc"),
        ("CI_JOB_URL", "https://gitlab.com/acme/rocket/-/jobs/8"),
    ];
    for (heading, variables, id, ends) in [
        ("### GitHub Actions", &github[..], "github/acme/rocket/42.1/test", vec![("", "CANCELLED")]),
        (
            "### GitLab CI",
            &gitlab[..],
            "gitlab/acme/rocket/7/test/8",
            vec![("success", "COMPLETE"), ("canceled", "CANCELLED"), ("failed", "ERROR")],
        ),
    ] {
        let recipe = block(heading, "yaml");
        assert!(recipe.contains(r##"SLACK_CHANNEL: "#agents""##), "{recipe}");
        let commands = commands(recipe);
        for command in &commands {
            let sandbox = Sandbox::new();
            let run =
                sandbox.shell(&format!("set -e\n{command}")).env("PATH", path_without_the_program(&sandbox));
            run.run().success().stderr_has("agent-checkpoint");
        }
        for (result, status) in ends {
            let (slack, sandbox) = set_up();
            for (name, value) in variables {
                sandbox.env(name, value);
            }
            sandbox.env("CI_JOB_STATUS", result).env("SLACK_CHANNEL", "#agents");
            for command in &commands {
                line(&sandbox, command).run().success().stderr_is("");
            }
            let texts: Vec<String> =
                slack.messages("agents").into_iter().map(|message| message.text).collect();
            assert!(texts[0].contains(&format!("`{id}`")) && texts[0].contains("0123abc"), "{texts:?}");
            assert!(texts.last().expect("a message").contains(&format!("– {status}")), "{texts:?}");
        }
        assert!(commands.iter().any(|command| command.starts_with("agent-checkpoint flush")), "{commands:?}");
    }
}

#[test]
fn the_quick_start_goes_from_nothing_to_a_message() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    // Whoever comes here has tried the first command, which leaves a task open.
    let first = README.lines().find_map(|line| line.strip_prefix("    cargo run --release -- ")).expect("it");
    line(&sandbox, &format!("agent-checkpoint {first}")).run().success();
    let recipe = block("## Quick start", "sh");
    let here = format!("127.0.0.1:{}/", slack.port());
    assert!(recipe.contains("127.0.0.1:8765/") && recipe.contains(slack.token()), "{recipe}");
    let output = line(&sandbox, &recipe.replace("127.0.0.1:8765/", &here)).run().success().stderr_is("");
    let text = latest(&slack).text;
    assert!(text.contains("`deploy-bot` – COMPLETE") && text.contains("Task: Deploy X"), "{text}");
    assert!(text.contains("Steps: Reading files → Running tests → Rolled out"), "{text}");
    assert_eq!((slack.roots().len(), slack.messages(CHANNEL).len()), (1, 2), "the one between is held back");
    for words in ["starting            0%  sent ", "working            50%  coalesced ", "\nok   credentials"]
    {
        assert!(output.stdout.contains(words), "{words}: {output}");
    }
}

#[test]
fn the_pictures_are_what_the_program_shows() {
    let (slack, sandbox) = set_up();
    let shown = blocks("## What it looks like", "text");
    fs::create_dir(sandbox.work().join("rocket")).expect("a directory");
    let args = ["emit", "--status", "working", "--progress", "50", "Running tests"];
    let printed =
        sandbox.cmd(args).dir("rocket").env("USER", "ana").env_remove("SLACK_BOT_TOKEN").run().success();
    let host = gethostname().expect("a host name").to_string_lossy().into_owned();
    let host = host.split('.').next().expect("a name");
    assert_eq!(printed.stdout.replace(&format!("@{host}:"), "@laptop:"), shown[0]);

    sandbox.env("AGENT_CHECKPOINT_AGENT_ID", "deploy-bot").env("AGENT_CHECKPOINT_MIN_INTERVAL", "0");
    let emit = |args: &str| line(&sandbox, &format!("agent-checkpoint emit {args}")).run().success().silent();
    emit("--status starting --task-name 'Deploy X' --repo acme/rocket --tokens 21000 'Reading files'");
    emit("--status working --progress 50 --tokens 96400 'Running tests'");
    sandbox.env("AGENT_CHECKPOINT_MIN_INTERVAL", "30s");
    emit("--status working --progress 80 --tokens 122000 'Building the image'");
    emit("--status complete --artifact PR=https://example.com/pull/1 'Rolled out'");
    let messages = slack.messages(CHANNEL);
    assert_eq!(messages.len(), 3, "a card and two replies");
    let picture: Vec<&str> = shown[1].lines().map(str::trim_start).collect();
    for message in &messages[..2] {
        let lines = |blocks: &[Value], bar: &str| -> Vec<String> {
            let texts = blocks.iter().filter_map(|block| block["text"]["text"].as_str());
            let texts = texts.map(|text| text.replace(['*', '<', '>'], "")).collect::<Vec<_>>().join("\n");
            timeless(&texts).lines().map(|line| format!("{bar}{line}")).collect()
        };
        let beside = message.attachments[0]["blocks"].as_array().expect("blocks");
        let whole = [lines(&message.blocks, ""), lines(beside, "┃ ")].concat();
        let shown: Vec<&str> = picture.iter().copied().filter(|line| !line.contains("Elapsed: ")).collect();
        assert!(shown.windows(whole.len()).any(|part| part == whole), "{whole:#?}\nis not in\n{picture:#?}");
    }
    let page = sandbox.cmd(["show", "deploy-bot"]).run().success();
    let bare = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !["task", "thread", "started", "ended"].iter().any(|fact| line.starts_with(fact)));
        let end = |line: &str| line.rsplit_once(" · ").map_or(line, |(line, _)| line).to_owned();
        lines
            .map(|line| {
                line.get(10..).filter(|_| line.starts_with("  ")).map_or_else(|| end(line), str::to_owned)
            })
            .collect()
    };
    assert_eq!(bare(&page.stdout), bare(shown[2]), "{page}");
}

#[test]
fn the_table_of_the_receipt_has_every_field() {
    let sandbox = Sandbox::new();
    let receipt = sandbox.cmd(["emit", "--json", "Hello"]).run().success().json();
    let rows = section("## The receipt").lines().take_while(|line| !line.starts_with("| delivery |"));
    let cells = rows.filter_map(|line| line.strip_prefix("| `")?.split_once(" |")).map(|(cell, _)| cell);
    let mut named: Vec<String> =
        cells.flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`').to_owned())).collect();
    named.sort();
    let fields: Vec<String> =
        receipt.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default();
    assert_eq!(named, fields);
    assert_eq!(receipt["audit"], Value::from("off"));
}

#[test]
fn the_fields_of_stream_are_those_it_takes() {
    let sandbox = Sandbox::new();
    let (_, list) =
        section("## Many checkpoints from one process").split_once("snake case:\n").expect("a list");
    let (list, _) = list.split_once('.').expect("its end");
    let named: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    let help = sandbox.cmd(["stream", "--help"]).run().success().stdout;
    let (_, told) = help.split_once("in snake case: ").expect("a list");
    let (told, _) = told.split_once('.').expect("its end");
    let told = told.replace("(an array)", "").replace("(an object)", "");
    assert_eq!(named, told.split(',').map(str::trim).collect::<Vec<_>>());
    for field in named {
        // Of a kind that none of them takes, but meta.
        let output = sandbox.cmd(["stream"]).stdin(format!("{{\"{field}\":{{}}}}\n")).run();
        let output = output.code(if field == "meta" { 0 } else { 65 });
        assert!(!output.stderr.contains("unknown field"), "{output}");
    }
}

#[test]
fn every_command_in_the_text_can_be_typed() {
    let sandbox = Sandbox::new();
    let named =
        README.split('`').filter(|text| text.starts_with("agent-checkpoint ") && !text.contains('\n'));
    let mut count = 0;
    for command in named {
        count += 1;
        let output: Output = line(&sandbox, &format!("{command} --help")).run();
        output.success().stderr_is("").stdout_has("Usage: agent-checkpoint ");
    }
    assert!(count > 10, "{count}");
}

#[test]
fn the_two_commands_stand_at_the_top() {
    let top: Vec<&str> = README.lines().take(12).filter_map(|line| line.strip_prefix("    ")).collect();
    let first = r#"cargo run --release -- emit --status working --progress 50 "Running tests""#;
    assert_eq!(top, [first, "tests/run"]);
    for heading in ["Quick start", "Settings", "Exit codes", "Troubleshooting", "Speed"] {
        assert!(README.contains(&format!("\n## {heading}\n")), "{heading}");
    }
}

#[test]
fn the_stated_rust_version_is_that_of_the_manifest() {
    let version = env!("CARGO_PKG_RUST_VERSION");
    assert!(README.contains(&format!("Rust {version},")), "{version}");
    let workflow = include_str!("../../.github/workflows/ci.yml");
    assert!(workflow.contains(&format!("RUSTUP_TOOLCHAIN: \"{version}\"\n")), "{version}");
}

#[test]
fn the_recipe_of_agents_that_start_agents_makes_four_threads_with_links() {
    let (slack, sandbox) = set_up();
    sandbox.env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    let script = block("### Agents that start agents", "sh");
    sandbox.write("release", script);
    for step in ["test", "build", "deploy"] {
        sandbox.write(step, "#!/bin/sh\nexit 0\n");
    }
    line(&sandbox, "chmod +x release test build deploy").run().success();
    let command = script.lines().nth(1).and_then(|line| line.split_once("Started with: ")).expect("how").1;
    line(&sandbox, command).run().success();
    let card = wait_for("the card to show the end and all children", || {
        let done = |text: &str| {
            let children =
                ["test", "build", "deploy"].map(|step| format!("• ✅ `release/{step}` – complete 100%"));
            text.contains("`release` – COMPLETE") && children.iter().all(|child| text.contains(child))
        };
        slack.roots().into_iter().find(|root| done(&root.text))
    });
    assert_eq!(slack.roots().len(), 4);
    wait_for("two lines for each child in the parent's thread", || {
        let thread = slack.thread(&card.ts);
        let notes = thread.iter().filter(|message| message.text.contains("fake.slack.invalid/archives"));
        (notes.count() == 6).then_some(())
    });
}

#[test]
fn the_launch_recipe_says_the_agents_answer_in_its_thread() {
    let (slack, sandbox) = set_up();
    let words = section("### Commands and agents from Slack").split('`');
    let recipe = words.clone().find(|words| words.starts_with("claude -p \"$1\"")).expect("the recipe");
    let program = format!("#!/bin/sh\nclaude() {{ echo \"Did $2\"; }}\n{recipe}\n");
    let file = sandbox.work().join("launch");
    fs::write(&file, program).expect("a program");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("an executable program");
    line(&sandbox, "agent-checkpoint run --agent-id bot -- ./launch 'all of it'").run().success();
    let said = latest(&slack).text;
    assert!(said.contains("– COMPLETE") && said.contains("Last Action: Did all of it"), "{said}");
    assert_eq!(slack.roots().len(), 1);
}

#[test]
fn the_deploy_recipe_deploys_what_was_approved_and_nothing_else() {
    let recipe = blocks("## Asking a person", "sh")[0];
    for (reaction, code, said) in
        [("white_check_mark", 0, "deploying production v1.4.0\n"), ("x", 1, "somebody rejected it\n")]
    {
        let (slack, sandbox) = set_up();
        sandbox.env("AGENT_CHECKPOINT_POLL_INTERVAL", "100ms").env("AGENT_CHECKPOINT_APPROVERS", HUMAN);
        slack.set_lenient_rate();
        let deploy = sandbox.write("deploy.sh", "#!/bin/sh\necho deploying \"$@\"\n");
        fs::set_permissions(deploy, fs::Permissions::from_mode(0o755)).expect("a mode");
        sandbox.write("release", recipe);
        let release = line(&sandbox, "exec sh ./release v1.4.0").spawn();
        let question = wait_for("the question", || slack.newest_with("question:approve"));
        let shown = serde_json::to_string(&question.blocks).expect("JSON");
        assert!(shown.contains("./deploy.sh production v1.4.0"), "{shown}");
        slack.person_reacts(CHANNEL, &question.ts, HUMAN, reaction);
        let output = release.wait_with_output().expect("an end");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.ends_with(said), "{stdout}");
    }
}
