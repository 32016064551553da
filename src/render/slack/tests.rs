use proptest::prelude::*;

use super::*;
use crate::checkpoint::snapshot::ChildTask;
use crate::checkpoint::status::Status;

fn full() -> Snapshot {
    let mut snapshot = Snapshot::blank();
    snapshot.name = Some("Deploy Feature X".to_owned());
    snapshot.repo = Some("agent-factory".to_owned());
    snapshot.action = Some(Excerpt::of("Starting deployment"));
    snapshot.push_step("Starting deployment");
    snapshot
}

#[test]
fn the_text_reads_as_promised() {
    assert_eq!(
        message("agent-id-123", &full())["text"],
        "🚀 Agent `agent-id-123` – STARTING\n\nTask: Deploy Feature X\nProgress: ░░░░░░░░░░ 0%\n\
         Repo: agent-factory\nContext: 0 / 200,000 (0.0%)\nLast Action: Starting deployment\nElapsed: 0s"
    );
}

#[test]
fn everything_known_is_shown() {
    let mut snapshot = full();
    snapshot.status = Status::Error;
    snapshot.tokens = Some(171_000);
    snapshot.context = Level::Alert;
    snapshot.push_step("Second");
    snapshot.error = Some(Excerpt::of("exit code 1\nline two"));
    snapshot.push_artifacts(&[
        Artifact { name: Some("PR".to_owned()), target: "https://example.com/1?a=b&c".to_owned() },
        Artifact { name: None, target: "out/report.txt".to_owned() },
    ]);
    let text = message("a", &snapshot)["text"].as_str().expect("text").to_owned();
    for expected in [
        "⚠️ *Context Warning*: 85.5% of the context",
        "Context: 171,000 / 200,000 (85.5%) ⚠️",
        "Steps: Starting deployment → Second",
        "🔴 Error: exit code 1\nline two",
        "Artifacts:\n• PR: <https://example.com/1?a=b&amp;c>\n• out/report.txt",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
    let sent = message("a", &snapshot);
    assert_eq!(sent["attachments"][0]["color"], "#ff0000");
    assert_eq!(sent["attachments"].as_array().map(Vec::len), Some(1));
}

#[test]
fn says_how_much_was_cut() {
    let mut snapshot = full();
    snapshot.error = Some(Excerpt::of(&"e".repeat(10_000)));
    let text = message("a", &snapshot)["text"].as_str().expect("text").to_owned();
    let shown = text.chars().filter(|c| *c == 'e').count();
    let noted =
        text.split("(+").nth(1).and_then(|rest| rest.split(' ').next()).expect("a note").replace(',', "");
    let labels = message("a", &full())["text"].as_str().expect("text").matches('e').count()
        + "characters".matches('e').count();
    assert_eq!(shown - labels + noted.parse::<usize>().expect("a number"), 10_000);
}

/// Calls `check` for every text that Slack would parse.
fn each_text(value: &Value, check: &mut dyn FnMut(&Value, &str)) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get("text") {
                check(value, text);
            }
            map.values().for_each(|value| each_text(value, check));
        }
        Value::Array(values) => values.iter().for_each(|value| each_text(value, check)),
        _ => {}
    }
}

fn hostile() -> impl Strategy<Value = String> {
    let bits = prop_oneof![
        Just("<!channel>".to_owned()),
        Just("@here".to_owned()),
        Just("<@U012AB3CD>".to_owned()),
        Just("<https://evil.example|https://good.example>".to_owned()),
        Just("`".to_owned()),
        Just("&&&&&&&&".to_owned()),
        Just("\u{202e}\u{1b}[31m".to_owned()),
        "\\PC{0,40}",
        ".{0,40}",
    ];
    (proptest::collection::vec(bits, 0..40), 0_usize..200)
        .prop_map(|(bits, times)| bits.concat().repeat(times))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_text_stays_inside_slacks_limits_and_pings_nobody(
        id in "[^\u{0}]{1,255}", action in hostile(), error in hostile(), name in hostile(), target in hostile(),
        tokens in any::<u64>(), times in 0_usize..30,
    ) {
        let mut snapshot = Snapshot::blank();
        snapshot.name = Some(name.clone());
        snapshot.repo = Some(name.clone());
        snapshot.tokens = Some(tokens);
        snapshot.context = Level::Alert;
        snapshot.action = Some(Excerpt::of(&action));
        snapshot.error = Some(Excerpt::of(&error));
        snapshot.tail = Some(Excerpt::end_of(&error));
        snapshot.children = vec![ChildTask { agent_id: id.clone(), status: Status::Working, progress: 7 }; times];
        for _ in 0..times {
            snapshot.push_step(&action);
            snapshot.push_artifacts(&[
                Artifact { name: Some(name.clone()), target: target.clone() },
                Artifact { name: Some(name.clone()), target: format!("https://example.com/{target}") },
            ]);
        }
        let sent = message(&id, &snapshot);
        prop_assert!(units(sent["text"].as_str().expect("text")) <= TEXT_MAX);
        let mut checked = 0;
        each_text(&sent, &mut |object, text| {
            checked += 1;
            let max = if object.get("type").is_some() { SECTION_MAX } else { TEXT_MAX };
            assert!((1..=max).contains(&units(text)), "{} units", units(text));
            if object["type"] == "text" {
                // Literal: Slack parses nothing in it.
                return;
            }
            for (at, _) in text.match_indices('<') {
                let rest = &text[at + 1..];
                let inside = rest.split('>').next().expect("split gives at least one piece");
                assert!(inside.starts_with("http") && !inside.contains('|'), "a forged token: <{inside}>");
            }
            let lower = text.to_lowercase();
            for ping in ["@here", "@channel", "@everyone"] {
                assert!(!lower.contains(ping), "{ping} in {text}");
            }
        });
        prop_assert!(checked >= 3);
    }
}

