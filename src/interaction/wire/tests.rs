use serde_json::json;

use super::*;

/// A click as Slack sends it, with what we do not care for.
fn click() -> Value {
    json!({
        "type": "block_actions", "api_app_id": "A0APP00000", "token": "deprecated", "enterprise": null,
        "is_enterprise_install": false, "trigger_id": "12466734323.1395872398.abc",
        "response_url": "https://hooks.slack.com/actions/T0/1/x",
        "team": { "id": "T0TEAM0000", "domain": "example" },
        "user": { "id": "U0ANA00000", "username": "ana", "name": "ana", "team_id": "T0TEAM0000" },
        "channel": { "id": "C0AGENT000", "name": "agent-supervisory" },
        "container": {
            "type": "message", "message_ts": "1700000001.000200", "channel_id": "C0AGENT000",
            "thread_ts": "1700000000.000100", "is_ephemeral": false,
        },
        "message": { "type": "message", "ts": "1700000001.000200", "text": "Deploy?", "blocks": [] },
        "state": { "values": {} },
        "actions": [{
            "type": "button", "action_id": "question:approve", "block_id": "b1", "value": "id:nonce",
            "text": { "type": "plain_text", "text": "Approve", "emoji": true }, "style": "primary",
            "action_ts": "1700000002.000300",
        }],
    })
}

fn slash() -> Value {
    json!({
        "token": "deprecated", "team_id": "T0TEAM0000", "team_domain": "example", "channel_id": "C0AGENT000",
        "channel_name": "agent-supervisory", "user_id": "U0ANA00000", "user_name": "ana",
        "command": "/agent-task", "text": "show a/b", "api_app_id": "A0APP00000",
        "is_enterprise_install": "false", "response_url": "https://hooks.slack.com/commands/T0/1/x",
        "trigger_id": "13345224609.738474920.8088930838d88f008e0",
    })
}

fn mention() -> Value {
    json!({
        "type": "event_callback", "token": "deprecated", "team_id": "T0TEAM0000", "api_app_id": "A0APP00000",
        "event": {
            "type": "app_mention", "user": "U0ANA00000", "text": "<@U0BOT00000> cancel a/b", "team": "T0TEAM0000",
            "ts": "1700000003.000400", "channel": "C0AGENT000", "event_ts": "1700000003.000400",
        },
        "event_id": "Ev0MENTION", "event_time": 1_700_000_003, "is_ext_shared_channel": false,
        "authorizations": [{ "team_id": "T0TEAM0000", "user_id": "U0BOT00000", "is_bot": true }],
    })
}

fn ana() -> Person {
    Person {
        id: "U0ANA00000".to_owned(),
        name: Some("ana".to_owned()),
        team_id: Some("T0TEAM0000".to_owned()),
    }
}

