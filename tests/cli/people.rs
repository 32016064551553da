//! The fake Slack's people, tried with a plain client: what they do reaches an app as Slack would tell it, and what Slack
//! refuses is refused. A fake that is too polite proves nothing of who talks to it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

use crate::fake_slack::clicks::SIGNING_SECRET;
use crate::fake_slack::people::{COLLEAGUE, DELETED, FOREIGNER, OTHER_BOT, OTHER_TEAM};
use crate::fake_slack::sockets::APP_TOKEN;
use crate::fake_slack::{CHANNEL, FakeSlack, HUMAN, TOKEN};

type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

/// Calls a method by form with a token; its answer.
fn call_as(slack: &FakeSlack, token: &str, method: &str, fields: &[(&str, &str)]) -> Value {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    let mut response = agent
        .post(format!("{}{method}", slack.url()))
        .header("authorization", format!("Bearer {token}"))
        .send_form(fields.iter().copied())
        .expect("an answer");
    let text = response.body_mut().read_to_string().expect("a body");
    serde_json::from_str(&text).expect("JSON")
}

fn call(slack: &FakeSlack, method: &str, fields: &[(&str, &str)]) -> Value {
    call_as(slack, TOKEN, method, fields)
}

/// Posts JSON to a `response_url`; the status and the body.
fn respond(url: &str, answer: &Value) -> (u16, String) {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    let mut response = agent
        .post(url)
        .header("content-type", "application/json")
        .send(answer.to_string())
        .expect("an answer");
    (response.status().as_u16(), response.body_mut().read_to_string().expect("a body"))
}

/// Posts a question with two buttons into a thread; the message's `ts`.
fn question(slack: &FakeSlack) -> String {
    let button = |name: &str| {
        json!({ "type": "button", "action_id": format!("question:{name}"), "value": "id:nonce",
            "text": { "type": "plain_text", "text": name } })
    };
    let blocks =
        json!([{ "type": "actions", "elements": [button("approve"), button("reject")] }]).to_string();
    let root = text(&call(slack, "chat.postMessage", &[("channel", CHANNEL), ("text", "thread")]), "ts");
    let fields = [
        ("channel", CHANNEL),
        ("text", "Deploy?"),
        ("thread_ts", &*root),
        ("reply_broadcast", "true"),
        ("blocks", &*blocks),
    ];
    text(&call(slack, "chat.postMessage", &fields), "ts")
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}

/// Opens a Socket Mode connection and takes the hello.
fn connect(slack: &FakeSlack) -> Socket {
    let opened = call_as(slack, APP_TOKEN, "apps.connections.open", &[]);
    let (mut socket, _) = tungstenite::connect(text(&opened, "url")).expect("a socket");
    let hello = receive(&mut socket).expect("a hello");
    assert_eq!(hello["type"], "hello");
    socket
}

/// The next JSON text; nothing at the end.
fn receive(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).expect("JSON")),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// An app that acknowledges what comes, so many times, and returns all of it.
fn app(mut socket: Socket, count: usize) -> JoinHandle<(Socket, Vec<Value>)> {
    thread::spawn(move || {
        let mut heard = Vec::new();
        while heard.len() < count {
            let Some(envelope) = receive(&mut socket) else { break };
            let mut ack = json!({ "envelope_id": envelope["envelope_id"] });
            if envelope["accepts_response_payload"] == true {
                ack["payload"] = json!({ "response_type": "ephemeral", "text": "no tasks" });
            }
            socket.send(Message::text(ack.to_string())).expect("to acknowledge");
            heard.push(envelope);
        }
        (socket, heard)
    })
}

#[test]
fn a_click_reaches_one_socket_with_the_stored_message_and_a_button_that_is_gone_cannot_be_clicked() {
    let slack = FakeSlack::start();
    let ts = question(&slack);
    let seen = slack.card(&ts);
    let app = app(connect(&slack), 2);
    let heard = slack.click(&ts, "question:approve", HUMAN);
    assert!(heard.acked && heard.times == 1 && heard.answer.is_none(), "{heard:?}");
    let update = call(&slack, "chat.update", &[("channel", CHANNEL), ("ts", &ts), ("text", "Approved")]);
    assert_eq!(update["ok"], true);
    assert!(!slack.has_button(&ts, "question:approve") && slack.buttons(&ts).is_empty());
    assert!(slack.click_as_seen(&seen, "question:reject", FOREIGNER).acked);
    let (_, envelopes) = app.join().expect("the app");
    let payload = &envelopes[0]["payload"];
    assert_eq!(payload["type"], "block_actions");
    assert_eq!(payload["user"]["id"], HUMAN);
    assert_eq!(payload["container"]["message_ts"], ts);
    assert_eq!(payload["container"]["thread_ts"], payload["message"]["thread_ts"]);
    assert_eq!(payload["actions"][0]["value"], "id:nonce");
    assert_eq!(envelopes[1]["payload"]["user"]["team_id"], OTHER_TEAM);
    assert_eq!(slack.socket_complaints(), [""; 0]);
    assert_eq!(slack.rate_violations(), []);
}

