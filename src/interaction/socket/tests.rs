//! The listener against the strict fake Slack: a real WebSocket, and everything that can happen to one.

#[path = "../../../tests/fake_slack/mod.rs"]
mod fake_slack;

#[path = "../../../tests/cli/wire.rs"]
#[expect(dead_code, reason = "not all that can stand in between is needed here")]
mod between;
mod ways;

use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Condvar, Mutex};

use super::*;
use crate::delivery::http::Network;
use crate::exit::Exit;
use crate::secret::Secret;
use fake_slack::people::COLLEAGUE;
use fake_slack::sockets::APP_TOKEN;
use fake_slack::{CHANNEL, FakeSlack, Fault, HUMAN, TOKEN};

const PATIENCE: Duration = Duration::from_secs(20);

/// As in use, but quick to try again.
const QUICK: Pace = Pace {
    first_wait: Duration::from_millis(20),
    last_wait: Duration::from_millis(200),
    linger: Duration::from_secs(2),
    ..PACE
};

fn access(slack: &FakeSlack, token: &str) -> Access {
    Access { token: Secret::new(token.to_owned()), api_url: slack.url(), network: Network::default() }
}

/// What was heard, and a bell that is rung with each.
type Heard = (Mutex<Vec<Interaction>>, Condvar);

/// A listener, what it has heard and what it has said.
struct Ear {
    socket: Option<Socket>,
    heard: Arc<Heard>,
    notices: Receiver<Notice>,
    /// How many are not stored.
    refuses: Arc<AtomicUsize>,
}

impl Ear {
    fn new(slack: &FakeSlack) -> Self {
        Self::with(QUICK, access(slack, APP_TOKEN))
    }

    fn with(pace: Pace, access: Access) -> Self {
        let (heard, refuses) = (Arc::new(Heard::default()), Arc::new(AtomicUsize::new(0)));
        let (say, notices) = mpsc::channel();
        let (into, refusing) = (Arc::clone(&heard), Arc::clone(&refuses));
        let hear = move |interaction: Interaction| {
            if refusing.load(Ordering::SeqCst) > 0 {
                refusing.fetch_sub(1, Ordering::SeqCst);
                return Ack::NotTaken;
            }
            into.0.lock().expect("no test panics here").push(interaction);
            into.1.notify_all();
            Ack::Taken(Some(json!({ "response_type": "ephemeral", "text": "heard" })))
        };
        let note = move |notice| drop(say.send(notice));
        let socket = Socket::listen_at(pace, access, hear, note).expect("a thread");
        Self { socket: Some(socket), heard, notices, refuses }
    }

    /// Waits for a notice.
    #[track_caller]
    fn until(&self, wanted: impl Fn(&Notice) -> bool) -> Notice {
        let mut others = Vec::new();
        loop {
            match self.notices.recv_timeout(PATIENCE) {
                Ok(notice) if wanted(&notice) => return notice,
                Ok(notice) => others.push(notice),
                Err(error) => panic!("{error}: {others:?}"),
            }
        }
    }

    #[track_caller]
    fn listening(&self) -> u64 {
        match self.until(|notice| matches!(notice, Notice::Listening { .. })) {
            Notice::Listening { connections } => connections,
            _ => 0,
        }
    }

    #[track_caller]
    fn interrupted(&self) -> String {
        match self.until(|notice| matches!(notice, Notice::Interrupted(_))) {
            Notice::Interrupted(words) => words,
            _ => String::new(),
        }
    }

    #[track_caller]
    fn ended(&self) -> Failure {
        match self.until(|notice| matches!(notice, Notice::Ended(_))) {
            Notice::Ended(failure) => failure,
            _ => Failure::new(Exit::Failed, ""),
        }
    }

    fn ids(&self) -> Vec<String> {
        self.once_heard(0)
    }

    /// The same once there are so many.
    fn once_heard(&self, count: usize) -> Vec<String> {
        let (heard, bell) = &*self.heard;
        let heard = heard.lock().expect("no test panics here");
        let waited = bell.wait_timeout_while(heard, PATIENCE, |heard| heard.len() < count);
        waited.expect("no test panics here").0.iter().map(|heard| heard.id().to_owned()).collect()
    }
}

