//! Artifacts and URLs.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Invalid, line};

/// Something an agent made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Artifact {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) name: Option<String>,
    /// A URL, or a path as it was given.
    pub(crate) target: String,
}

impl Artifact {
    /// Whether a reader can click on it.
    pub(crate) fn is_link(&self) -> bool {
        is_web_url(&self.target)
    }
}

/// `[NAME=]URL|PATH`.
pub(crate) fn artifact(text: &str) -> Result<Artifact, Invalid> {
    let text = line(text)?;
    let (name, target) = match text.split_once('=') {
        // An equals sign inside a URL or below a directory belongs to the target.
        Some((name, target)) if !name.is_empty() && !name.contains(['/', ':', '?', '#']) => {
            (Some(name.trim()), target.trim())
        }
        _ => (None, text.as_str()),
    };
    if target.is_empty() {
        return Err(Invalid::new(
            "names no artifact",
            "give a URL or a path, with or without NAME= in front",
        ));
    }
    if target.contains("://") {
        url(target)?;
    }
    Ok(Artifact { name: name.map(str::to_owned), target: target.to_owned() })
}

/// A URL with a scheme and a host and no space in it.
pub(crate) fn url(text: &str) -> Result<String, Invalid> {
    let wrong = |reason: &str| Invalid::new(reason, "give a whole URL, such as https://example.com/path");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("is not a URL"))?;
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !scheme_fits
        || text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"'))
    {
        return Err(wrong("is a malformed URL"));
    }
    if is_web_scheme(scheme) {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host_port = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = match host_port.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, port)) => (host, port.strip_prefix(':')),
                None => return Err(wrong("is a malformed URL")),
            },
            None => match host_port.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host_port, None),
            },
        };
        if host.is_empty() {
            return Err(wrong("is a URL without a host"));
        }
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return Err(wrong("is a URL with a malformed port"));
        }
    }
    Ok(text.to_owned())
}

/// Where Slack can reach us, which it does by TLS alone; a path may stand in front of ours.
pub(crate) fn public_url(text: &str) -> Result<String, Invalid> {
    let whole = url(text)?;
    let is_right = whole.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
        && !whole.contains(['?', '#', '@']);
    let hint = "give one such as https://agents.example.com";
    if !is_right {
        return Err(Invalid::new("is not an address for Slack to call", hint));
    }
    let authority = whole[8..].split('/').next().unwrap_or_default();
    if !is_public(authority) {
        return Err(Invalid::new("is an address that Slack cannot reach from the internet", hint));
    }
    Ok(whole.trim_end_matches('/').to_owned())
}

/// Whether a host, with or without a port, may be reached from the internet, as far as its name or address tells.
fn is_public(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, "443"),
    };
    if port.parse() == Ok(0_u16) {
        return false;
    }
    if let Some(v6) = host.strip_prefix('[') {
        let address = v6.trim_end_matches(']').parse::<Ipv6Addr>();
        return address.is_ok_and(|address| match address.to_ipv4_mapped() {
            Some(v4) => is_public_v4(v4),
            None => {
                let is_private = address.is_unique_local() || address.is_unicast_link_local();
                !(is_private || address.is_loopback() || address.is_unspecified() || address.is_multicast())
            }
        });
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return is_public_v4(address);
    }
    // A name without a dot, or of one of these, is known in one network alone (RFC 6761, RFC 6762 and RFC 8375). One that
    // ends in a number is no name: it is some older way to write an address.
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let top = name.rsplit_once('.').map_or("", |(_, top)| top);
    !top.is_empty()
        && !top.starts_with(|c: char| c.is_ascii_digit())
        && !["localhost", "local", "internal", "invalid", "test", "lan", "home", "corp"].contains(&top)
        && !name.ends_with(".home.arpa")
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_private = address.is_private() || address.is_link_local() || is_shared;
    !(is_private || a == 0 || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

/// Whether the text is an `http:` or `https:` URL.
pub(crate) fn is_web_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| is_web_scheme(scheme)) && url(text).is_ok()
}

fn is_web_scheme(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_may_have_a_name() {
        let read = |text: &str| artifact(text).map(|a| (a.name, a.target));
        assert_eq!(read("PR=https://example.com/1"), Ok((Some("PR".into()), "https://example.com/1".into())));
        assert_eq!(read("https://example.com/?a=b"), Ok((None, "https://example.com/?a=b".into())));
        assert_eq!(read("out/a=b.txt"), Ok((None, "out/a=b.txt".into())));
        assert_eq!(read("report.txt"), Ok((None, "report.txt".into())));
        for text in ["", "PR=", "https://", "http:///x", "https://a b", "https://host:notaport/"] {
            assert!(artifact(text).is_err(), "{text}");
        }
    }

    #[test]
    fn slack_calls_an_address_by_tls() {
        for (text, read) in [
            ("https://agents.example.com", "https://agents.example.com"),
            ("https://agents.example.com:8443/hooks/", "https://agents.example.com:8443/hooks"),
        ] {
            assert_eq!(public_url(text), Ok(read.to_owned()));
        }
        for text in
            ["http://agents.example.com", "agents.example.com", "https://a@b", "https://a/?b", "https://"]
        {
            assert!(public_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn slack_calls_nothing_but_what_the_internet_can_reach() {
        for host in
            ["8.8.8.8", "[2606:4700::1111]", "agents.example.com.", "a.b.c:65535", "localhost.example.com"]
        {
            assert!(public_url(&format!("https://{host}/x")).is_ok(), "{host}");
        }
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "localhost",
            "LOCALHOST:3001",
            "a.localhost",
            "printer",
            "db.local",
            "ci.internal.",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.2:3001",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[fd00::1]:443",
            "[::ffff:127.0.0.1]",
            "[nonsense]",
            "agents.example.com:0",
            "user:pw@agents.example.com",
            "router.home.arpa",
        ] {
            assert!(public_url(&format!("https://{host}")).is_err(), "{host}");
        }
        for end in ["?a=b", "#top", "/x?y"] {
            assert!(public_url(&format!("https://agents.example.com{end}")).is_err(), "{end}");
        }
    }

    #[test]
    fn urls_have_a_scheme_and_a_host() {
        for text in [
            "https://example.com",
            "http://[::1]:8080/x",
            "HTTPS://user:pw@example.com:443/a?b#c",
            "postgres:///db?host=/run",
            "s3://bucket/key",
            "git+ssh://host/x",
        ] {
            assert_eq!(url(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "example.com",
            "://x",
            "1http://x",
            "https://",
            "https:///x",
            "https://:80/",
            "https://h:99999/",
            "https://[::1/",
            "https://a\nb",
            "https://a<b",
            "https://a\"b",
        ] {
            assert!(url(text).is_err(), "{text:?}");
        }
        assert!(is_web_url("HTTP://example.com") && !is_web_url("s3://bucket") && !is_web_url("http://"));
    }
}
