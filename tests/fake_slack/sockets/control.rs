//! What tests see of Socket Mode, and what they let happen.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::json;

use super::super::PATIENCE;
use super::{APP_TOKEN, FakeSlack, Out, goodbye};

impl FakeSlack {
    /// The app-level token.
    pub(crate) fn app_token(&self) -> &'static str {
        APP_TOKEN
    }

    /// From now on addresses of sockets begin so, say `wss://slack.example`, for what stands in front of the fake.
    pub(crate) fn name_sockets(&self, base: &str) {
        self.shared.lock().hub.base = Some(base.to_owned());
    }

    /// Waits until that many Socket Mode connections have got their hello.
    ///
    /// # Panics
    /// When they do not come in 20 seconds.
    #[track_caller]
    pub(crate) fn wait_sockets(&self, count: usize) {
        let met = self.shared.wait_until(PATIENCE, |state| state.hub.ready() == count);
        assert!(met, "waited for {count} sockets, there are {}", self.sockets());
    }

    /// How many Socket Mode connections have got their hello and are open.
    pub(crate) fn sockets(&self) -> usize {
        self.shared.lock().hub.ready()
    }

    /// How many Socket Mode connections there were so far.
    pub(crate) fn sockets_opened(&self) -> usize {
        self.shared.lock().hub.opened
    }

    /// Waits until there were that many Socket Mode connections.
    ///
    /// # Panics
    /// When they do not come in 20 seconds.
    #[track_caller]
    pub(crate) fn wait_sockets_opened(&self, count: usize) {
        let met = self.shared.wait_until(PATIENCE, |state| state.hub.opened >= count);
        assert!(met, "waited for {count} sockets, there were {}", self.sockets_opened());
    }

    /// What clients sent that Slack does not understand.
    pub(crate) fn socket_complaints(&self) -> Vec<String> {
        self.shared.lock().hub.complaints.clone()
    }

    /// Tells all connections to go: `warning` and `refresh_requested` end them ten seconds later, or soon after there is
    /// a newer one; any other reason ends them at once. After `link_disabled` new ones are told the same.
    pub(crate) fn disconnect_sockets(&self, reason: &str) {
        let mut state = self.shared.lock();
        let polite = matches!(reason, "warning" | "refresh_requested");
        if reason == "link_disabled" {
            state.hub.off = true;
        }
        for link in state.hub.links.values_mut() {
            link.outbox.push_back(Out::Text(goodbye(reason)));
            if polite {
                link.leaving = Some(Instant::now());
            } else {
                link.end();
            }
        }
    }

    /// Ends all Socket Mode connections in the midst of a frame.
    pub(crate) fn break_sockets(&self) {
        self.shared.lock().hub.tell_all(|| Out::Half(goodbye("warning")));
    }

    /// Ends all Socket Mode connections without a word.
    pub(crate) fn cut_sockets(&self) {
        self.shared.lock().hub.tell_all(|| Out::Cut);
    }

    /// Neither says nor hears anything on any Socket Mode connection, and keeps them open; or does so again.
    pub(crate) fn silence_sockets(&self, silent: bool) {
        self.shared.lock().hub.silent = silent;
    }

    /// Gives no hello to new connections, or does so again, also to those that wait.
    pub(crate) fn withhold_hello(&self, withhold: bool) {
        self.shared.lock().hub.withhold_hello = withhold;
    }

    /// Long texts come in one frame from now on.
    pub(crate) fn set_whole_frames(&self) {
        self.shared.lock().hub.whole_frames = true;
    }

    /// The next envelope is sent twice.
    pub(crate) fn repeat_next_envelope(&self) {
        self.shared.lock().hub.twice = true;
    }

    /// The next envelope is followed by the end of its connection, so that its acknowledgement is lost.
    pub(crate) fn cut_after_next_envelope(&self) {
        self.shared.lock().hub.cut_next = true;
    }

    /// Sends all connections a text that is no JSON, one of an unknown type, a binary frame and one that is nothing at all.
    pub(crate) fn send_noise(&self) {
        let mut state = self.shared.lock();
        state.hub.tell_all(|| Out::Text("}{".to_owned()));
        state.hub.tell_all(|| Out::Text(json!({ "type": "fake_news", "payload": null }).to_string()));
        state.hub.tell_all(|| Out::Text("[]".to_owned()));
        state.hub.tell_all(|| Out::Binary(vec![0xff, 0x00]));
    }

    /// Sends all connections a text, whatever it is.
    pub(crate) fn send_text(&self, text: &str) {
        self.shared.lock().hub.tell_all(|| Out::Text(text.to_owned()));
    }

    /// Pings all connections and waits for as many answers.
    ///
    /// # Panics
    /// When they do not come in 20 seconds.
    #[track_caller]
    pub(crate) fn ping_sockets(&self) {
        let before: HashMap<u64, usize> =
            self.shared.lock().hub.links.iter().map(|(&id, link)| (id, link.pongs)).collect();
        self.shared.lock().hub.tell_all(|| Out::Ping(b"are you there".to_vec()));
        let met = self.shared.wait_until(PATIENCE, |state| {
            let mut links = state.hub.links.iter();
            links.all(|(id, link)| before.get(id).is_none_or(|pongs| link.pongs > *pongs))
        });
        assert!(met, "a ping was not answered");
    }

    /// Waits until a client has pinged.
    ///
    /// # Panics
    /// When none does in 20 seconds.
    #[track_caller]
    pub(crate) fn wait_pinged(&self) {
        let met =
            self.shared.wait_until(PATIENCE, |state| state.hub.links.values().any(|link| link.pings > 0));
        assert!(met, "no client has pinged");
    }

    /// From now on the app-level token is answered with `token_revoked`.
    pub(crate) fn revoke_app_token(&self) {
        self.shared.lock().hub.revoked = true;
    }
}
