//! The way to Slack: proxies, certificates, redirects, and secrets that stay secret on the way.

use std::io::{Read, Write};
use std::time::Duration;

use crate::fake_slack::{Fault, TOKEN, WEBHOOK};
use crate::scene::{Scene, ran_out, side_by_side, text};
use crate::support::{Output, Run};
use crate::wire::{HOST, Proxy, Redirector, TlsFront};

/// A scene with TLS in front of its Slack, reached by a host that only a proxy knows.
fn behind_tls() -> (Scene, TlsFront) {
    let scene = Scene::bot();
    let front = TlsFront::start(scene.slack.port(), &[HOST, "127.0.0.1"]);
    let authority = scene.sandbox.write("authority.pem", front.authority());
    scene.sandbox.env("SSL_CERT_FILE", authority).env("SLACK_API_URL", format!("https://{HOST}/api/"));
    (scene, front)
}

/// An `emit` that tries once.
fn attempt(scene: &Scene) -> Run<'_> {
    scene.once(Fault::Ok, ["-vvv", "one"])
}

/// Runs an `emit` that must end with its message queued; the receipt's `error`.
#[track_caller]
fn failed(run: Run<'_>) -> (String, Output) {
    let output = run.run().success();
    let receipt = output.json();
    assert_eq!(receipt["delivery"], "queued", "{output}");
    (text(&receipt, "error").to_owned(), output)
}

#[test]
fn the_proxy_of_the_environment_is_used() {
    let names = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    side_by_side(names, |name| {
        let (scene, front) = behind_tls();
        let proxy = Proxy::start(front.port());
        scene.sandbox.env(name, proxy.url());
        scene.sent(["--status", "starting", "one"]);
        scene.sent(["--status", "blocked", "two"]);
        // The name is looked up by the proxy, and reply and card share a tunnel.
        let tunnel = format!("CONNECT {HOST}:443 HTTP/1.1");
        assert_eq!(proxy.requests(), [&*tunnel, &*tunnel], "{name}");
        assert!(proxy.heads().iter().all(|head| !head.contains(TOKEN)), "{name}");
    });
}

#[test]
fn one_variable_wins_over_the_others_and_an_empty_one_counts_for_nothing() {
    let (scene, front) = behind_tls();
    let (proxy, other) = (Proxy::start(front.port()), Proxy::start(front.port()));
    scene
        .sandbox
        .env("HTTPS_PROXY", proxy.url())
        .env("HTTP_PROXY", other.url())
        .env("ALL_PROXY", other.url());
    scene.sent(["--status", "starting", "one"]);
    assert_eq!((proxy.requests().len(), other.requests().len()), (1, 0));
    scene.sandbox.env("HTTPS_PROXY", "");
    scene.sent(["--status", "blocked", "two"]);
    assert_eq!((proxy.requests().len(), other.requests().len()), (1, 1));
}

#[test]
fn no_proxy_names_who_is_reached_without_it() {
    let rows = [
        ("NO_PROXY", "127.0.0.1", 0),
        ("no_proxy", "127.0.0.1", 0),
        ("NO_PROXY", "example.com, 127.0.0.1", 0),
        ("NO_PROXY", "*", 0),
        ("NO_PROXY", "example.com", 1),
        ("NO_PROXY", "", 1),
    ];
    side_by_side(rows, |(name, value, tunnels)| {
        let scene = Scene::bot();
        let proxy = Proxy::start(scene.slack.port());
        scene.sandbox.env("HTTPS_PROXY", proxy.url()).env(name, value);
        scene.sent(["one"]);
        assert_eq!(proxy.requests().len(), tunnels, "{name}={value}");
    });
    side_by_side([HOST, ".invalid", "other.example,.invalid"], |value| {
        let (scene, front) = behind_tls();
        let proxy = Proxy::start(front.port());
        let run = attempt(&scene).env("HTTPS_PROXY", proxy.url()).env("NO_PROXY", value);
        let (error, _) = failed(run);
        assert!(error.contains(HOST), "{value}: {error}");
        assert!(proxy.requests().is_empty(), "{value}");
    });
}

