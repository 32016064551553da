//! `run` inside `run`: agents of their own, linked to the one they were started from.

use crate::fake_slack::FakeSlack;
use crate::support::{Sandbox, wait_for};

#[test]
fn nested_runs_are_agents_of_their_own_with_lines_in_the_parents_thread() {
    let (slack, sandbox) = (FakeSlack::start(), Sandbox::new());
    sandbox.slack(&slack).env("AGENT_CHECKPOINT_BACKGROUND", "auto");
    sandbox.shell(r#""$BIN" run -a deploy -- sh -c '"$BIN" run -a build -- sh -c "exit 3"'"#).run().code(3);
    let parent = || slack.roots().into_iter().find(|root| root.text.contains("Agent `deploy`"));
    let card = wait_for("the parent's card to show the child and its own end", || {
        parent().filter(|card| {
            card.text.contains("`deploy` – ERROR") && card.text.contains("• ❌ `build` – error")
        })
    });
    let child =
        slack.roots().into_iter().find(|root| root.text.contains("Agent `build`")).expect("the child's card");
    let link = format!("<https://fake.slack.invalid/archives/C0AGENT000/p{}>", child.ts.replace('.', ""));
    let notes = wait_for("a line at its start and one at its end", || {
        let thread = slack.thread(&card.ts);
        let notes: Vec<_> = thread.iter().filter(|message| message.text.contains(&link)).collect();
        (notes.len() == 2).then(|| notes.iter().map(|note| note.text.clone()).collect::<Vec<_>>())
    });
    assert!(notes[0].starts_with("🚀 Agent `build` – STARTING"), "{notes:?}");
    assert!(notes[1].starts_with("❌ Agent `build` – ERROR"), "{notes:?}");
}
