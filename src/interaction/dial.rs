//! The way to a WebSocket: TCP, a proxy where one is set, TLS with the authorities that the Web API is trusted by, and
//! the upgrade. Everything blocks until the deadline; afterwards the line never blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::header::{HeaderValue, USER_AGENT as AGENT};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, HandshakeError, WebSocket};
use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use crate::delivery::http::{
    CONNECT_MAX, Network, USER_AGENT, build_proxy, host, io_words, proxy_for, tls_words,
};
use crate::secret::Secret;

/// How long a call to open a socket may take, from the first look-up to the last answer.
pub(super) const DIAL_MAX: Duration = Duration::from_secs(10);
/// The largest message that is taken, in bytes: a click brings the whole message along, at most 50 blocks.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// The longest answer of a proxy, in bytes.
const PROXY_ANSWER_MAX: usize = 16 * 1024;
/// The size of the buffers of a connection, in bytes.
const BUFFER: usize = 16 * 1024;

/// Bytes both ways, whatever is in between.
pub(super) trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// A WebSocket that never blocks, and what to wait for until there is something to read.
pub(super) struct Line {
    pub(super) socket: WebSocket<Box<dyn Duplex>>,
    tcp: TcpStream,
}

impl Line {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

/// A connection whose every step counts against one deadline, until it is set free.
struct Tcp {
    stream: TcpStream,
    deadline: Instant,
    free: Arc<AtomicBool>,
}

impl Tcp {
    fn arm(&self) -> io::Result<()> {
        if self.free.load(Ordering::Relaxed) {
            return Ok(());
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))
    }
}

impl Read for Tcp {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        self.stream.read(buffer)
    }
}

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arm()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Where to connect to.
struct Place {
    host: String,
    port: u16,
    is_encrypted: bool,
}

impl Place {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_encrypted = match uri.scheme_str()? {
            "wss" | "https" => true,
            "ws" | "http" => false,
            _ => return None,
        };
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        (!host.is_empty()).then_some(Self { host, port, is_encrypted })
    }

    /// As it stands in a request.
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Opens the WebSocket of an address.
///
/// # Errors
/// What failed, in words that hold no secret.
pub(super) fn dial(url: &Secret, network: &Network, deadline: Instant) -> Result<Line, String> {
    let unreadable = || "Slack named an address that is none".to_owned();
    let place = Place::of(url.reveal()).ok_or_else(unreadable)?;
    // For proxies it is an address like that of the Web API.
    let scheme = if place.is_encrypted { "https" } else { "http" };
    let alike = format!("{scheme}://{}/", place.authority());
    let proxy = proxy_to(network, &alike)?;
    let named = network.proxy.as_ref().map(|proxy| host(proxy.reveal())).unwrap_or_default();
    let words =
        |why: String| if proxy.is_some() { format!("{why} (through the proxy {named})") } else { why };
    let (bare, free) = connect(proxy.as_ref(), &place, deadline).map_err(words)?;
    let tcp = bare.stream.try_clone().map_err(|error| io_words(&error))?;
    let mut stream: Box<dyn Duplex> = Box::new(bare);
    if let Some(proxy) = &proxy {
        if proxy.protocol() == ProxyProtocol::Https {
            stream = encrypt(stream, proxy.host(), network, deadline).map_err(words)?;
        }
        tunnel(&mut *stream, proxy, &place).map_err(words)?;
    }
    if place.is_encrypted {
        stream = encrypt(stream, &place.host, network, deadline)?;
    }
    let mut request = url.reveal().into_client_request().map_err(|_| unreadable())?;
    request.headers_mut().insert(AGENT, HeaderValue::from_static(USER_AGENT));
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let upgraded = tungstenite::client::client_with_config(request, stream, Some(config));
    let (socket, _) = upgraded.map_err(|error| match error {
        HandshakeError::Interrupted(_) => format!("{} did not open the socket in time", place.host),
        HandshakeError::Failure(error) => socket_words(&place.host, &error),
    })?;
    free.store(true, Ordering::Relaxed);
    tcp.set_nonblocking(true).map_err(|error| io_words(&error))?;
    Ok(Line { socket, tcp })
}

