//! What people see in Slack: the words, the colours, the live card, steps, links and context warnings.

use serde_json::{Value, json};

use crate::fake_slack::{FakeSlack, HUMAN, Message};
use crate::support::Sandbox;

fn set_up() -> (FakeSlack, Sandbox) {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    (slack, sandbox)
}

/// The texts of a message's blocks: first its own, then those beside the colour bar.
fn block_texts(message: &Message) -> Vec<String> {
    let beside =
        message.attachments.iter().filter_map(|attachment| attachment["blocks"].as_array()).flatten();
    let texts = message.blocks.iter().chain(beside).map(|block| &block["text"]["text"]);
    texts.map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// The line of a message that begins with a label.
#[track_caller]
fn line<'a>(message: &'a Message, label: &str) -> &'a str {
    let found = message.text.lines().find(|line| line.starts_with(label));
    found.unwrap_or_else(|| panic!("no line {label:?} in {}", message.text))
}

#[test]
fn a_message_reads_as_promised() {
    let (slack, sandbox) = set_up();
    let words = ["emit", "-a", "agent-id-123", "-s", "starting", "-t", "Deploy Feature X", "-p", "0"];
    let more = ["--repo", "agent-factory", "--tokens", "0", "Starting deployment"];
    sandbox.cmd(words.iter().chain(&more)).run().success().silent();
    let message = &slack.roots()[0];
    assert_eq!(
        message.text,
        "🚀 Agent `agent-id-123` – STARTING\n\
         \n\
         Task: Deploy Feature X\n\
         Progress: ░░░░░░░░░░ 0%\n\
         Repo: agent-factory\n\
         Context: 0 / 200,000 (0.0%)\n\
         Last Action: Starting deployment\n\
         Elapsed: 0s"
    );
    assert_eq!(
        block_texts(message),
        [
            "🚀 Agent `agent-id-123` – *STARTING*",
            "*Task:* Deploy Feature X\n*Progress:* ░░░░░░░░░░ 0%\n*Repo:* agent-factory\n\
             *Context:* 0 / 200,000 (0.0%)\n*Last Action:* Starting deployment\n*Elapsed:* 0s",
        ]
    );
    assert_eq!(message.attachments.len(), 1);
}

#[test]
fn what_is_not_known_is_left_out() {
    let (slack, sandbox) = set_up();
    sandbox.cmd(["emit", "-a", "bot"]).run().success().silent();
    assert_eq!(
        slack.roots()[0].text,
        "📍 Agent `bot` – CHECKPOINT\n\nTask: bot\nProgress: ░░░░░░░░░░ 0%\nContext: 0 / 200,000 (0.0%)\n\
         Elapsed: 0s"
    );
}

#[test]
fn each_status_has_its_sign_and_colour() {
    for (status, emoji, colour) in [
        ("starting", "🚀", "#0099ff"),
        ("planning", "🧠", "#9933ff"),
        ("working", "⚙️", "#00cc00"),
        ("checkpoint", "📍", "#ffcc00"),
        ("waiting_approval", "⏳", "#ff9900"),
        ("blocked", "🚧", "#ff6600"),
        ("error", "❌", "#ff0000"),
        ("complete", "✅", "#00cc00"),
        ("cancelled", "🛑", "#808080"),
    ] {
        let (slack, sandbox) = set_up();
        // Any spelling will do.
        let typed = status.to_uppercase().replace('_', "-");
        sandbox.cmd(["emit", "-a", "bot", "-s", &typed]).run().success().silent();
        let message = &slack.roots()[0];
        let title = format!("{emoji} Agent `bot` – {}\n", status.to_uppercase());
        assert!(message.text.starts_with(&title), "{}", message.text);
        assert_eq!(message.attachments[0]["color"], colour, "{status}");
    }
}

