//! What people say in words, by `/agent-task` and by mentions, to `serve` over HTTP and by Socket Mode: what is told, and
//! agents that are started once somebody approves.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

#[cfg(feature = "postgres")]
use crate::audit::database;
#[cfg(feature = "postgres")]
use crate::cluster::Cluster;
use crate::fake_slack::clicks::SIGNING_SECRET;
use crate::fake_slack::people::{COLLEAGUE, FOREIGNER};
use crate::fake_slack::{CHANNEL, HUMAN, Message};
use crate::scene::{Scene, side_by_side, text};
use crate::serve::Server;
use crate::stream::Talk;
use crate::support::{Sandbox, wait_for};

/// How `serve` hears of what people do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Http,
    Socket,
}

/// A launch command that notes how its wrapper and it were called, and ends once the file `go` is there.
pub(crate) const AGENT: &str = r#"sh -c 'env >"$NOTES.env"; { tr "\0" " " </proc/$PPID/cmdline || ps -ww -o args= -p $PPID; } >"$NOTES.args" 2>/dev/null; { printf "%s|" "$@"; echo; } >>"$NOTES"; while ! [ -e "$NOTES.go" ]; do sleep 0.05; done' agent -p 'two words'"#;

pub(crate) struct Desk {
    pub(crate) scene: Scene,
    pub(crate) notes: PathBuf,
    pub(crate) server: Server,
}