#[test]
fn every_status_has_its_sign_its_name_and_its_colour() {
    for (status, sign, colour) in [
        (Status::Starting, "🚀 Agent `a` – STARTING", "#0099ff"),
        (Status::Planning, "🧠 Agent `a` – PLANNING", "#9933ff"),
        (Status::Working, "⚙️ Agent `a` – WORKING", "#00cc00"),
        (Status::Checkpoint, "📍 Agent `a` – CHECKPOINT", "#ffcc00"),
        (Status::WaitingApproval, "⏳ Agent `a` – WAITING_APPROVAL", "#ff9900"),
        (Status::Blocked, "🚧 Agent `a` – BLOCKED", "#ff6600"),
        (Status::Error, "❌ Agent `a` – ERROR", "#ff0000"),
        (Status::Complete, "✅ Agent `a` – COMPLETE", "#00cc00"),
        (Status::Cancelled, "🛑 Agent `a` – CANCELLED", "#808080"),
    ] {
        let sent = message("a", &Snapshot { status, ..full() });
        let text = sent["text"].as_str().expect("text");
        assert_eq!(
            (text.lines().next(), sent["attachments"][0]["color"].as_str()),
            (Some(sign), Some(colour))
        );
    }
}

#[test]
fn the_blocks_say_what_the_text_says() {
    let mrkdwn = |text: &str| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } });
    assert_eq!(
        message("deploy", &full()),
        json!({
            "text": "🚀 Agent `deploy` – STARTING\n\nTask: Deploy Feature X\nProgress: ░░░░░░░░░░ 0%\n\
                     Repo: agent-factory\nContext: 0 / 200,000 (0.0%)\nLast Action: Starting deployment\nElapsed: 0s",
            "blocks": [mrkdwn("🚀 Agent `deploy` – *STARTING*")],
            "attachments": [{
                "color": "#0099ff",
                "blocks": [mrkdwn(
                    "*Task:* Deploy Feature X\n*Progress:* ░░░░░░░░░░ 0%\n*Repo:* agent-factory\n\
                     *Context:* 0 / 200,000 (0.0%)\n*Last Action:* Starting deployment\n*Elapsed:* 0s"
                )],
            }],
        })
    );
    let plain = plain_message("deploy", &full());
    assert_eq!(plain["text"], message("deploy", &full())["text"]);
    assert_eq!(
        (&plain["blocks"], &plain["attachments"]),
        (&json!([]), &json!([])),
        "an edit removes the old ones"
    );
}

#[test]
fn what_is_not_known_is_not_shown() {
    assert_eq!(
        message("a", &Snapshot::blank())["text"],
        "🚀 Agent `a` – STARTING\n\nTask: a\nProgress: ░░░░░░░░░░ 0%\nContext: 0 / 200,000 (0.0%)\nElapsed: 0s"
    );
}

#[test]
fn a_warning_has_a_sign_and_an_alert_leads_the_message() {
    for (context, leads, sign) in
        [(Level::Calm, false, false), (Level::Warn, false, true), (Level::Alert, true, true)]
    {
        let sent = message("a", &Snapshot { tokens: Some(171_000), context, ..full() });
        let text = sent["text"].as_str().expect("text");
        assert_eq!(text.starts_with("⚠️ *Context Warning*: 85.5% of the context"), leads, "{text}");
        assert_eq!(text.contains("Context: 171,000 / 200,000 (85.5%) ⚠️\n"), sign, "{text}");
        assert_eq!(sent["blocks"].as_array().map(Vec::len), Some(if leads { 2 } else { 1 }));
        let first = sent["blocks"][0]["text"]["text"].as_str().expect("text");
        assert_eq!(first.starts_with("⚠️ *Context Warning*: "), leads);
    }
}

#[test]
fn artifacts_are_links_where_they_can_be_and_the_rest_is_counted() {
    let long = format!("https://example.com/{}", "x".repeat(700));
    for (name, target, shown) in [
        (None, "https://example.com/a?b=c&d", "• <https://example.com/a?b=c&amp;d>"),
        (Some("a <b>"), "https://example.com", "• a &lt;b&gt;: <https://example.com>"),
        (None, "https://example.com/a|b`c", "• <https://example.com/a%7Cb%60c>"),
        (None, "https://example.com/@Here?to=@channel", "• <https://example.com/@%48ere?to=@%63hannel>"),
        (None, "https://ana@everyone.example/@eve", "• <https://ana@%65veryone.example/@eve>"),
        (None, "s3://bucket/key", "• s3://bucket/key"),
        (None, "out/<report>.txt", "• out/&lt;report&gt;.txt"),
        (Some("log"), "javascript:alert(1)", "• log: javascript:alert(1)"),
    ] {
        let artifact = Artifact { name: name.map(str::to_owned), target: target.to_owned() };
        assert_eq!(bullet(&artifact), shown);
    }
    let cut = bullet(&Artifact { name: None, target: long });
    assert!(cut.starts_with("• https://example.com/xxx") && cut.ends_with(" characters)"), "{cut}");

    let mut snapshot = full();
    for n in 0..1500 {
        snapshot.push_artifacts(&[Artifact { name: None, target: format!("{n}.txt") }]);
    }
    let text = message("a", &snapshot)["text"].as_str().expect("text").to_owned();
    let expected: Vec<String> = (1490..1500).map(|n| format!("• {n}.txt")).collect();
    assert!(text.ends_with(&format!("Artifacts:\n• 1,490 more\n{}", expected.join("\n"))), "{text}");
}