#[test]
fn a_ticket_is_for_one_connection_by_an_app_level_token_and_there_are_ten_at_most() {
    let slack = FakeSlack::start();
    for (token, error) in [(TOKEN, "not_allowed_token_type"), ("xapp-other", "invalid_auth")] {
        assert_eq!(call_as(&slack, token, "apps.connections.open", &[])["error"], error);
    }
    assert_eq!(call_as(&slack, APP_TOKEN, "auth.test", &[])["error"], "not_allowed_token_type");
    let url = text(&call_as(&slack, APP_TOKEN, "apps.connections.open", &[]), "url");
    let (mut first, _) = tungstenite::connect(&url).expect("a socket");
    assert_eq!(receive(&mut first).expect("a hello")["num_connections"], 1);
    assert!(tungstenite::connect(&url).is_err(), "a ticket was good twice");
    let mut others: Vec<_> = (0..9).map(|_| connect(&slack)).collect();
    let url = text(&call_as(&slack, APP_TOKEN, "apps.connections.open", &[]), "url");
    let (mut eleventh, _) = tungstenite::connect(&url).expect("a socket");
    assert_eq!(receive(&mut eleventh).expect("a frame")["reason"], "too_many_websockets");
    assert_eq!(receive(&mut eleventh), None);
    slack.wait_sockets(10);
    slack.disconnect_sockets("link_disabled");
    for socket in &mut others {
        assert_eq!(receive(socket).expect("a frame")["reason"], "link_disabled");
        assert_eq!(receive(socket), None);
    }
}

#[test]
fn an_envelope_whose_acknowledgement_is_lost_goes_to_another_socket_and_one_can_come_twice() {
    let slack = FakeSlack::start();
    let ts = question(&slack);
    let apps = [app(connect(&slack), 9), app(connect(&slack), 9)];
    slack.wait_sockets(2);
    slack.cut_after_next_envelope();
    let heard = slack.click(&ts, "question:approve", HUMAN);
    assert!(heard.acked && (1..=2).contains(&heard.times), "{heard:?}");
    slack.wait_sockets(1);
    slack.repeat_next_envelope();
    for times in [2, 1] {
        let heard = slack.command(CHANNEL, COLLEAGUE, "/agent-task", "list");
        assert_eq!((heard.times, &heard.answer.expect("an answer")["text"]), (times, &json!("no tasks")));
    }
    assert_eq!(slack.wait_ephemerals(2)[0].user, COLLEAGUE);
    slack.cut_sockets();
    let mut ids: Vec<Value> = Vec::new();
    for app in apps {
        let (_, envelopes) = app.join().expect("the app");
        ids.extend(
            envelopes.iter().filter(|e| e["type"] == "slash_commands").map(|e| e["envelope_id"].clone()),
        );
    }
    assert_eq!((ids.len(), ids[0] == ids[1], ids[1] == ids[2]), (3, true, false));
}

#[test]
fn a_frame_can_end_in_the_middle_a_ping_is_answered_and_long_texts_come_in_two_frames() {
    let slack = FakeSlack::start();
    let reader = app(connect(&slack), 1);
    slack.ping_sockets();
    slack.send_text(&json!({ "type": "hello", "padding": "é".repeat(10_000) }).to_string());
    let (mut socket, heard) = reader.join().expect("the app");
    assert_eq!(heard[0]["padding"].as_str().map(str::len), Some(20_000));
    slack.break_sockets();
    assert_eq!(receive(&mut socket), None);
    slack.wait_sockets(0);
    // The acknowledgement of what is no envelope.
    assert_eq!(slack.socket_complaints().len(), 1);
}