impl Desk {
    /// With a launch command, and a colleague who may approve.
    pub(crate) fn open(way: Way) -> Self {
        Self::with(way, &[("AGENT_CHECKPOINT_LAUNCH", AGENT), ("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE)])
    }

    pub(crate) fn with(way: Way, settings: &[(&str, &str)]) -> Self {
        let scene = Scene::people();
        let notes = scene.sandbox.path().join("notes");
        scene.sandbox.env("NOTES", &notes).env("AGENT_CHECKPOINT_BACKGROUND", "auto");
        let mut run = scene.sandbox.cmd(["serve", "--listen", "127.0.0.1:0"]);
        for (name, value) in settings {
            run = run.env(name, value);
        }
        run = run.env("AGENT_CHECKPOINT_SERVE_TOKEN", "served-to-readers-alone");
        run = match way {
            Way::Http => run.env("SLACK_SIGNING_SECRET", SIGNING_SECRET),
            Way::Socket => run.env("SLACK_APP_TOKEN", scene.slack.app_token()),
        };
        let server = Server::of(run);
        match way {
            Way::Http => scene.slack.interactivity(&format!("http://{}", server.address), SIGNING_SECRET),
            Way::Socket => scene.slack.wait_sockets(1),
        }
        Self { scene, notes, server }
    }

    /// A server of the same cache that may launch, with these approvers.
    pub(crate) fn another_server(&self, approvers: &str) -> Server {
        let run = self.scene.sandbox.cmd(["serve", "--listen", "127.0.0.1:0"]);
        let run = run.env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
        Server::of(run.env("AGENT_CHECKPOINT_LAUNCH", AGENT).env("AGENT_CHECKPOINT_APPROVERS", approvers))
    }

    /// What `/agent-task` with these words tells whoever typed it.
    #[track_caller]
    pub(crate) fn typed(&self, words: &str) -> String {
        let before = self.scene.slack.ephemerals().len();
        assert!(self.scene.slack.command(CHANNEL, HUMAN, "/agent-task", words).acked);
        let told = self.scene.slack.wait_ephemerals(before + 1).remove(before);
        assert_eq!((told.user.as_str(), told.channel.as_str()), (HUMAN, CHANNEL));
        told.text
    }

    /// What a mention with these words is answered in its thread.
    #[track_caller]
    pub(crate) fn mentioned(&self, user: &str, words: &str) -> String {
        let (ts, heard) = self.scene.slack.mention(CHANNEL, None, user, words);
        assert!(heard.acked);
        wait_for("an answer in the thread", || {
            let thread = self.scene.slack.thread(&ts);
            thread.into_iter().find(|message| message.ts != ts).map(|message| message.text)
        })
    }

    /// The messages that ask for approval, in the order asked, once there are so many.
    #[track_caller]
    pub(crate) fn questions(&self, count: usize) -> Vec<Message> {
        wait_for("questions", || {
            let all = self.scene.slack.messages(CHANNEL).into_iter();
            let found: Vec<_> =
                all.filter(|message| self.scene.slack.has_button(&message.ts, "question:approve")).collect();
            (found.len() == count).then_some(found)
        })
    }

    /// A request, by a mention: the message that asks for its approval.
    #[track_caller]
    pub(crate) fn asked(&self, words: &str) -> Message {
        assert!(self.scene.slack.mention(CHANNEL, None, HUMAN, words).1.acked);
        self.questions(1).remove(0)
    }

    #[track_caller]
    pub(crate) fn approve(&self, question: &Message) {
        assert!(self.scene.slack.click(&question.ts, "question:approve", COLLEAGUE).acked);
    }

    /// How agents were started, once there are so many.
    #[track_caller]
    pub(crate) fn started(&self, count: usize) -> Vec<String> {
        wait_for("agents", || {
            let lines: Vec<String> =
                fs::read_to_string(&self.notes).ok()?.lines().map(str::to_owned).collect();
            (lines.len() == count).then_some(lines)
        })
    }

    pub(crate) fn let_them_end(&self) {
        fs::write(self.notes.with_extension("go"), "").expect("a file");
    }

    pub(crate) fn tasks(&self) -> Vec<Value> {
        let all = self.scene.sandbox.cmd(["tasks", "--json"]).run().success().json();
        all.as_array().expect("a list").clone()
    }

    /// The only task that a person asked for, once that is so of it.
    #[track_caller]
    pub(crate) fn task(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        wait_for("the task", || {
            let agent = self.tasks().iter().map(|task| text(task, "agent_id").to_owned()).next()?;
            Some(self.scene.show(&agent)).filter(&is_so)
        })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.let_them_end();
    }
}

#[test]
fn people_list_show_and_get_help_by_a_command_and_by_a_mention() {
    side_by_side([Way::Http, Way::Socket], |way| {
        let desk = Desk::open(way);
        assert_eq!(desk.typed("list"), "No agent runs.");
        desk.scene
            .emit(["-a", "deploy-bot", "Reading <!channel> & more", "-s", "working", "-p", "40"])
            .run()
            .success();
        for said in [desk.typed(" LIST "), desk.mentioned(HUMAN, "list")] {
            assert!(said.contains("`deploy-bot` WORKING 40%"), "{said}");
            assert!(said.contains("&lt;!channel&gt; &amp; more"), "{said}");
        }
        for said in [desk.typed("show \"deploy-bot\""), desk.mentioned(HUMAN, "Show deploy-bot")] {
            assert!(said.contains("Agent `deploy-bot` – WORKING") && said.contains("40%"), "{said}");
        }
        assert!(desk.typed("show deploy-bto").contains("did you mean `deploy-bot`?"));
        assert!(desk.typed("help").contains("`/agent-task cancel AGENT`"));
        assert!(desk.typed("").contains("`/agent-task list`"));
        assert!(desk.typed("lsit").starts_with("Did you mean `/agent-task list`? Nothing was asked for;"));
        assert!(desk.mentioned(HUMAN, "cancl x").starts_with("Did you mean `@bot cancel x`?"));
        assert!(desk.questions(0).is_empty());
        let said = desk.mentioned(FOREIGNER, "list");
        assert_eq!(said, "Only people of the workspace that runs this may do that.");
    });
}

#[test]
fn an_agent_is_named_without_quotes_and_nobody_is_asked_to_start_one_for_a_word_of_ours() {
    let desk = Desk::open(Way::Http);
    desk.scene
        .sandbox
        .cmd(["emit", "--json", "-a", "nightly build", "-s", "working", "Compiling"])
        .run()
        .success();
    assert!(desk.typed("show nightly build").contains("Agent `nightly build` – WORKING"));
    let otherwise = |words: &str| {
        format!(" Nothing was asked for; for an agent that does it, begin with another word: `{words}`.")
    };
    let none = "There is no agent `nightly-build of ours`; `list` names those that run.";
    assert_eq!(
        desk.typed("show nightly-build of ours"),
        none.to_owned() + &otherwise("/agent-task please show nightly-build of ours")
    );
    let meant = "There is no agent `nightly buidl`; did you mean `nightly build`?";
    assert_eq!(
        desk.mentioned(COLLEAGUE, "cancel nightly buidl"),
        meant.to_owned() + &otherwise("@bot please cancel nightly buidl")
    );
    let help = "Did you mean `/agent-task help`?".to_owned();
    assert_eq!(desk.typed("help me"), help + &otherwise("/agent-task please help me"));
    assert!(desk.questions(0).is_empty());
    assert_eq!(desk.mentioned(COLLEAGUE, "cancel nightly build"), "nightly build is told to stop.");
    // As it is told.
    desk.asked("please show the failing tests");
}

#[test]
fn a_command_cancels_as_the_button_does() {
    let desk = Desk::open(Way::Http);
    let receipt = desk.scene.emit(["Working"]).run().success().json();
    assert!(receipt.get("requests").is_none(), "{receipt}");
    assert!(desk.typed("cancel bott").contains("did you mean `bot`?"));
    // The approvers are serve's, since the task names none.
    assert_eq!(desk.typed("cancel bot"), format!("You are not among those who may do that: <@{COLLEAGUE}>."));
    assert!(desk.scene.emit(["Still"]).run().success().json().get("requests").is_none());
    assert_eq!(desk.mentioned(COLLEAGUE, "cancel bot"), "bot is told to stop.");
    let receipt = desk.scene.emit(["Again"]).run().success().json();
    assert_eq!(receipt["requests"][0]["user_id"], COLLEAGUE, "{receipt}");
    let kept = desk.scene.show("bot")["interventions"].clone();
    assert_eq!(
        (kept[0]["action_details"]["refused"].as_str(), kept[1]["user_id"].as_str()),
        (Some("not_allowed"), Some(COLLEAGUE))
    );
}

#[test]
fn an_agent_is_started_once_an_approver_agrees() {
    side_by_side([Way::Http, Way::Socket], |way| {
        let desk = Desk::open(way);
        let request =
            "fix the \"login\" test; rm -rf $HOME &amp;&amp; see <https://github.com/acme/rocket|this>";
        let (ts, heard) = desk.scene.slack.mention(CHANNEL, None, HUMAN, request);
        assert!(heard.acked);
        let question = desk.questions(1).remove(0);
        assert_eq!(question.thread_ts.as_deref(), Some(ts.as_str()), "it stands where it was said");
        let said = "fix the \"login\" test; rm -rf $HOME && see https://github.com/acme/rocket";
        let blocks = serde_json::to_string(&question.blocks).expect("JSON");
        for part in ["*Kind:* fix", "acme/rocket", &format!("<@{HUMAN}>"), &format!("<@{COLLEAGUE}>")] {
            assert!(blocks.contains(part), "{part} in {blocks}");
        }
        let code =
            question.blocks.iter().find_map(|block| block["elements"][0]["elements"][0]["text"].as_str());
        assert_eq!(code, Some(said), "all of it is shown as it is");
        // Whoever asks is no approver.
        assert!(desk.scene.slack.click(&question.ts, "question:approve", HUMAN).acked);
        assert!(desk.scene.slack.wait_ephemerals(1)[0].text.starts_with("You are not among those"));
        assert!(!desk.notes.exists());
        desk.approve(&question);
        let told = desk.scene.slack.wait_ephemerals(2).remove(1);
        assert_eq!(
            (told.user.as_str(), told.text.as_str()),
            (COLLEAGUE, "It is started now, or as soon as there is room for it: its thread tells."),
            "it is this server that starts it"
        );
        assert_eq!(desk.started(1), [format!("-p|two words|{said}|")]);
        let task = desk.task(|task| text(task, "status") == "starting");
        let agent = text(&task, "agent_id");
        assert!(agent.starts_with("fix-"), "{agent}");
        assert_eq!((text(&task, "task_type"), text(&task, "repo")), ("fix", "acme/rocket"));
        assert_eq!(text(&task, "thread_ts"), ts);
        let inside = fs::read_to_string(desk.notes.with_extension("env")).expect("what it was given");
        assert!(inside.contains(&format!("AGENT_CHECKPOINT_AGENT_ID={agent}")), "{inside}");
        assert!(inside.contains("AGENT_CHECKPOINT_HEARD=1\n"), "{inside}");
        assert!(!inside.contains(SIGNING_SECRET) && !inside.contains("served-to-readers-alone"), "{inside}");
        let wrapper = fs::read_to_string(desk.notes.with_extension("args")).expect("how it was wrapped");
        assert!(wrapper.contains(" --timeout=8h -- sh -c "), "{wrapper}");
        assert!(!wrapper.contains("xoxb-") && !wrapper.contains("xapp-"), "{wrapper}");
        // Nobody wants anything of it: that it was started is no request.
        let mut talk = Talk::start(desk.scene.sandbox.cmd(["stream", "--json", "-a", agent]));
        let receipt = talk.ask(&json!({ "status": "working", "thread": format!("{CHANNEL}:{ts}") }));
        assert!(receipt["task_id"] == task["task_id"] && receipt.get("requests").is_none(), "{receipt}");
        assert_eq!(talk.end().0, Some(0));
        wait_for("a button to cancel it", || {
            let thread = desk.scene.slack.thread(&ts);
            let has_button = |message: &Message| desk.scene.slack.has_button(&message.ts, "task:cancel");
            thread.iter().any(has_button).then_some(())
        });
        desk.let_them_end();
        let ended = desk.task(|task| text(task, "state") == "completed");
        assert_eq!(desk.tasks().len(), 1, "the agent goes on in the task of the request: {ended}");
        wait_for("the edit", || desk.scene.slack.buttons(&question.ts).is_empty().then_some(()));
        assert_eq!(desk.started(1).len(), 1);
    });
}

#[test]
fn what_slack_says_twice_and_a_second_click_start_nothing_twice() {
    let desk = Desk::open(Way::Http);
    let ts = desk.scene.slack.say(CHANNEL, None, HUMAN, "<@U0BOT> run the tests");
    let event = serde_json::json!({
        "type": "app_mention", "user": HUMAN, "text": "<@U0BOT> run the tests", "ts": ts, "event_ts": ts,
        "channel": CHANNEL, "team": "T000",
    });
    let payload = desk.scene.slack.event_payload(event);
    for _ in 0..3 {
        assert!(desk.scene.slack.event_callback(&payload).acked);
    }
    let question = desk.questions(1).remove(0);
    // A second server with the same cache looks for what is approved at the same time.
    let other = desk.another_server(COLLEAGUE);
    let click = desk.scene.slack.click_payload(&question, "question:approve", COLLEAGUE);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| desk.scene.slack.interact(&click));
            scope.spawn(|| desk.scene.slack.click_as_seen(&question, "question:approve", COLLEAGUE));
        }
    });
    desk.started(1);
    desk.let_them_end();
    desk.task(|task| text(task, "state") == "completed");
    assert_eq!(desk.tasks().len(), 1);
    assert_eq!(desk.started(1), ["-p|two words|run the tests|"]);
    drop(other);
}

