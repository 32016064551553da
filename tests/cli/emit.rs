//! `emit`, from the command line to Slack.

use crate::fake_slack::FakeSlack;
use crate::support::Sandbox;

#[test]
fn a_checkpoint_goes_from_the_command_line_to_slack() {
    let slack = FakeSlack::start();
    let sandbox = Sandbox::new();
    sandbox.slack(&slack);
    sandbox
        .cmd(["emit", "-a", "bot", "--status", "working", "--progress", "50", "Running tests"])
        .run()
        .success()
        .silent();
    let roots = slack.roots();
    assert_eq!(roots.len(), 1);
    assert!(roots[0].text.contains("▓▓▓▓▓░░░░░ 50%"), "{}", roots[0].text);
}

#[test]
fn without_a_destination_it_is_printed() {
    let sandbox = Sandbox::new();
    sandbox
        .cmd(["emit", "-a", "bot", "--status", "working", "--progress", "50", "Running tests"])
        .run()
        .success()
        .stderr_is("")
        .stdout_is("⚙️ WORKING bot · ▓▓▓▓▓░░░░░ 50% · Running tests · 0s\n");
}