/// What a WebSocket says of its end, without the address it was opened with.
pub(super) fn socket_words(host: &str, error: &Error) -> String {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => format!("{host} closed the socket"),
        Error::Io(error) if error.kind() == ErrorKind::InvalidData => tls_words(host, error),
        Error::Io(error) if ran_out(error) => format!("{host} did not answer in time"),
        Error::Io(error) => format!("the socket to {host} failed: {}", io_words(error)),
        Error::Http(response) => format!("{host} opened no socket ({})", response.status().as_u16()),
        Error::Capacity(_) => {
            format!("{host} sent a message larger than {} MiB", MESSAGE_MAX / 1024 / 1024)
        }
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            format!("the socket to {host} was cut off")
        }
        _ => format!("{host} does not speak as a WebSocket does"),
    }
}

/// Whether a step of opening a line has outlasted its deadline.
fn ran_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn proxy_to(network: &Network, url: &str) -> Result<Option<Proxy>, String> {
    let Some(proxy) = proxy_for(network, url) else { return Ok(None) };
    let proxy = build_proxy(proxy, network.no_proxy.as_deref()).map_err(|trouble| trouble.words())?;
    let uri: Uri = url.parse().map_err(|_| "Slack named an address that is none".to_owned())?;
    Ok(Some(proxy).filter(|proxy| !proxy.is_no_proxy(&uri)))
}

fn connect(
    proxy: Option<&Proxy>,
    place: &Place,
    deadline: Instant,
) -> Result<(Tcp, Arc<AtomicBool>), String> {
    let (host, port) = proxy.map_or((&*place.host, place.port), |proxy| (proxy.host(), proxy.port()));
    let host = host.trim_matches(['[', ']']);
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => (host, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default(),
    };
    let mut why = format!("could not find host {host}");
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now()).min(CONNECT_MAX);
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                // A small frame is to leave at once.
                let _ = stream.set_nodelay(true);
                let free = Arc::new(AtomicBool::new(false));
                return Ok((Tcp { stream, deadline, free: Arc::clone(&free) }, free));
            }
            Err(error) => why = format!("could not connect to {host}: {}", io_words(&error)),
        }
    }
    Err(why)
}

/// Asks a proxy for the way to a place.
fn tunnel(stream: &mut dyn Duplex, proxy: &Proxy, place: &Place) -> Result<(), String> {
    let authority = place.authority();
    let mut request =
        format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {USER_AGENT}\r\n");
    if let Some(user) = proxy.username() {
        let pair = format!("{user}:{}", proxy.password().unwrap_or_default());
        request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(pair)));
    }
    request.push_str("\r\n");
    let failed = |error: io::Error| format!("the way to {} failed: {}", place.host, io_words(&error));
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(failed)?;
    // Byte by byte, since what comes after the answer belongs to the other end.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(failed)?;
        answer.push(byte[0]);
        if answer.len() > PROXY_ANSWER_MAX {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status.parse::<u16>() {
        Ok(200..=299) if answer.starts_with("HTTP/1.") => Ok(()),
        Ok(status) => Err(format!("the proxy refused to connect to {}: {status}", place.host)),
        Err(_) => Err(format!("what should be a proxy gave no way to {}", place.host)),
    }
}

fn encrypt(
    mut stream: Box<dyn Duplex>,
    host: &str,
    network: &Network,
    deadline: Instant,
) -> Result<Box<dyn Duplex>, String> {
    let mut roots = RootCertStore::empty();
    match network.authorities.read(deadline) {
        Some(found) => {
            roots.add_parsable_certificates(found.into_iter().map(CertificateDer::from));
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let host = host.trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("'{host}' cannot be the name of a certificate"))?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(|error| tls_words(host, &error))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(|error| match error.kind() {
            ErrorKind::InvalidData => tls_words(host, &error),
            _ if ran_out(&error) => format!("{host} did not answer in time"),
            _ => format!("the way to {host} failed: {}", io_words(&error)),
        })?;
    }
    Ok(Box::new(StreamOwned::new(tls, stream)))
}
