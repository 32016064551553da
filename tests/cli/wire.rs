//! What stands between the program and Slack: proxies, TLS with certificates of one's own, and servers that lead astray.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A host that no resolver knows; the certificates of [`TlsFront`] are good for it.
pub(crate) const HOST: &str = "slack.invalid";

/// How long one direction is listened to before the other has its turn.
const TICK: Duration = Duration::from_millis(3);

/// Answers each connection on a thread of its own.
struct Server {
    port: u16,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    #[track_caller]
    fn start(answer: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its number").port();
        let (stopping, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(answer));
        let stop = Arc::clone(&stopping);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let answer = Arc::clone(&answer);
                // A client that goes away is no failure of the server.
                thread::spawn(move || answer(stream));
            }
        });
        Self { port, stopping, acceptor: Some(acceptor) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// What a server was asked, one head for each call.
#[derive(Clone, Default)]
struct Heads(Arc<Mutex<Vec<String>>>);

impl Heads {
    fn note(&self, head: &[u8]) {
        let head = String::from_utf8_lossy(head).into_owned();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A proxy that leads every tunnel to one port of the loopback address, whatever host was asked for.
pub(crate) struct Proxy {
    server: Server,
    heads: Heads,
}

impl Proxy {
    #[track_caller]
    pub(crate) fn start(upstream: u16) -> Self {
        Self::answering(upstream, "200 Connection established")
    }

    /// A proxy that gives this answer to every request for a tunnel.
    #[track_caller]
    pub(crate) fn answering(upstream: u16, status: &'static str) -> Self {
        let heads = Heads::default();
        let noted = heads.clone();
        let server = Server::start(move |mut client| {
            noted.note(&read_head(&mut client)?);
            write!(client, "HTTP/1.1 {status}\r\n\r\n")?;
            if !status.starts_with("200") {
                return Ok(());
            }
            splice(client, TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?)
        });
        Self { server, heads }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    /// The same with a name and a password.
    pub(crate) fn url_with(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@127.0.0.1:{}", self.server.port)
    }

    /// The first line of each request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.heads.all().iter().filter_map(|head| head.lines().next().map(str::to_owned)).collect()
    }

    /// The whole of each request.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.all()
    }
}

/// TLS in front of a port of the loopback address, with a certificate that an authority made for this test has signed.
pub(crate) struct TlsFront {
    server: Server,
    authority: String,
}

impl TlsFront {
    /// The certificate is good for these names and addresses.
    #[track_caller]
    pub(crate) fn start(upstream: u16, names: &[&str]) -> Self {
        let (authority, config) = certificates(names);
        let config = Arc::new(config);
        let server = Server::start(move |client| {
            let connection = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            let mut client = StreamOwned::new(connection, client);
            let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
            loop {
                let request = read_message(&mut client)?;
                upstream.write_all(&request)?;
                let answer = read_message(&mut upstream)?;
                client.write_all(&answer)?;
                client.flush()?;
                // From here on neither end speaks HTTP.
                if request.starts_with(b"CONNECT ") || answer.starts_with(b"HTTP/1.1 101 ") {
                    return relay(&mut client, &mut upstream);
                }
            }
        });
        Self { server, authority }
    }

    /// The base of the Web API by this name.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/api/", self.server.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }

    /// The authority's certificate as PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
}

/// An authority's certificate as PEM, and a server's configuration with a certificate it has signed.
fn certificates(names: &[&str]) -> (String, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(params, key);
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(names).expect("valid names");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a private key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("a usable certificate");
    (authority, config)
}

/// A server that sends everyone elsewhere.
pub(crate) struct Redirector {
    server: Server,
    heads: Heads,
}

impl Redirector {
    #[track_caller]
    pub(crate) fn start(status: u16, location: String) -> Self {
        let heads = Heads::default();
        let noted = heads.clone();
        let server = Server::start(move |mut client| {
            noted.note(&read_message(&mut client)?);
            write!(client, "HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\n")?;
            write!(client, "Content-Length: 0\r\nConnection: close\r\n\r\n")
        });
        Self { server, heads }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.server.port)
    }

    pub(crate) fn count(&self) -> usize {
        self.heads.all().len()
    }
}

/// Reads up to the empty line.
fn read_head(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}

/// Reads a head and as much of a body as it names.
fn read_message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = read_head(stream)?;
    let head = String::from_utf8_lossy(&message).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    message.extend_from_slice(&body);
    Ok(message)
}

/// The same where one end is encrypted, and so cannot be read and written by two threads.
fn relay(client: &mut StreamOwned<ServerConnection, TcpStream>, upstream: &mut TcpStream) -> io::Result<()> {
    client.sock.set_read_timeout(Some(TICK))?;
    upstream.set_read_timeout(Some(TICK))?;
    loop {
        if hand_on(client, upstream)? || hand_on(upstream, client)? {
            return upstream.shutdown(Shutdown::Both);
        }
    }
}

/// Hands on what has come; says whether that was the end.
fn hand_on(from: &mut impl Read, to: &mut impl Write) -> io::Result<bool> {
    let mut some = [0; 4096];
    match from.read(&mut some) {
        Ok(count) => {
            to.write_all(&some[..count])?;
            to.flush()?;
            Ok(count == 0)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Hands everything on in both directions until one of them ends.
fn splice(client: TcpStream, upstream: TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_upstream) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_upstream);
        to_upstream.shutdown(Shutdown::Both)
    });
    let (mut from_upstream, mut to_client) = (upstream, client);
    let _ = io::copy(&mut from_upstream, &mut to_client);
    to_client.shutdown(Shutdown::Both)
}