#[test]
fn the_first_message_is_a_live_card_and_later_ones_are_replies() {
    let (slack, sandbox) = set_up();
    for args in [&["-s", "starting", "Begun"], &["-s", "blocked", "Stuck"], &["-s", "complete", "Done"]] {
        sandbox.cmd(["emit", "-a", "bot", "-p", "50"].iter().chain(args)).run().success().silent();
        let roots = slack.roots();
        assert_eq!(roots.len(), 1);
        // The card shows what the newest message shows.
        let thread = slack.thread(&roots[0].ts);
        let newest = thread.last().expect("a message");
        assert_eq!(thread[0].text, newest.text);
        assert_eq!(thread[0].attachments, newest.attachments);
        assert_eq!(thread[0].blocks, newest.blocks);
        assert_eq!(line(newest, "Last Action: "), format!("Last Action: {}", args[2]));
    }
    let root = &slack.roots()[0];
    let replies: Vec<String> =
        slack.thread(&root.ts)[1..].iter().map(|reply| line(reply, "Last Action: ").to_owned()).collect();
    assert_eq!(replies, ["Last Action: Stuck", "Last Action: Done"]);
    assert_eq!(root.edits.len(), 2);
}

#[test]
fn what_the_interval_held_back_still_shows_as_steps() {
    let (slack, sandbox) = set_up();
    let emit = |args: &[&str]| sandbox.cmd(["emit", "-a", "bot"].iter().chain(args)).run().success().silent();
    emit(&["Reading"]);
    for step in ["Writing", "Building", "Testing\nagain", "Linting"] {
        emit(&["-s", "working", step]);
    }
    assert_eq!(slack.thread(&slack.roots()[0].ts).len(), 1);
    assert!(!slack.roots()[0].text.contains("Steps"), "a single step is the last action already");
    // One that says nothing adds no step.
    emit(&["-s", "blocked"]);
    let thread = slack.thread(&slack.roots()[0].ts);
    assert_eq!(thread.len(), 2);
    assert_eq!(line(&thread[1], "Steps: "), "Steps: Reading → Writing → Building → Testing again → Linting");
    assert!(block_texts(&thread[1])[2].starts_with("*Steps:* Reading → Writing"));
    emit(&["-s", "complete", "Done"]);
    let last = slack.thread(&slack.roots()[0].ts).pop().expect("a message");
    assert_eq!(line(&last, "Steps: "), "Steps: Writing → Building → Testing again → Linting → Done");
}

#[test]
fn errors_and_artifacts_are_shown_and_links_can_be_clicked() {
    let (slack, sandbox) = set_up();
    let words = [
        "emit",
        "-a",
        "bot",
        "-s",
        "error",
        "--error",
        "exit code 1\n2 tests failed",
        "--artifact",
        "PR=https://example.com/pull/1?a=b&c=d",
        "--artifact",
        "https://example.com/run",
        "--artifact",
        "Log=out/test.log",
        "--artifact",
        "javascript:alert(1)",
        "Testing",
    ];
    sandbox.cmd(words).run().success().silent();
    let message = slack.roots().remove(0);
    let artifacts = "• PR: <https://example.com/pull/1?a=b&amp;c=d>\n• <https://example.com/run>\n\
                     • Log: out/test.log\n• javascript:alert(1)";
    assert!(
        message.text.ends_with(&format!("🔴 Error: exit code 1\n2 tests failed\nArtifacts:\n{artifacts}")),
        "{}",
        message.text
    );
    let texts = block_texts(&message);
    assert_eq!(texts[2], "🔴 *Error:* exit code 1\n2 tests failed");
    assert_eq!(texts[3], format!("*Artifacts:*\n{artifacts}"));
    // An error is over when the agent goes on; what it made stays.
    sandbox.cmd(["emit", "-a", "bot", "-s", "working", "-f", "Again"]).run().success().silent();
    let next = slack.thread(&message.ts).pop().expect("a message");
    assert!(!next.text.contains("🔴") && next.text.contains("• Log: out/test.log"), "{}", next.text);
}