#[test]
fn a_request_that_is_rejected_or_withdrawn_starts_nothing_and_ends() {
    let desk = Desk::open(Way::Http);
    let question = desk.asked("deploy everything");
    assert!(desk.scene.slack.click(&question.ts, "question:reject", COLLEAGUE).acked);
    let task = desk.task(|task| text(task, "state") == "cancelled");
    assert!(text(&task, "action").starts_with("rejected by @ben"), "{task}");
    wait_for("the edit", || desk.scene.slack.buttons(&question.ts).is_empty().then_some(()));
    let again = desk.asked("deploy it again");
    let agent = text(&desk.tasks()[0], "agent_id").to_owned();
    assert_eq!(desk.mentioned(COLLEAGUE, &format!("cancel {agent}")), "The request is withdrawn.");
    wait_for("the edit", || desk.scene.slack.buttons(&again.ts).is_empty().then_some(()));
    assert!(desk.scene.slack.click_as_seen(&again, "question:approve", COLLEAGUE).acked);
    assert!(desk.scene.slack.wait_ephemerals(1)[0].text.starts_with("Too late"));
    assert_eq!(text(&desk.scene.show(&agent), "state"), "cancelled");
    // One whose task somebody else has closed.
    let late = desk.asked("deploy it at last");
    let agent = text(&desk.tasks()[0], "agent_id").to_owned();
    desk.scene.sandbox.cmd(["emit", "-a", &agent, "-s", "complete", "Never mind"]).run().success();
    desk.approve(&late);
    assert_eq!(desk.scene.slack.wait_ephemerals(2)[1].text, "Nothing is started: its task has ended.");
    assert!(!desk.notes.exists());
}