#[test]
fn a_webhook_goes_through_the_proxy_too() {
    let scene = Scene::webhook();
    let proxy = Proxy::start(scene.slack.port());
    scene.sandbox.env("HTTPS_PROXY", proxy.url());
    scene.sent(["one"]);
    assert_eq!(proxy.requests().len(), 1);
    assert!(proxy.heads().iter().all(|head| !head.contains(WEBHOOK)));
}

#[test]
fn a_proxy_is_told_its_password_and_nobody_else_is() {
    let (scene, front) = behind_tls();
    let proxy = Proxy::start(front.port());
    scene.sandbox.env("HTTPS_PROXY", proxy.url_with("clerk", "hunter2"));
    let output = scene.emit(["-vvv", "one"]).run().success().lacks("hunter2");
    assert_eq!(output.json()["delivery"], "sent");
    // base64 of `clerk:hunter2`
    let heads = proxy.heads().join("").to_ascii_lowercase();
    assert!(heads.contains("proxy-authorization: basic y2xlcms6ahvudgvymg=="), "{heads}");
    assert!(scene.slack.requests().iter().all(|call| call.header("proxy-authorization").is_none()));
}

#[test]
fn a_proxy_that_fails_is_named_and_its_password_is_not() {
    let (scene, front) = behind_tls();
    let refusing = Proxy::answering(front.port(), "407 Proxy Authentication Required");
    let gone = Proxy::start(front.port()).url_with("clerk", "hunter2");
    for (url, words) in [
        (refusing.url_with("clerk", "hunter2"), "the proxy refused"),
        (gone, "connection refused (through the proxy 127.0.0.1:"),
        ("http://clerk:hunter2@[half".to_owned(), "the proxy's URL is malformed; mend HTTPS_PROXY"),
        ("socks5://clerk:hunter2@127.0.0.1:1".to_owned(), "only http and https proxies are supported"),
    ] {
        let cache = scene.sandbox.path().join(words.len().to_string());
        let run = attempt(&scene).env("HTTPS_PROXY", &url).env("AGENT_CHECKPOINT_CACHE", &cache);
        let (error, output) = failed(run);
        assert!(error.contains(words), "{words}: {error}");
        output.lacks("hunter2").lacks(TOKEN);
    }
    assert_eq!(scene.slack.requests().len(), 0);
}

#[test]
fn a_process_whose_proxy_is_dead_holds_back_nobody_else() {
    let scene = Scene::bot();
    let gone = Proxy::start(scene.slack.port()).url();
    // It tries again for as long as it may, which would keep everyone waiting if there were no other way.
    failed(
        scene.emit(["-a", "broken", "one"]).env("AGENT_CHECKPOINT_DEADLINE", "4s").env("HTTPS_PROXY", &gone),
    );
    assert_eq!(scene.slack.requests().len(), 0);
    scene.sent(["-a", "sound", "two"]);
    // That call took along what waits, which is not due yet on the way where nothing answers.
    assert_eq!(scene.deliveries("broken"), [("one".to_owned(), "sent".to_owned())]);
}

