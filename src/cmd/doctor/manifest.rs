//! The manifest of the Slack app that the README's set-up makes: what each scope is for stands in [`super::slack`].

use serde_json::{Value, json};

/// The app as it is without a public address: Slack tells it of everything by a socket that it opens.
const MANIFEST: &str = include_str!("manifest.json");

/// The manifest as JSON. With a public address Slack calls `serve` there instead.
///
/// # Errors
/// None: what is read is part of this program.
pub(super) fn text(url: Option<&str>) -> serde_json::Result<String> {
    let Some(url) = url else { return Ok(MANIFEST.trim_end().to_owned()) };
    let mut manifest: Value = serde_json::from_str(MANIFEST)?;
    manifest["features"]["slash_commands"][0]["url"] = json!(format!("{url}/slack/commands"));
    let settings = &mut manifest["settings"];
    settings["event_subscriptions"]["request_url"] = json!(format!("{url}/slack/events"));
    settings["interactivity"]["request_url"] = json!(format!("{url}/slack/interactions"));
    settings["socket_mode_enabled"] = json!(false);
    serde_json::to_string_pretty(&manifest)
}