#[cfg(feature = "postgres")]
#[test]
fn the_audit_trail_says_who_asked_for_the_agent_and_for_what() {
    let desk = Desk::open(Way::Http);
    let question = desk.asked("fix the  \"login\" test");
    desk.approve(&question);
    desk.started(1);
    let (database, url) = database(Cluster::shared());
    desk.scene.sandbox.cmd(["flush"]).env("DATABASE_URL", &url).run().success();
    let row = "SELECT requested_by, description, task_type FROM agent_tasks";
    let told = format!("{HUMAN}|fix the  \"login\" test|fix");
    assert_eq!(Cluster::shared().sql_in(&database, row), told);
}

#[test]
fn without_a_launch_command_or_approvers_it_says_what_to_set() {
    let only_command = [("AGENT_CHECKPOINT_LAUNCH", AGENT)];
    let only_approvers = [("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE)];
    for (settings, named, other) in [
        (&only_command[..], "AGENT_CHECKPOINT_APPROVERS", "AGENT_CHECKPOINT_LAUNCH"),
        (&only_approvers[..], "AGENT_CHECKPOINT_LAUNCH", "AGENT_CHECKPOINT_APPROVERS"),
    ] {
        let desk = Desk::with(Way::Http, settings);
        for said in [desk.typed("fix it"), desk.mentioned(HUMAN, "fix it"), desk.typed("help")] {
            assert!(said.contains(named) && !said.contains(other), "{said}");
        }
        assert!(desk.tasks().is_empty());
    }
    let sandbox = Sandbox::new();
    let refused = sandbox.cmd(["serve"]).env("AGENT_CHECKPOINT_LAUNCH", "agent 'open").run();
    refused.code(78).stderr_has("has a quote that is not closed");
}

#[test]
fn no_more_agents_run_at_once_than_are_allowed() {
    let desk = Desk::with(
        Way::Http,
        &[
            ("AGENT_CHECKPOINT_LAUNCH", AGENT),
            ("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE),
            ("AGENT_CHECKPOINT_LAUNCH_MAX", "1"),
        ],
    );
    let first = desk.asked("test one");
    desk.approve(&first);
    desk.started(1);
    wait_for("the edit", || desk.scene.slack.buttons(&first.ts).is_empty().then_some(()));
    // What an agent says of itself makes no room as long as it runs.
    let agent = text(&desk.tasks()[0], "agent_id").to_owned();
    desk.scene.sandbox.cmd(["emit", "-a", &agent, "-s", "complete", "Done"]).run().success();
    let second = desk.asked("test two");
    desk.approve(&second);
    let waits = wait_for("a word in the thread", || {
        desk.tasks().into_iter().find(|task| text(task, "action") == "waits for one of 1 agents to end")
    });
    assert_eq!(text(&waits, "state"), "running");
    assert_eq!(desk.started(1), ["-p|two words|test one|"]);
    desk.let_them_end();
    assert_eq!(desk.started(2)[1], "-p|two words|test two|");
    wait_for("both ends", || {
        desk.tasks().iter().all(|task| text(task, "state") == "completed").then_some(())
    });
}

#[test]
fn what_was_approved_while_no_server_ran_is_started_by_the_next_one() {
    let mut desk = Desk::open(Way::Http);
    let question = desk.asked("review the parser");
    let agent = text(&desk.tasks()[0], "agent_id").to_owned();
    desk.server.stop();
    let blocks = serde_json::to_string(&question.blocks).expect("JSON");
    let id = blocks.split("*Request:* `").nth(1).and_then(|rest| rest.split('`').next()).expect("an id");
    desk.scene.sandbox.cmd(["answer", id, "--approve"]).run().success();
    assert_eq!(text(&desk.scene.show(&agent), "status"), "working");
    // One that has no launch command leaves it alone.
    drop(Server::start(&desk.scene.sandbox));
    desk.server = desk.another_server(COLLEAGUE);
    assert_eq!(desk.started(1), ["-p|two words|review the parser|"]);
}

#[test]
fn nothing_is_started_that_was_approved_by_nobody_whom_the_server_knows() {
    let mut desk = Desk::open(Way::Http);
    let question = desk.asked("review the parser");
    desk.server.stop();
    desk.server = desk.another_server(HUMAN);
    desk.scene.slack.interactivity(&format!("http://{}", desk.server.address), SIGNING_SECRET);
    desk.approve(&question);
    let task = desk.task(|task| text(task, "state") == "cancelled");
    assert!(text(&task, "action").contains("not among AGENT_CHECKPOINT_APPROVERS"), "{task}");
    assert!(!desk.notes.exists());
}

#[test]
fn an_agent_whose_settings_came_by_a_pipe_is_not_started_with_others() {
    let scene = Scene::people();
    let settings = scene.sandbox.path().join("settings");
    nix::unistd::mkfifo(&settings, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let writer = std::thread::spawn({
        let (settings, text) =
            (settings.clone(), format!("launch = \"true\"\napprovers = \"{COLLEAGUE}\"\n"));
        move || fs::write(settings, text).expect("a reader")
    });
    let run = scene.sandbox.cmd(["serve", "--listen", "127.0.0.1:0"]);
    let run = run.env("AGENT_CHECKPOINT_CONFIG", &settings).env("SLACK_SIGNING_SECRET", SIGNING_SECRET);
    let server = Server::of(run);
    writer.join().expect("no panic");
    scene.slack.interactivity(&format!("http://{}", server.address), SIGNING_SECRET);
    let desk = Desk { notes: scene.sandbox.path().join("notes"), scene, server };
    assert!(desk.scene.slack.mention(CHANNEL, None, HUMAN, "fix it").1.acked);
    // A courier could not read them either.
    desk.scene.sandbox.cmd(["flush"]).run().success();
    desk.approve(&desk.questions(1)[0]);
    let task = desk.task(|task| text(task, "state") == "failed");
    let words = "could not start it: its settings came by a pipe, which can be read only once";
    assert_eq!(text(&task, "error"), words);
}

#[test]
fn a_program_that_is_not_there_is_told_in_the_thread() {
    let desk = Desk::with(
        Way::Http,
        &[("AGENT_CHECKPOINT_LAUNCH", "no-such-agent -p"), ("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE)],
    );
    desk.approve(&desk.asked("build it"));
    let task = desk.task(|task| text(task, "state") == "failed");
    assert!(text(&task, "error").contains("no-such-agent"), "{task}");
}

#[test]
fn the_last_lines_of_an_agent_that_fails_stand_in_its_thread_and_in_show() {
    // What it says of errors, or what it says where that is nothing; nothing where it ends well.
    let rows = [
        ("echo said; echo 'no space left' >&2; exit 3", Some(("no space left", "said"))),
        ("echo said; exit 3", Some(("said", "no space left"))),
        ("echo said; echo 'no space left' >&2", None),
    ];
    side_by_side(rows, |(script, shown)| {
        let launch = format!("sh -c \"{script}\"");
        let desk = Desk::with(
            Way::Http,
            &[("AGENT_CHECKPOINT_LAUNCH", &launch), ("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE)],
        );
        let question = desk.asked("fix the login");
        desk.approve(&question);
        let ended = if shown.is_some() { "error" } else { "complete" };
        let task = desk.task(|task| text(task, "status") == ended);
        let ts = text(&task, "thread_ts").to_owned();
        let sign = if shown.is_some() { "exit code 3" } else { "COMPLETE" };
        let last = wait_for("its end in the thread", || {
            let thread = desk.scene.slack.thread(&ts);
            let each = thread.iter().filter(|message| message.ts != ts).map(|message| format!("{message:?}"));
            each.into_iter().find(|message| message.contains(sign) && !message.contains("Approve"))
        });
        let page = desk.scene.sandbox.cmd(["show", text(&task, "agent_id")]).run().success();
        let tail = |line: &str| page.stdout.contains(&format!("\n          {line}\n"));
        match shown {
            Some((has, lacks)) => assert!(last.contains(has) && tail(has) && !tail(lacks), "{last} {page}"),
            None => assert!(!tail("said") && !tail("no space left"), "{page}"),
        }
    });
}

#[test]
fn doctor_says_whether_agents_can_be_started() {
    let scene = Scene::bot();
    let doctor = |settings: &[(&str, &str)]| {
        let run = scene.sandbox.cmd(["doctor"]);
        settings.iter().fold(run, |run, (name, value)| run.env(name, value)).run().stdout
    };
    let approvers = ("AGENT_CHECKPOINT_APPROVERS", COLLEAGUE);
    assert!(!doctor(&[]).contains("launch"));
    for (settings, said) in [
        (&[("AGENT_CHECKPOINT_LAUNCH", "sh -c true")][..], "without a list of approvers"),
        (
            &[("AGENT_CHECKPOINT_LAUNCH", "sh -c true"), approvers],
            "serve starts sh for what is approved, 4 at once",
        ),
        (&[("AGENT_CHECKPOINT_LAUNCH", "no-such-agent"), approvers], "there is no program 'no-such-agent'"),
    ] {
        let all = doctor(settings);
        assert!(all.contains(said), "{said} in {all}");
        assert!(!all.contains("nobody can ask for an agent"), "{all}");
    }
    scene.slack.set_scopes(&["chat:write"]);
    assert!(doctor(&[("AGENT_CHECKPOINT_LAUNCH", "sh"), approvers]).contains("nobody can ask for an agent"));
}