#[test]
fn an_authority_of_ones_own_is_trusted() {
    let scene = Scene::bot();
    let front = TlsFront::start(scene.slack.port(), &["127.0.0.1"]);
    let other = TlsFront::start(scene.slack.port(), &["127.0.0.1"]);
    scene.sandbox.env("SLACK_API_URL", front.url("127.0.0.1"));
    let file = scene.sandbox.write("certs/authority.pem", front.authority());
    let bundle = scene.sandbox.write("bundle.pem", format!("{}\n{}", other.authority(), front.authority()));
    scene.sandbox.write("certs/README", "no certificate");
    let strange = scene.sandbox.write("strange/other.pem", other.authority());
    let dir = file.parent().expect("a folder").display().to_string();
    let dirs = format!("{}:{dir}", strange.parent().expect("a folder").display());
    for (number, (name, value)) in [
        ("SSL_CERT_FILE", file.display().to_string()),
        ("SSL_CERT_FILE", bundle.display().to_string()),
        ("SSL_CERT_FILE", "certs/authority.pem".to_owned()),
        ("SSL_CERT_DIR", dir),
        ("SSL_CERT_DIR", dirs),
    ]
    .into_iter()
    .enumerate()
    {
        let agent = format!("agent-{number}");
        let channel = format!("C0TLS0000{number}");
        scene.slack.add_channel(&format!("tls-{number}"), &channel, false, false, true);
        let run = scene.emit(["-a", &agent, "-c", &channel, "one"]).env(name, &value);
        let receipt = run.run().success().stderr_is("").json();
        assert_eq!(receipt["delivery"], "sent", "{name}={value}");
    }
}

#[test]
fn an_authority_that_is_not_trusted_is_refused_before_anything_is_said() {
    let scene = Scene::bot();
    let front = TlsFront::start(scene.slack.port(), &["127.0.0.1"]);
    let other = TlsFront::start(scene.slack.port(), &["127.0.0.1"]);
    let misnamed = TlsFront::start(scene.slack.port(), &["slack.example"]);
    let file = scene.sandbox.write("other.pem", other.authority());
    let named = scene.sandbox.write("misnamed.pem", misnamed.authority());
    let missing = scene.sandbox.path().join("missing.pem");
    for (number, (front, authority)) in
        [(&front, None), (&front, Some(&file)), (&front, Some(&missing)), (&misnamed, Some(&named))]
            .into_iter()
            .enumerate()
    {
        let cache = scene.sandbox.path().join(format!("cache-{number}"));
        let mut run = attempt(&scene).env("SLACK_API_URL", front.url("127.0.0.1"));
        if let Some(path) = authority {
            run = run.env("SSL_CERT_FILE", path);
        }
        let (error, output) = failed(run.env("AGENT_CHECKPOINT_CACHE", &cache));
        assert!(error.starts_with("could not trust 127.0.0.1:"), "{number}: {error}");
        assert!(error.ends_with("SSL_CERT_FILE names the certificates to trust"), "{number}: {error}");
        output.lacks(TOKEN);
    }
    assert_eq!(scene.slack.requests().len(), 0);
}

#[test]
fn a_host_that_speaks_no_tls_is_not_blamed_on_certificates() {
    let scene = Scene::bot();
    let plain = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let url = format!("https://{}/api/", plain.local_addr().expect("its address"));
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            // Not closed with something unread, which would take the answer back.
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    let (error, output) = failed(attempt(&scene).env("SLACK_API_URL", url));
    assert!(error.starts_with("could not speak TLS with 127.0.0.1:"), "{error}");
    output.lacks("SSL_CERT_FILE");
}

#[test]
fn a_redirect_is_not_followed() {
    side_by_side([301, 302, 303, 307, 308], |status| {
        let scene = Scene::bot();
        let astray = Redirector::start(status, format!("{}chat.postMessage", scene.slack.url()));
        let (error, output) = failed(attempt(&scene).env("SLACK_API_URL", astray.url("/api/")));
        assert!(error.ends_with(&format!("gave HTTP status {status}")), "{error}");
        output.lacks(TOKEN);
        assert!(astray.count() > 0 && scene.slack.requests().is_empty(), "{status}");

        let hooked = Scene::webhook();
        let astray = Redirector::start(status, hooked.slack.webhook_url());
        let url = astray.url(WEBHOOK);
        let output = hooked.emit(["-vvv", "one"]).env("SLACK_WEBHOOK_URL", url).run().success();
        assert_eq!(output.json()["delivery"], "rejected");
        output.lacks("B000");
        assert!(astray.count() > 0 && hooked.slack.requests().is_empty(), "{status}");
    });
}