#[test]
fn of_many_artifacts_the_newest_are_listed_and_the_others_counted() {
    let (slack, sandbox) = set_up();
    let artifacts = (1..=30).flat_map(|number| ["--artifact".to_owned(), format!("out/{number}.log")]);
    let words = ["emit", "-a", "bot"].map(str::to_owned).into_iter().chain(artifacts);
    sandbox.cmd(words).run().success().silent();
    let text = &slack.roots()[0].text;
    assert!(
        text.contains("Artifacts:\n• 20 more\n• out/21.log\n") && text.ends_with("• out/30.log"),
        "{text}"
    );
    let shown = sandbox.cmd(["show", "--json", "bot"]).run().success().json();
    assert_eq!(shown["artifacts"].as_array().map(Vec::len), Some(30));
}

#[test]
fn the_context_line_warns_at_70_and_the_message_leads_with_a_warning_at_85() {
    let warning = "85.0% of the context is used (170,000 of 200,000 tokens): wrap up or compact now";
    for (tokens, line_end, lead, talk) in [
        ("139999", "139,999 / 200,000 (69.9%)", None, String::new()),
        (
            "140000",
            "140,000 / 200,000 (70.0%) ⚠️",
            None,
            "context warning: 70.0% of the context is used (140,000 of 200,000 tokens): consider summarising or \
             pruning"
                .to_owned(),
        ),
        (
            "170000",
            "170,000 / 200,000 (85.0%) ⚠️",
            Some(format!("⚠️ *Context Warning*: {warning}")),
            format!("context alert: {warning}"),
        ),
    ] {
        let (slack, sandbox) = set_up();
        let output = sandbox.cmd(["emit", "-a", "bot", "--json", "--tokens", tokens]).run().success();
        let warnings = if talk.is_empty() { json!([]) } else { json!([talk]) };
        assert_eq!(output.json()["warnings"], warnings);
        let said = if talk.is_empty() { talk } else { format!("agent-checkpoint: warning: {talk}\n") };
        output.stderr_is(&said);
        let message = &slack.roots()[0];
        assert_eq!(line(message, "Context: "), format!("Context: {line_end}"));
        let texts = block_texts(message);
        assert_eq!(message.text.contains("*Context Warning*"), lead.is_some());
        if let Some(lead) = lead {
            assert!(message.text.starts_with(&format!("{lead}\n📍 Agent")), "{}", message.text);
            assert_eq!(texts[0], lead);
        }
    }
}

#[test]
fn each_crossing_posts_at_once_and_once_and_is_armed_again_well_below() {
    let sandbox = Sandbox::new();
    let slack = FakeSlack::start();
    // Nothing is sent in no time: queued is what would go at once, coalesced what the interval holds back.
    sandbox.slack(&slack).env("AGENT_CHECKPOINT_DEADLINE", "0");
    let emit = |agent: &str, percent: u32, args: &[&str]| {
        let tokens = (percent * 1000).to_string();
        let words = ["emit", "-a", agent, "--json", "--tokens", &tokens, "--context-limit", "100000"];
        let output = sandbox.cmd(words.iter().chain(args)).run().success();
        let told = ["warning", "alert"]
            .into_iter()
            .find(|level| output.stderr.contains(&format!("context {level}: {percent}.0%")));
        let at_once = output.json()["delivery"] == "queued";
        (at_once, told.unwrap_or_default())
    };
    // A task's first message goes at once anyway.
    assert_eq!(emit("bot", 10, &[]), (true, ""));
    for (percent, expected) in [
        (69, (false, "")),
        (70, (true, "warning")),
        (75, (false, "")),
        (69, (false, "")),
        (71, (false, "")),
        (85, (true, "alert")),
        (99, (false, "")),
        (80, (false, "")),
        (86, (false, "")),
        (75, (false, "")),
        (85, (true, "alert")),
        (20, (false, "")),
        (70, (true, "warning")),
        (60, (false, "")),
        (90, (true, "alert")),
    ] {
        assert_eq!(emit("bot", percent, &[]), expected, "at {percent} %");
    }
    let own = ["--context-warn", "30", "--context-alert", "40"];
    assert_eq!(emit("own", 29, &own), (true, ""));
    for (percent, expected) in [(30, (true, "warning")), (39, (false, "")), (40, (true, "alert"))] {
        assert_eq!(emit("own", percent, &own), expected, "at {percent} %");
    }
}

