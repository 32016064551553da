//! The way to Slack's socket: TLS, proxies, and what is said when it is barred.

use tempfile::TempDir;

use super::between::{HOST, Proxy, TlsFront};
use super::*;
use crate::trust::Authorities;

/// A fake Slack behind TLS, whose API and sockets are found by a name that only a proxy knows.
struct Behind {
    slack: FakeSlack,
    front: TlsFront,
    dir: TempDir,
}

impl Behind {
    fn new() -> Self {
        let slack = FakeSlack::start();
        let front = TlsFront::start(slack.port(), &[HOST, "127.0.0.1"]);
        let dir = TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("authority.pem"), front.authority()).expect("a file");
        slack.name_sockets(&format!("wss://{HOST}"));
        Self { slack, front, dir }
    }

    fn access(&self, proxy: Option<String>) -> Access {
        let authorities = Authorities { file: Some(self.dir.path().join("authority.pem")), dirs: None };
        let network = Network { proxy: proxy.map(Secret::new), no_proxy: None, authorities };
        Access { token: Secret::new(APP_TOKEN.to_owned()), api_url: format!("https://{HOST}/api/"), network }
    }

    /// The same without a proxy, by the address.
    fn direct(&self) -> Access {
        let base = format!("127.0.0.1:{}", self.front.port());
        self.slack.name_sockets(&format!("wss://{base}"));
        Access { api_url: format!("https://{base}/api/"), ..self.access(None) }
    }
}

#[track_caller]
fn hears(slack: &FakeSlack, ear: &Ear) {
    assert_eq!(ear.listening(), 1);
    let heard = slack.click(&question(slack), "question:approve", HUMAN);
    assert!(heard.acked && ear.ids().len() == 1, "{heard:?}");
    // More than one record of TLS, both ways.
    slack.send_text(&json!({ "type": "news", "padding": "x".repeat(100_000) }).to_string());
    slack.ping_sockets();
}

#[test]
fn a_socket_is_encrypted_and_its_certificate_asked_for() {
    let behind = Behind::new();
    let ear = Ear::with(QUICK, behind.direct());
    hears(&behind.slack, &ear);
    drop(ear);
    // The API is trusted by one authority, the socket by another: that must not do.
    let other = TlsFront::start(behind.slack.port(), &["127.0.0.1"]);
    let access = behind.direct();
    behind.slack.name_sockets(&format!("wss://127.0.0.1:{}", other.port()));
    let words = Ear::with(QUICK, access).interrupted();
    assert!(words.starts_with("could not trust 127.0.0.1: ") && words.contains("SSL_CERT_FILE"), "{words}");
    // Nor must a certificate of another name.
    let access = behind.direct();
    behind.slack.name_sockets(&format!("wss://localhost:{}", behind.front.port()));
    let words = Ear::with(QUICK, access).interrupted();
    assert!(words.starts_with("could not trust localhost: "), "{words}");
}

#[test]
fn a_socket_is_reached_through_the_proxy_which_sees_neither_token_nor_ticket() {
    let behind = Behind::new();
    let proxy = Proxy::start(behind.front.port());
    let ear = Ear::with(QUICK, behind.access(Some(proxy.url_with("ana", "p%40ss"))));
    hears(&behind.slack, &ear);
    let tunnel = format!("CONNECT {HOST}:443 HTTP/1.1");
    assert_eq!(proxy.requests(), [&*tunnel, &*tunnel]);
    // The second is the socket's; it names the proxy's user as the first does.
    let heads = proxy.heads();
    let credentials = |head: &String| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("proxy-authorization:"));
        line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
    };
    assert_eq!(credentials(&heads[1]), credentials(&heads[0]));
    assert!(credentials(&heads[1]).is_some_and(|value| value.starts_with("Basic ")), "{heads:?}");
    assert!(heads.iter().all(|head| !head.contains("xapp-") && !head.contains("ticket")), "{heads:?}");
}

#[test]
fn the_way_to_the_proxy_may_be_encrypted_too() {
    let behind = Behind::new();
    let proxy = Proxy::start(behind.front.port());
    let front = TlsFront::start(proxy_port(&proxy), &["127.0.0.1"]);
    let both = format!("{}{}", behind.front.authority(), front.authority());
    std::fs::write(behind.dir.path().join("authority.pem"), both).expect("a file");
    let ear = Ear::with(QUICK, behind.access(Some(format!("https://127.0.0.1:{}", front.port()))));
    hears(&behind.slack, &ear);
    assert_eq!(proxy.requests().len(), 2);
}

#[test]
fn a_proxy_that_bars_the_way_is_named_and_one_that_is_not_for_the_host_is_not_asked() {
    let behind = Behind::new();
    let barred = Proxy::answering(behind.front.port(), "407 Proxy Authentication Required");
    // The API is reached without the proxy, so that it is the socket that is refused.
    let named = |no_proxy: &str| {
        let access = behind.direct();
        let proxy = Some(Secret::new(barred.url_with("ana", "s3cret")));
        let network = Network { proxy, no_proxy: Some(no_proxy.to_owned()), ..access.network };
        Access { network, ..access }
    };
    let access = named("127.0.0.1");
    behind.slack.name_sockets(&format!("wss://{HOST}"));
    let words = Ear::with(QUICK, access).interrupted();
    assert!(words.starts_with(&format!("the proxy refused to connect to {HOST}: 407 ")), "{words}");
    assert!(words.contains("(through the proxy 127.0.0.1:") && !words.contains("s3cret"), "{words}");
    let asked = barred.requests().len();
    let ear = Ear::with(QUICK, named("127.0.0.1"));
    hears(&behind.slack, &ear);
    assert_eq!(barred.requests().len(), asked);
}

#[test]
fn what_is_no_websocket_is_told_without_the_ticket() {
    let slack = FakeSlack::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    slack.name_sockets(&format!("ws://127.0.0.1:{port}"));
    let answers = ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "SSH-2.0-OpenSSH_9.6\r\n\r\n", ""];
    let server = thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let ear = Ear::new(&slack);
    for _ in answers {
        let words = ear.interrupted();
        assert!(words.contains("127.0.0.1") && !words.contains("ticket"), "{words}");
    }
    server.join().expect("no panic");
}

#[test]
fn a_hello_that_comes_with_the_upgrade_is_heard() {
    let slack = FakeSlack::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    slack.name_sockets(&format!("ws://127.0.0.1:{port}"));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 4096];
        let count = stream.read(&mut request).expect("a request");
        let request = String::from_utf8_lossy(&request[..count]).into_owned();
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let hello = r#"{"type":"hello","num_connections":3}"#;
        let length = u8::try_from(hello.len()).expect("a short frame");
        stream.write_all(&[head.as_bytes(), &[0x81, length], hello.as_bytes()].concat()).expect("to answer");
        // Nothing more comes, until the other end goes.
        let _ = stream.read(&mut [0; 64]);
    });
    let ear = Ear::new(&slack);
    assert_eq!(ear.notices.recv_timeout(PATIENCE), Ok(Notice::Listening { connections: 3 }));
    drop(ear);
    server.join().expect("no panic");
}

/// The port in a proxy's URL.
fn proxy_port(proxy: &Proxy) -> u16 {
    let url = proxy.url();
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}