/// A message of the bot with one button; its `ts`.
fn question(slack: &FakeSlack) -> String {
    let mut http = crate::delivery::http::Http::new(Network::default());
    let message = json!({
        "channel": CHANNEL, "text": "Deploy?",
        "blocks": [{ "type": "actions", "elements": [{
            "type": "button", "action_id": "question:approve", "value": "id:nonce",
            "text": { "type": "plain_text", "text": "Approve" },
        }] }],
    });
    let url = format!("{}chat.postMessage", slack.url());
    let token = Secret::new(TOKEN.to_owned());
    let answer =
        http.post(&url, Some(&token), &message.to_string(), Instant::now() + PATIENCE).expect("an answer");
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    answer["ts"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn a_click_is_handed_over_and_acknowledged_and_a_command_is_answered() {
    let slack = FakeSlack::start();
    let ear = Ear::new(&slack);
    assert_eq!(ear.listening(), 1);
    let ts = question(&slack);
    let heard = slack.click(&ts, "question:approve", HUMAN);
    assert!(heard.acked && heard.times == 1 && heard.answer.is_none(), "{heard:?}");
    assert!(heard.took < Duration::from_millis(150), "{heard:?}");
    let heard = slack.command(CHANNEL, COLLEAGUE, "/agent-task", "list");
    assert_eq!(heard.answer.map(|answer| answer["text"].clone()), Some(json!("heard")));
    let (_, heard) = slack.mention(CHANNEL, None, HUMAN, "help");
    assert!(heard.acked && heard.times == 1, "{heard:?}");
    let kinds: Vec<String> =
        ear.ids().iter().map(|id| id.split(':').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(kinds, ["click", "command", "event"]);
    assert_eq!(slack.socket_complaints(), [""; 0]);
}

#[test]
fn what_cannot_be_stored_is_not_acknowledged_and_an_event_comes_again() {
    let slack = FakeSlack::start();
    let ear = Ear::new(&slack);
    ear.listening();
    ear.refuses.store(1, Ordering::SeqCst);
    let (_, heard) = slack.mention(CHANNEL, None, HUMAN, "help");
    assert!(heard.acked && heard.times == 2, "{heard:?}");
    assert_eq!(ear.ids().len(), 1);
}

#[test]
fn a_duplicate_has_the_same_id_and_is_acknowledged_each_time() {
    let slack = FakeSlack::start();
    let ear = Ear::new(&slack);
    ear.listening();
    let ts = question(&slack);
    slack.repeat_next_envelope();
    assert!(slack.click(&ts, "question:approve", HUMAN).acked);
    let ids = ear.once_heard(2);
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    assert_eq!(slack.socket_complaints(), [""; 0]);
}

#[test]
fn a_new_connection_is_open_before_the_old_one_is_left() {
    for reason in ["warning", "refresh_requested", "something_new"] {
        let slack = FakeSlack::start();
        let ear = Ear::new(&slack);
        ear.listening();
        let ts = question(&slack);
        // The new one is held up, so what comes now must be taken by the old one.
        slack.withhold_hello(true);
        let polite = reason != "something_new";
        slack.disconnect_sockets(reason);
        slack.wait_sockets_opened(2);
        if polite {
            assert!(slack.click(&ts, "question:approve", HUMAN).acked, "{reason}");
        }
        slack.withhold_hello(false);
        ear.listening();
        // The old one is closed by Slack soon after.
        slack.wait_sockets(1);
        assert!(slack.click(&ts, "question:approve", COLLEAGUE).acked, "{reason}");
        assert_eq!((slack.sockets_opened(), ear.ids().len()), (2, 1 + usize::from(polite)), "{reason}");
        // It was routine, so nothing is said of it.
        assert_eq!(ear.notices.try_iter().collect::<Vec<_>>(), [], "{reason}");
    }
}

#[test]
fn a_connection_that_ends_by_itself_is_replaced() {
    let slack = FakeSlack::start();
    let ear = Ear::new(&slack);
    ear.listening();
    let ends: [(&str, &dyn Fn()); 3] = [
        ("in the midst of a frame", &|| slack.break_sockets()),
        ("without a word", &|| slack.cut_sockets()),
        ("with all others", &|| slack.drop_connections()),
    ];
    for (index, (how, end)) in ends.into_iter().enumerate() {
        end();
        let words = ear.interrupted();
        assert!(words.contains("Slack") && !words.contains("ticket"), "{how}: {words}");
        assert_eq!(ear.listening(), 1, "{how}");
        assert_eq!(slack.sockets_opened(), index + 2, "{how}");
    }
    let ts = question(&slack);
    // An acknowledgement that is lost: the click comes again on the next connection, with the same id.
    slack.cut_after_next_envelope();
    assert!(slack.click(&ts, "question:approve", HUMAN).acked);
    let ids = ear.ids();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn silence_is_noticed_and_a_hello_that_does_not_come_as_well() {
    let slack = FakeSlack::start();
    let pace = Pace {
        ping: Duration::from_millis(50),
        silence: Duration::from_millis(400),
        hello: Duration::from_millis(300),
        ..QUICK
    };
    let ear = Ear::with(pace, access(&slack, APP_TOKEN));
    ear.listening();
    slack.wait_pinged();
    slack.ping_sockets();
    slack.silence_sockets(true);
    assert_eq!(ear.interrupted(), "nothing was heard from Slack any more");
    assert_eq!(ear.interrupted(), "Slack did not say hello");
    slack.silence_sockets(false);
    ear.listening();
}

#[test]
fn noise_and_what_nobody_knows_are_passed_over() {
    let slack = FakeSlack::start();
    let ear = Ear::new(&slack);
    ear.listening();
    slack.send_noise();
    let padding = "é".repeat(100_000);
    slack.send_text(&json!({ "type": "news", "padding": padding }).to_string());
    assert!(slack.interact(&json!({ "type": "view_submission", "view": {} })).acked);
    assert!(slack.event(json!({ "type": "reaction_added", "user": HUMAN })).acked);
    // What is malformed would come again and again if it were not acknowledged.
    assert!(slack.interact(&json!({ "type": "block_actions", "actions": 7 })).acked);
    ear.until(|notice| matches!(notice, Notice::Unreadable(_)));
    assert!(slack.click(&question(&slack), "question:approve", HUMAN).acked);
    assert_eq!((ear.ids().len(), slack.sockets_opened()), (1, 1));
    assert_eq!(slack.socket_complaints(), [""; 0]);
}

#[test]
fn what_no_trying_can_mend_ends_the_listener_with_words() {
    let slack = FakeSlack::start();
    for (token, words, hint) in [
        (TOKEN, "not_allowed_token_type", "begins with xapp-"),
        ("xapp-1-wrong", "invalid_auth", "fresh app-level token"),
    ] {
        let ear = Ear::with(QUICK, access(&slack, token));
        let failure = ear.ended();
        assert_eq!(failure.message, format!("Slack refused the app-level token: {words}"));
        assert!(failure.hint.is_some_and(|given| given.contains(hint)), "{words}");
        assert_eq!(failure.exit, Exit::Config);
    }
    slack.script("apps.connections.open", vec![Fault::ErrorName("missing_scope")]);
    assert!(Ear::new(&slack).ended().message.ends_with("missing_scope"));
    let ear = Ear::new(&slack);
    ear.listening();
    slack.disconnect_sockets("link_disabled");
    assert!(ear.ended().message.contains("link_disabled"));
    assert!(Ear::new(&slack).ended().message.contains("link_disabled"));
    slack.revoke_app_token();
    assert!(Ear::new(&slack).ended().message.ends_with("token_revoked"));
}

#[test]
fn what_may_pass_is_tried_again_and_a_rate_limit_is_obeyed() {
    let slack = FakeSlack::start();
    let faults = [
        Fault::Status(503),
        Fault::Html(502),
        Fault::Garbage,
        Fault::ErrorName("internal_error"),
        Fault::ResetBeforeStoring,
        Fault::Answer(r#"{"ok":true,"url":"ws://slack.example/link"}"#),
        Fault::Answer(r#"{"ok":true,"url":"wss://"}"#),
        Fault::Answer(r#"{"ok":true}"#),
    ];
    slack.script("apps.connections.open", faults.to_vec());
    let ear = Ear::new(&slack);
    let words: Vec<String> = faults.iter().map(|_| ear.interrupted()).collect();
    assert_eq!(words[3], "Slack could not open a socket: internal_error");
    assert!(words[5].ends_with("named no socket that is encrypted"), "{words:?}");
    assert_eq!(ear.listening(), 1);
    assert_eq!(slack.rate_violations(), []);
    slack.script("apps.connections.open", vec![Fault::RateLimited { retry_after: Some(1) }]);
    slack.cut_sockets();
    ear.until(|notice| {
        *notice == Notice::Interrupted("Slack's rate limit is reached (retry after 1 s)".to_owned())
    });
    ear.listening();
    assert_eq!(slack.rate_violations(), []);
}

#[test]
fn the_eleventh_connection_says_why_it_is_none() {
    let slack = FakeSlack::start();
    slack.set_lenient_rate();
    let ears: Vec<Ear> = (0..10).map(|_| Ear::new(&slack)).collect();
    slack.wait_sockets(10);
    let eleventh = Ear::new(&slack);
    assert!(eleventh.interrupted().contains("no more than ten connections"));
    drop(ears);
    eleventh.listening();
}

#[test]
fn it_stops_at_once_in_whatever_state_and_says_goodbye() {
    let slack = FakeSlack::start();
    // While it listens.
    let mut ear = Ear::new(&slack);
    ear.listening();
    assert!(ear.socket.as_ref().is_some_and(|socket| !socket.is_over()));
    let began = Instant::now();
    drop(ear.socket.take());
    assert!(began.elapsed() < Duration::from_secs(1));
    slack.wait_sockets(0);
    assert!(!slack.click(&question(&slack), "question:approve", HUMAN).acked);
    assert_eq!(ear.notices.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
    // While it asks for an address that does not come.
    slack.script("apps.connections.open", vec![Fault::Hang]);
    let ear = Ear::new(&slack);
    slack.wait_requests(2);
    let began = Instant::now();
    drop(ear);
    assert!(began.elapsed() < Duration::from_secs(1));
    // While it waits to try again.
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let nowhere = Access { api_url: format!("http://127.0.0.1:{port}/api/"), ..access(&slack, APP_TOKEN) };
    let ear = Ear::with(Pace { first_wait: PATIENCE, last_wait: PATIENCE, ..PACE }, nowhere);
    assert!(ear.interrupted().contains("connection refused"));
    let began = Instant::now();
    drop(ear);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn it_waits_longer_each_time_up_to_a_minute() {
    let waits: Vec<u64> = (0..9).map(|failures| wait_after(failures, &PACE).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(wait_after(u32::MAX, &PACE), Duration::from_secs(60));
    assert!((0..100).all(|_| (0.0..=1.0).contains(&jitter())));
}

#[test]
fn a_click_is_acknowledged_while_another_one_waits() {
    let slack = FakeSlack::start();
    let (inside, entered) = (Mutex::new(0), Condvar::new());
    let hear = move |_| {
        let mut count = inside.lock().expect("no test panics here");
        *count += 1;
        entered.notify_all();
        let alone = entered.wait_timeout_while(count, PATIENCE, |count| *count < 2);
        if alone.expect("no test panics here").1.timed_out() { Ack::NotTaken } else { Ack::Taken(None) }
    };
    let (say, notices) = mpsc::channel();
    let note = move |notice| drop(say.send(notice));
    let _socket = Socket::listen_at(QUICK, access(&slack, APP_TOKEN), hear, note).expect("a thread");
    assert_eq!(notices.recv_timeout(PATIENCE), Ok(Notice::Listening { connections: 1 }));
    let ts = question(&slack);
    let heard = thread::scope(|scope| {
        let (slack, ts) = (&slack, &ts);
        let click = |user| scope.spawn(move || slack.click(ts, "question:approve", user));
        [click(HUMAN), click(COLLEAGUE)].map(|click| click.join().expect("no panic"))
    });
    assert!(heard.iter().all(|heard| heard.acked && heard.times == 1), "{heard:?}");
    assert_eq!(slack.socket_complaints(), [""; 0]);
}

#[test]
fn a_connection_that_nobody_has_hands_to_read_from_is_not_taken_for_silent() {
    let slack = FakeSlack::start();
    let pace = Pace { ping: Duration::from_millis(50), silence: Duration::from_millis(300), ..QUICK };
    let (inside, changed) = (Arc::new(Mutex::new((0, false))), Arc::new(Condvar::new()));
    let (theirs, bell) = (Arc::clone(&inside), Arc::clone(&changed));
    let hear = move |_| {
        let mut state = theirs.lock().expect("no test panics here");
        state.0 += 1;
        bell.notify_all();
        drop(bell.wait_timeout_while(state, PATIENCE, |state| !state.1).expect("no test panics here"));
        Ack::Taken(None)
    };
    let (say, notices) = mpsc::channel();
    let note = move |notice| drop(say.send(notice));
    let _socket = Socket::listen_at(pace, access(&slack, APP_TOKEN), hear, note).expect("a thread");
    assert_eq!(notices.recv_timeout(PATIENCE), Ok(Notice::Listening { connections: 1 }));
    let ts = question(&slack);
    let heard: Vec<_> = thread::scope(|scope| {
        let (slack, ts) = (&slack, &ts);
        let click = |_| scope.spawn(move || slack.click(ts, "question:approve", HUMAN));
        let clicks: Vec<_> = (0..16).map(click).collect();
        let state = inside.lock().expect("no test panics here");
        let all = changed.wait_timeout_while(state, PATIENCE, |state| state.0 < 16);
        assert!(!all.expect("no test panics here").1.timed_out());
        // So long nothing is said of it.
        let lost = notices.recv_timeout(pace.silence * 3);
        inside.lock().expect("no test panics here").1 = true;
        changed.notify_all();
        assert_eq!(lost, Err(RecvTimeoutError::Timeout));
        clicks.into_iter().map(|click| click.join().expect("no panic")).collect()
    });
    assert!(heard.iter().all(|heard| heard.acked && heard.times == 1), "{heard:?}");
}

#[test]
fn a_click_is_acknowledged_while_more_of_them_wait_than_can_be_under_way() {
    let slack = FakeSlack::start();
    // How many have begun, which of them is let go, and at last all of them.
    let (inside, changed) = (Arc::new(Mutex::new((0, None, false))), Arc::new(Condvar::new()));
    let (theirs, bell) = (Arc::clone(&inside), Arc::clone(&changed));
    let hear = move |_| {
        let mut state = theirs.lock().expect("no test panics here");
        let number = state.0;
        state.0 += 1;
        bell.notify_all();
        let waits = |state: &mut (usize, Option<usize>, bool)| state.1 != Some(number) && !state.2;
        drop(bell.wait_timeout_while(state, PATIENCE, waits).expect("no test panics here"));
        Ack::Taken(None)
    };
    let (say, notices) = mpsc::channel();
    let note = move |notice| drop(say.send(notice));
    let _socket = Socket::listen_at(QUICK, access(&slack, APP_TOKEN), hear, note).expect("a thread");
    assert_eq!(notices.recv_timeout(PATIENCE), Ok(Notice::Listening { connections: 1 }));
    let ts = question(&slack);
    let (acked, acks) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..40 {
            let (slack, ts, acked) = (&slack, &ts, acked.clone());
            scope.spawn(move || acked.send(slack.click(ts, "question:approve", HUMAN)));
        }
        let begun = |count| {
            let state = inside.lock().expect("no test panics here");
            let waits = |state: &mut (usize, Option<usize>, bool)| state.0 < count;
            !changed.wait_timeout_while(state, PATIENCE, waits).expect("no test panics here").1.timed_out()
        };
        assert!(begun(16));
        inside.lock().expect("no test panics here").1 = Some(5);
        changed.notify_all();
        let first = acks.recv_timeout(PATIENCE);
        // The next one has its place.
        let has_next = begun(17);
        inside.lock().expect("no test panics here").2 = true;
        changed.notify_all();
        assert!(first.is_ok_and(|heard| heard.acked && heard.times == 1) && has_next);
    });
    assert_eq!(slack.socket_complaints(), [""; 0]);
}