#[test]
fn the_deadline_is_kept_where_nobody_answers() {
    // Connections are accepted by the system and never looked at.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = silent.local_addr().expect("its address");
    let rows = [
        ("SLACK_API_URL", format!("https://{address}/api/")),
        ("HTTPS_PROXY", format!("http://{address}")),
        ("HTTPS_PROXY", format!("https://{address}")),
    ];
    side_by_side(rows, |(name, value)| {
        let scene = Scene::bot();
        let (error, output) = failed(scene.once(Fault::Hang, ["-vvv", "one"]).env(name, &value));
        assert!(ran_out(&error, " within "), "{value}: {error}");
        output.within(Duration::from_secs(8)).lacks(TOKEN);
    });
}

#[test]
fn the_last_slash_of_the_api_url_may_be_missing() {
    let scene = Scene::bot();
    scene.sandbox.env("SLACK_API_URL", scene.slack.url().trim_end_matches('/'));
    scene.sent(["one"]);
}

#[test]
fn the_program_names_itself() {
    let scene = Scene::bot();
    scene.sent(["--status", "starting", "one"]);
    scene.sent(["--status", "blocked", "two"]);
    let name = concat!("agent-checkpoint/", env!("CARGO_PKG_VERSION"));
    for call in scene.slack.requests() {
        assert_eq!(call.header("user-agent"), Some(name));
        assert_eq!(call.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(call.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
    }
}

#[test]
fn no_secret_is_shown_whatever_fails() {
    let faults = [
        Fault::Ok,
        Fault::Status(500),
        Fault::Html(200),
        Fault::Garbage,
        Fault::ResetBeforeStoring,
        Fault::Hang,
        Fault::RateLimited { retry_after: Some(60) },
        Fault::ErrorName("invalid_auth"),
        Fault::ErrorName("no_service"),
        Fault::ErrorName("internal_error"),
    ];
    let modes = [Scene::bot as fn() -> Scene, Scene::webhook];
    side_by_side(faults.into_iter().flat_map(|fault| modes.map(|mode| (fault, mode))), |(fault, mode)| {
        let scene = mode();
        scene.slack.script("*", vec![fault]);
        for command in [
            &["emit", "-vvv", "--json", "-a", "bot", "--deadline", "3s", "one"][..],
            &["flush", "-vvv", "--deadline", "3s"],
            &["tasks", "-vvv"],
            &["show", "bot", "-vvv", "--json"],
        ] {
            scene.sandbox.cmd(command).run().lacks(TOKEN).lacks("B000").lacks("/secret");
        }
    });
}

#[test]
fn no_secret_is_shown_when_nobody_can_be_reached() {
    let scene = Scene::bot();
    for (number, (name, value)) in [
        ("SLACK_API_URL", "http://127.0.0.1:1/api/"),
        ("SLACK_API_URL", "https://slack.invalid/api/"),
        ("SLACK_API_URL", "https://127.0.0.1:1/api/"),
        ("SLACK_WEBHOOK_URL", "http://127.0.0.1:1/services/T000/B000/secret"),
        ("SLACK_WEBHOOK_URL", "https://slack.invalid/services/T000/B000/secret"),
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com:1/workflows/T000/B000/secret"),
        ("SLACK_WEBHOOK_URL", "hooks.slack.com/services/T000/B000/secret"),
    ]
    .into_iter()
    .enumerate()
    {
        // Another cache each: one that finds nobody makes the others wait.
        let cache = scene.sandbox.path().join(format!("cache-{number}"));
        let mut run = attempt(&scene).env("AGENT_CHECKPOINT_CACHE", cache).env(name, value);
        if name == "SLACK_WEBHOOK_URL" {
            run = run.env_remove("SLACK_BOT_TOKEN");
        }
        failed(run).1.lacks(TOKEN).lacks("B000");
    }
}
