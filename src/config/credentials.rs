//! What is right for each credential, and for where it is sent. No error quotes one.

use crate::checkpoint::parse::{self, Invalid};
use crate::delivery::http::{host, is_loopback};
use crate::secret::Secret;

/// Something that can stand in an HTTP header.
pub(super) fn bot_token(text: &str) -> Result<Secret, Invalid> {
    let hint = "copy the Bot User OAuth Token, which begins with xoxb-";
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Invalid::new("is not a token", hint));
    }
    if text.starts_with("xapp-") {
        return Err(Invalid::new("is an app-level token", hint));
    }
    Ok(Secret::new(text.to_owned()))
}

/// Something that can stand in an HTTP header, and is for Socket Mode.
pub(super) fn app_token(text: &str) -> Result<Secret, Invalid> {
    let hint = "copy an app-level token (Basic Information, App-Level Tokens), which begins with xapp-";
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Invalid::new("is not a token", hint));
    }
    if text.starts_with("xoxb-") {
        return Err(Invalid::new("is a bot token", hint));
    }
    if !text.starts_with("xapp-") {
        return Err(Invalid::new("is not an app-level token", hint));
    }
    Ok(Secret::new(text.to_owned()))
}

/// A key of any form, but nothing that was plainly meant for another setting.
pub(super) fn signing_secret(text: &str) -> Result<Secret, Invalid> {
    let hint = "copy the app's Signing Secret (Basic Information, App Credentials)";
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Invalid::new("is not a signing secret", hint));
    }
    if text.starts_with("xox") || text.starts_with("xapp-") {
        return Err(Invalid::new("is a token, not a signing secret", hint));
    }
    Ok(Secret::new(text.to_owned()))
}

/// Something that can stand behind `Bearer`.
#[cfg(feature = "serve")]
pub(super) fn serve_token(text: &str) -> Result<Secret, Invalid> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        let hint = "use letters, digits and signs without spaces, such as openssl rand -hex 32 prints";
        return Err(Invalid::new("is not a token", hint));
    }
    Ok(Secret::new(text.to_owned()))
}

/// The base of a Web API: the token goes there, so nobody on the way may read along.
pub(super) fn api_url(text: &str) -> Result<String, Invalid> {
    let url = parse::url(text)?;
    let (scheme, _) = url.split_once("://").unwrap_or_default();
    let host = host(&url);
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Ok(url),
        "http" if is_loopback(host) => Ok(url),
        "http" => Err(Invalid::new(
            format!("would send the token to {host} unencrypted"),
            "give a URL that begins with https://; http:// is for this machine only",
        )),
        _ => Err(Invalid::new("is not a web address", "give a URL such as https://slack.com/api/")),
    }
}

/// An incoming webhook's URL.
pub(super) fn webhook_url(text: &str) -> Result<Secret, Invalid> {
    let hint = "copy the incoming webhook's URL, https://hooks.slack.com/services/…";
    if !parse::is_web_url(text) {
        return Err(Invalid::new("is not a URL", hint));
    }
    if text.contains("/triggers/") || text.contains("/workflows/") {
        return Err(Invalid::new("is a Workflow Builder trigger, which takes no messages", hint));
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_the_machine_encrypted_or_not_at_all() {
        for url in [
            "https://slack.com/api/",
            "HTTPS://gateway.example:8443/slack",
            "http://127.0.0.1:8080/api/",
            "http://127.9.9.9/api/",
            "http://[::1]:8080/api/",
            "http://LocalHost:1/",
            "http://slack.localhost/api/",
        ] {
            assert_eq!(api_url(url), Ok(url.to_owned()), "{url}");
        }
        for (url, reason) in [
            ("http://slack.com/api/", "would send the token to slack.com unencrypted"),
            ("http://127.0.0.1.example/", "would send the token to 127.0.0.1.example unencrypted"),
            ("http://127.0.0.1@example.com/", "would send the token to example.com unencrypted"),
            ("http://localhost.example:80/", "would send the token to localhost.example:80 unencrypted"),
            ("http://0.0.0.0/", "would send the token to 0.0.0.0 unencrypted"),
            ("ftp://slack.com/api/", "is not a web address"),
            ("file:///etc/passwd", "is not a web address"),
            ("slack.com/api", "is not a URL"),
        ] {
            assert_eq!(api_url(url).expect_err(url).reason, reason, "{url}");
        }
    }
}