#[test]
fn a_crossing_is_in_slack_when_the_call_returns() {
    let (slack, sandbox) = set_up();
    for (tokens, messages) in [("1000", 1), ("100000", 1), ("150000", 2), ("151000", 2), ("171000", 3)] {
        sandbox.cmd(["emit", "-a", "bot", "--tokens", tokens, "Step"]).run().success();
        assert_eq!(slack.messages("agent-supervisory").len(), messages, "at {tokens}");
    }
    assert!(slack.roots()[0].text.starts_with("⚠️ *Context Warning*: 85.5%"), "the card tells it too");
}

#[test]
fn a_webhooks_messages_stand_alone_and_keep_the_interval() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.webhook(&slack);
    for (args, messages) in
        [(&["One"][..], 1), (&["Two"], 1), (&["Three"], 1), (&["-s", "blocked", "Four"], 2), (&["Five"], 2)]
    {
        sandbox.cmd(["emit", "-a", "bot"].iter().chain(args)).run().success().silent();
        assert_eq!(slack.roots().len(), messages, "{args:?}");
    }
    assert_eq!(line(&slack.roots()[1], "Steps: "), "Steps: One → Two → Three → Four");
    assert!(slack.requests().iter().all(|request| request.args.get("thread_ts").is_none()));
    // Nobody can edit what a webhook posted: there is no card to keep, and nothing else to call.
    assert_eq!(slack.requests().len(), 2);

    let ts = slack.say("C0AGENT000", None, HUMAN, "Work here");
    sandbox
        .cmd(["emit", "-a", "joins", "--thread", &format!("C0AGENT000:{ts}"), "Mine"])
        .run()
        .success()
        .silent();
    assert_eq!(slack.thread(&ts).len(), 2);
}

/// Calls a function with every text that Slack would parse.
fn each_text(value: &Value, check: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get("text") {
                check(text);
            }
            map.values().for_each(|value| each_text(value, check));
        }
        Value::Array(values) => values.iter().for_each(|value| each_text(value, check)),
        _ => {}
    }
}

#[test]
fn hostile_text_pings_nobody_and_forges_no_link() {
    let hostile = "<!channel> <!here> <!everyone> @channel @here @everyone <@U0HUMAN000> @U0HUMAN000 <#C0AGENT000> \
                   <!subteam^S1> <https://evil.example|https://good.example> `</code>` *x* &lt;!here&gt; \u{202e}";
    for webhook in [false, true] {
        let slack = FakeSlack::start();
        let sandbox = Sandbox::new();
        if webhook {
            sandbox.webhook(&slack);
        } else {
            sandbox.slack(&slack);
        }
        for text in [hostile, "`<!channel>`", "```<!here>```\n> @here"] {
            let one_line = text.replace('\n', " ");
            // An id of characters that are not seen is refused.
            let agent_id = one_line.replace('\u{202e}', "");
            let words = [
                ["-a", &agent_id],
                ["-t", &one_line],
                ["--task-type", &one_line],
                ["--repo", &one_line],
                ["--error", text],
                ["--artifact", "https://example.com/a|b`c&d"],
                ["--artifact", "<!here> @channel=https://example.com/ok"],
                ["--artifact", &one_line.replace("://", ":")],
                ["--meta", "<!here>=<!channel>"],
                ["--tokens", "190000"],
                ["-s", "error"],
            ];
            sandbox.cmd(["emit", text].into_iter().chain(words.concat())).run().success();
        }
        assert_eq!(slack.roots().len(), 3);
        assert_eq!(slack.pings(), []);
        for request in slack.requests() {
            each_text(&request.args, &mut |text| {
                for (at, _) in text.match_indices('<') {
                    let token = text[at + 1..].split('>').next().expect("a part");
                    assert!(
                        token == "https://example.com/ok" || token == "https://example.com/a%7Cb%60c&amp;d",
                        "a forged link: <{token}> in {text}"
                    );
                }
                assert!(!text.contains('\u{202e}'), "{text}");
            });
        }
    }
}