#[track_caller]
fn clicked(payload: &Value) -> Click {
    match interaction(payload) {
        Ok(Call::Interaction(found)) => match *found {
            Interaction::Click(click) => click,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// The payload with one part replaced, or taken away.
fn with(mut payload: Value, pointer: &str, part: Option<Value>) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = payload.pointer_mut(parent).expect("such a part");
    match part {
        Some(part) => parent[name] = part,
        None => drop(parent.as_object_mut().expect("an object").remove(name)),
    }
    payload
}

#[test]
fn a_click_says_who_clicked_what_and_where() {
    let click = clicked(&click());
    assert_eq!(
        click,
        Click {
            id: "click:C0AGENT000:1700000001.000200:1700000002.000300:U0ANA00000".to_owned(),
            person: ana(),
            team_id: Some("T0TEAM0000".to_owned()),
            channel_id: "C0AGENT000".to_owned(),
            ts: "1700000001.000200".to_owned(),
            thread_ts: Some("1700000000.000100".to_owned()),
            action_id: "question:approve".to_owned(),
            value: "id:nonce".to_owned(),
            response_url: Some(Secret::new("https://hooks.slack.com/actions/T0/1/x".to_owned())),
        }
    );
    assert!(!format!("{click:?}").contains("hooks.slack.com"));
}

#[test]
fn the_same_click_has_one_id_however_often_it_comes_and_another_click_has_another() {
    let first = clicked(&click());
    // Slack may hand out another response_url when it sends a click again.
    let again = with(click(), "/response_url", Some(json!("https://hooks.slack.com/actions/T0/2/y")));
    assert_eq!(clicked(&again).id, first.id);
    for (pointer, part) in [
        ("/actions/0/action_ts", "1700000002.000301"),
        ("/user/id", "U0BEN00000"),
        ("/container/message_ts", "1700000001.000201"),
    ] {
        assert_ne!(clicked(&with(click(), pointer, Some(json!(part)))).id, first.id, "{pointer}");
    }
}

#[test]
fn a_click_in_an_attachment_or_with_nulls_is_one_too() {
    let mut payload = with(click(), "/container/type", Some(json!("message_attachment")));
    payload = with(payload, "/container/thread_ts", None);
    payload = with(payload, "/actions/0/value", None);
    payload = with(payload, "/message", Some(Value::Null));
    payload = with(payload, "/user/username", Some(Value::Null));
    let click = clicked(&payload);
    assert_eq!((click.thread_ts, &*click.value, click.person), (None, "", ana()));
    // Where the container does not say it, the message does.
    let payload = with(payload, "/message", Some(json!({ "thread_ts": "1700000000.000100" })));
    assert_eq!(clicked(&payload).thread_ts.as_deref(), Some("1700000000.000100"));
}

#[test]
fn what_is_no_click_on_a_message_is_nothing_to_us() {
    for payload in [
        json!({ "type": "view_submission", "view": {} }),
        json!({ "type": "shortcut", "callback_id": "x" }),
        with(click(), "/container/type", Some(json!("view"))),
        with(click(), "/actions", Some(json!([]))),
        with(click(), "/actions/0/type", Some(json!("static_select"))),
    ] {
        assert_eq!(interaction(&payload), Ok(Call::Nothing), "{payload}");
    }
    for event_of in [
        json!({ "type": "app_rate_limited", "minute_rate_limited": 1 }),
        with(mention(), "/event/type", Some(json!("reaction_added"))),
        with(mention(), "/event/bot_id", Some(json!("B0OTHER000"))),
        with(mention(), "/event/user", None),
        with(mention(), "/event", None),
    ] {
        assert_eq!(event(&event_of), Ok(Call::Nothing), "{event_of}");
    }
    for body in [&b"ssl_check=1&token=x"[..], b"token=x&ssl_check=1"] {
        assert_eq!((command_form(body), interaction_form(body)), (Ok(Call::Nothing), Ok(Call::Nothing)));
    }
}

#[test]
fn hostile_payloads_are_malformed_and_never_more() {
    let long = "x".repeat(2_001);
    for (pointer, part) in [
        ("/user/id", json!("U0ANA> <!channel")),
        ("/user/id", json!("")),
        ("/user/id", json!("B0BOT00000")),
        ("/user/id", json!(7)),
        ("/user", json!("U0ANA00000")),
        ("/user", Value::Null),
        ("/container/channel_id", json!("../../etc")),
        ("/container/channel_id", json!("C".repeat(65))),
        ("/container/message_ts", json!(1_700_000_001.000_2)),
        ("/container/message_ts", json!("1700000001")),
        ("/container/message_ts", json!("1700000001.0002'; drop")),
        ("/container/thread_ts", json!("later")),
        ("/actions", json!({ "0": {} })),
        ("/actions/0/action_id", json!("a".repeat(256))),
        ("/actions/0/value", json!(long)),
        ("/actions/0/value", json!({ "nested": true })),
        ("/actions/0/action_ts", Value::Null),
        ("/type", Value::Null),
        ("/type", json!(["block_actions"])),
    ] {
        let payload = with(click(), pointer, Some(part));
        assert!(interaction(&payload).is_err(), "{payload}");
    }
    for payload in [json!(null), json!([]), json!("block_actions"), json!(1)] {
        assert!(interaction(&payload).is_err() && event(&payload).is_err() && command(&payload).is_err());
    }
    for (pointer, part) in [
        ("/user_id", json!("")),
        ("/channel_id", json!("general")),
        ("/command", json!("agent-task")),
        ("/trigger_id", json!("")),
        ("/trigger_id", json!("with a space")),
        ("/text", json!("x".repeat(40_001))),
    ] {
        let payload = with(slash(), pointer, Some(part));
        assert!(command(&payload).is_err(), "{pointer}");
    }
    for (pointer, part) in
        [("/event_id", json!(null)), ("/event/ts", json!("soon")), ("/event/channel", json!(""))]
    {
        assert!(event(&with(mention(), pointer, Some(part))).is_err(), "{pointer}");
    }
    // As deep as nobody means it.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(event_body(deep.as_bytes()).is_err());
}

#[test]
fn a_response_url_that_would_be_told_things_unencrypted_is_not_kept() {
    for (url, kept) in [
        ("https://hooks.slack-gov.com/actions/1", true),
        ("http://127.0.0.1:8080/response/1", true),
        ("http://hooks.slack.com/actions/1", false),
        ("file:///etc/passwd", false),
        ("https://hooks.slack.com/a b", false),
    ] {
        let payload = with(click(), "/response_url", Some(json!(url)));
        assert_eq!(clicked(&payload).response_url.is_some(), kept, "{url}");
    }
}

#[test]
fn a_command_comes_the_same_as_a_form_and_as_json() {
    let body =
        b"token=deprecated&team_id=T0TEAM0000&team_domain=example&channel_id=C0AGENT000&channel_name=x\
        &user_id=U0ANA00000&user_name=ana&command=%2Fagent-task&text=show+a%2Fb&api_app_id=A0APP00000\
        &is_enterprise_install=false&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT0%2F1%2Fx\
        &trigger_id=13345224609.738474920.8088930838d88f008e0";
    let expected = found(Interaction::Command(Command {
        id: "command:13345224609.738474920.8088930838d88f008e0".to_owned(),
        person: ana(),
        channel_id: "C0AGENT000".to_owned(),
        command: "/agent-task".to_owned(),
        text: "show a/b".to_owned(),
        response_url: Some(Secret::new("https://hooks.slack.com/commands/T0/1/x".to_owned())),
    }));
    assert_eq!(command_form(body), Ok(expected.clone()));
    assert_eq!(command(&slash()), Ok(expected));
    assert!(matches!(command(&with(slash(), "/text", None)), Ok(Call::Interaction(_))));
}

#[test]
fn a_mention_is_what_is_said_to_the_bot() {
    let Ok(Call::Interaction(found)) = event_body(mention().to_string().as_bytes()) else {
        panic!("no mention")
    };
    let Interaction::Mention(mentioned) = *found else { panic!("no mention: {found:?}") };
    assert_eq!((&*mentioned.id, &*mentioned.text), ("event:Ev0MENTION", "cancel a/b"));
    assert_eq!((&*mentioned.ts, mentioned.thread_ts), ("1700000003.000400", None));
    assert_eq!(mentioned.person, Person { name: None, ..ana() });
    for (text, said) in [
        ("<@U0BOT00000>", ""),
        ("<@U0BOT00000|agent>: list", "list"),
        ("please <@U0BOT00000> list", "please <@U0BOT00000> list"),
        ("<@U0BOT00000", "<@U0BOT00000"),
        ("", ""),
    ] {
        assert_eq!(without_mention(text), said, "{text}");
    }
    // In a shared channel the person may belong elsewhere.
    let foreign = with(mention(), "/event/user_team", Some(json!("T0OTHER000")));
    let Ok(Call::Interaction(foreign)) = event(&foreign) else { panic!("no mention") };
    assert_eq!(foreign.person().team_id.as_deref(), Some("T0OTHER000"));
}

#[test]
fn slack_may_make_sure_of_a_url() {
    let payload =
        json!({ "token": "x", "challenge": "3eZbrw1aB10FEMAGAZd4FyFQ", "type": "url_verification" });
    assert_eq!(event(&payload), Ok(Call::Challenge("3eZbrw1aB10FEMAGAZd4FyFQ".to_owned())));
    assert!(event(&json!({ "type": "url_verification" })).is_err());
}

#[test]
fn a_form_is_decoded_or_refused() {
    for (body, expected) in [
        (&b"a=1&b=%C3%A4+%2B"[..], Some(vec![("a", "1"), ("b", "ä +")])),
        (b"a", Some(vec![("a", "")])),
        (b"", Some(vec![])),
        (b"&&a=b=c&", Some(vec![("a", "b=c")])),
        // Of two the first counts, whoever added the second.
        (b"a=1&a=2", Some(vec![("a", "1")])),
        (b"a=%", None),
        (b"a=%4", None),
        (b"a=%zz", None),
        (b"a=%ff", None),
        (b"\xff=1", None),
    ] {
        let found = form(body).ok();
        let expected = expected.map(|pairs| {
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        });
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(body));
    }
    assert!(interaction_form(b"payload=%7B").is_err() && interaction_form(b"other=1").is_err());
    let form = format!("payload={}", click().to_string().replace('%', "%25").replace('&', "%26"));
    assert!(matches!(interaction_form(form.as_bytes()), Ok(Call::Interaction(_))));
}