#[test]
fn people_react_and_reply_and_bots_guests_and_closed_accounts_can_be_told() {
    let slack = FakeSlack::start();
    let ts = question(&slack);
    let root = slack.card(&ts).thread_ts.expect("a thread");
    slack.person_reacts(CHANNEL, &ts, HUMAN, "white_check_mark");
    slack.person_reacts(CHANNEL, &ts, OTHER_BOT, "white_check_mark");
    let fields = [("channel", CHANNEL), ("timestamp", &*ts), ("full", "true")];
    let got = call(&slack, "reactions.get", &fields);
    let expected = json!([{ "name": "white_check_mark", "count": 2, "users": [HUMAN, OTHER_BOT] }]);
    assert_eq!(got["message"]["reactions"], expected);
    let reply = slack.person_replies(CHANNEL, &root, COLLEAGUE, "reject too late");
    let fields = [("channel", CHANNEL), ("ts", &*root), ("oldest", &*ts), ("limit", "15")];
    let page = call(&slack, "conversations.replies", &fields);
    let seen: Vec<String> =
        page["messages"].as_array().into_iter().flatten().map(|m| text(m, "ts")).collect();
    assert_eq!(seen, [root, reply]);
    let user = |id: &str| call(&slack, "users.info", &[("user", id)])["user"].clone();
    assert_eq!((&user(OTHER_BOT)["is_bot"], &user(DELETED)["deleted"]), (&json!(true), &json!(true)));
    assert_eq!(user(FOREIGNER)["team_id"], OTHER_TEAM);
    slack.set_scopes(&["chat:write"]);
    for method in ["users.info", "reactions.get", "conversations.replies", "reactions.add"] {
        let fields = [("user", HUMAN), ("channel", CHANNEL), ("timestamp", &*ts), ("ts", &*ts)];
        assert_eq!(call(&slack, method, &fields)["error"], "missing_scope", "{method}");
    }
}

#[test]
fn a_response_url_tells_one_person_five_times_until_it_expires() {
    let slack = FakeSlack::start();
    let ts = question(&slack);
    let payload = slack.click_payload(&slack.card(&ts), "question:approve", HUMAN);
    let url = text(&payload, "response_url");
    let told = json!({ "response_type": "ephemeral", "replace_original": false, "text": "Too late." });
    for _ in 0..5 {
        assert_eq!(respond(&url, &told), (200, "ok".to_owned()));
    }
    assert_eq!(respond(&url, &told).0, 404);
    assert_eq!(slack.ephemerals().len(), 5);
    let url = text(&slack.click_payload(&slack.card(&ts), "question:approve", HUMAN), "response_url");
    assert_eq!(respond(&url, &json!({ "replace_original": true, "text": "Approved" })).0, 200);
    assert_eq!((slack.card(&ts).text, slack.buttons(&ts).len()), ("Approved".to_owned(), 0));
    slack.expire_response_urls();
    assert_eq!(respond(&url, &told).0, 404);
}

#[test]
fn over_http_what_people_do_is_signed_and_an_event_that_is_not_taken_comes_again() {
    let slack = FakeSlack::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    slack.interactivity(&format!("http://127.0.0.1:{port}/"), SIGNING_SECRET);
    let app = thread::spawn(move || {
        let answers = ["200 OK", "500 No", "200 OK"];
        answers.map(|status| {
            let (mut stream, _) = listener.accept().expect("a connection");
            let request = read_request(&mut stream);
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("to answer");
            request
        })
    });
    let ts = question(&slack);
    assert_eq!(slack.click(&ts, "question:approve", HUMAN).status, Some(200));
    let (_, heard) = slack.mention(CHANNEL, None, HUMAN, "list");
    assert_eq!((heard.acked, heard.times), (true, 2));
    let requests = app.join().expect("the app");
    for ((head, body), path) in requests.iter().zip(["interactions", "events", "events"]) {
        assert!(head.starts_with(&format!("POST /slack/{path} ")), "{head}");
        let part = |name: &str| {
            let line =
                head.lines().find(|line| line.to_ascii_lowercase().starts_with(name)).expect("a header");
            line.split_once(": ").expect("a value").1.to_owned()
        };
        let base = format!("v0:{}:{body}", part("x-slack-request-timestamp"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, SIGNING_SECRET.as_bytes());
        let hex: String =
            hmac::sign(&key, base.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(part("x-slack-signature"), format!("v0={hex}"));
    }
    assert!(requests[0].1.starts_with("payload=%7B%22"), "{}", requests[0].1);
    assert!(requests[2].0.contains("x-slack-retry-num: 1"), "{}", requests[2].0);
}

/// The head and the body of a request with a length.
fn read_request(stream: &mut TcpStream) -> (String, String) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut some).expect("bytes");
        assert!(count > 0, "the request ended early");
        bytes.extend_from_slice(&some[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
        });
        if body.len() == length.unwrap_or_default() {
            return (head.to_owned(), body.to_owned());
        }
    }
}
