//! The one HTTP client: explicit timeouts, one connection reused, and errors that hold no secret.

mod connect;

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy, ProxyProtocol, Timeout};

use crate::exit::cause;
use crate::secret::Secret;
use crate::trust::Authorities;
use connect::{Literal, Progress, Stage, Watched};

/// The longest that setting up a connection may take.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The most of an answer that is read, in bytes; Slack's are a few kilobytes.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;

/// The size of the buffers of a connection, in bytes.
const BUFFER: usize = 16 * 1024;

pub(crate) const USER_AGENT: &str = concat!("agent-checkpoint/", env!("CARGO_PKG_VERSION"));

/// How to reach the network; all of it as configured, nothing read from the environment here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network {
    /// A proxy URL; it may hold a password.
    pub(crate) proxy: Option<Secret>,
    /// Hosts that are reached without the proxy, as in `NO_PROXY`.
    pub(crate) no_proxy: Option<String>,
    pub(crate) authorities: Authorities,
}

impl Network {
    /// Everything that decides how a host is reached, as one text; it may hold a password.
    pub(crate) fn way(&self) -> String {
        let proxy = self.proxy.as_ref().map(|proxy| (proxy.reveal(), &self.no_proxy));
        format!("{proxy:?}\n{:?}\n{:?}", self.authorities.file, self.authorities.dirs)
    }
}

/// An HTTP client.
pub(crate) struct Http {
    network: Network,
    /// Built at the first request: reading certificates costs more than a recorded-only call takes.
    agent: Option<Agent>,
    progress: Arc<Progress>,
    witness: Option<Witness>,
}

/// Is told of every request: what it was, what came of it and how long that took. Never a secret.
type Witness = Box<dyn Fn(&str) + Send>;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// The server's clock, as it wrote it.
    pub(crate) date: Option<String>,
    /// `x-oauth-scopes`: what the token may do.
    pub(crate) scopes: Option<String>,
    pub(crate) body: String,
}

/// Why no answer came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The deadline was over before the request could leave.
    TooLate,
    /// The request did not leave.
    NotSent(String),
    /// The request may have arrived.
    AnswerLost(String),
}

impl Trouble {
    /// What went wrong, in words without secrets.
    pub(crate) fn words(self) -> String {
        match self {
            Self::TooLate => "the deadline was over before it could be sent".to_owned(),
            Self::NotSent(why) | Self::AnswerLost(why) => why,
        }
    }
}

impl Http {
    pub(crate) fn new(network: Network) -> Self {
        Self { network, agent: None, progress: Arc::default(), witness: None }
    }

    /// From now on tells of every request.
    pub(crate) fn watch(&mut self, witness: impl Fn(&str) + Send + 'static) {
        self.witness = Some(Box::new(witness));
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub(crate) fn post(
        &mut self,
        url: &str,
        bearer: Option<&Secret>,
        json: &str,
        deadline: Instant,
    ) -> Result<Answer, Trouble> {
        let began = Instant::now();
        let (agent, timeout) = self.prepare(url, deadline)?;
        let mut request = agent.post(url).content_type("application/json; charset=utf-8");
        if let Some(token) = bearer {
            request = request.header("authorization", format!("Bearer {}", token.reveal()));
        }
        let sent = request
            .config()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(timeout.min(CONNECT_MAX)))
            .build()
            .send(json);
        let answer = self.finish(url, timeout, sent);
        // Without a token the URL is the secret.
        self.tell(if bearer.is_some() { method(url) } else { "webhook" }, url, began, &answer);
        answer
    }

    /// Posts text to a URL that needs no token.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub(crate) fn post_text(&mut self, url: &str, text: &str, deadline: Instant) -> Result<Answer, Trouble> {
        let began = Instant::now();
        let (agent, timeout) = self.prepare(url, deadline)?;
        let sent = agent
            .post(url)
            .content_type("application/octet-stream")
            .config()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(timeout.min(CONNECT_MAX)))
            .build()
            .send(text);
        let answer = self.finish(url, timeout, sent);
        self.tell("upload", url, began, &answer);
        answer
    }

    /// Gets with a query: Slack's reading methods do not take JSON.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub(crate) fn get(
        &mut self,
        url: &str,
        bearer: &Secret,
        query: &[(&str, &str)],
        deadline: Instant,
    ) -> Result<Answer, Trouble> {
        let began = Instant::now();
        let (agent, timeout) = self.prepare(url, deadline)?;
        let sent = agent
            .get(url)
            .header("authorization", format!("Bearer {}", bearer.reveal()))
            .query_pairs(query.iter().copied())
            .config()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(timeout.min(CONNECT_MAX)))
            .build()
            .call();
        let answer = self.finish(url, timeout, sent);
        self.tell(method(url), url, began, &answer);
        answer
    }

    /// Tells the witness of a request. What an error says of a host has its name already.
    fn tell(&self, what: &str, url: &str, began: Instant, answer: &Result<Answer, Trouble>) {
        let Some(witness) = &self.witness else { return };
        let came = match answer {
            Ok(Answer { status, retry_after: Some(after), .. }) => {
                format!("{status} from {}, retry after {} s", host(url), after.as_secs())
            }
            Ok(Answer { status, .. }) => format!("{status} from {}", host(url)),
            Err(Trouble::TooLate) => "too late".to_owned(),
            Err(Trouble::NotSent(why) | Trouble::AnswerLost(why)) => why.clone(),
        };
        witness(&format!("request {what}: {came} ({} ms)", began.elapsed().as_millis()));
    }

    fn prepare(&mut self, url: &str, deadline: Instant) -> Result<(&Agent, Duration), Trouble> {
        self.progress.reset();
        if self.agent.is_none() {
            self.agent = Some(build(&self.network, url, deadline, Arc::clone(&self.progress))?);
        }
        let timeout = deadline.saturating_duration_since(Instant::now());
        if timeout.is_zero() {
            // It may not know all that it is to trust.
            self.agent = None;
            return Err(Trouble::TooLate);
        }
        let agent = self.agent.as_ref().expect("built just now");
        Ok((agent, timeout))
    }

    fn finish(
        &self,
        url: &str,
        timeout: Duration,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, Trouble> {
        let mut response = sent.map_err(|error| self.trouble(url, timeout, &error))?;
        let header = |name: &str, headers: &HeaderMap| headers.get(name)?.to_str().ok().map(str::to_owned);
        let headers = response.headers();
        let retry_after = header("retry-after", headers).and_then(|text| text.trim().parse().ok());
        let (date, scopes) = (header("date", headers), header("x-oauth-scopes", headers));
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_MAX)
            .read_to_vec()
            .map_err(|error| self.trouble(url, timeout, &error))?;
        // Not text is not Slack's either; whoever reads it finds out.
        let body = String::from_utf8_lossy(&body).into_owned();
        let status = response.status().as_u16();
        Ok(Answer { status, retry_after: retry_after.map(Duration::from_secs), date, scopes, body })
    }

    /// The host of the proxy that a URL is reached through.
    fn proxy_to(&self, url: &str) -> Option<&str> {
        let proxy = self.agent.as_ref()?.config().proxy()?;
        let uri: Uri = url.parse().ok()?;
        if proxy.is_no_proxy(&uri) {
            return None;
        }
        self.network.proxy.as_ref().map(|proxy| host(proxy.reveal()))
    }

    /// In our own words: ureq's may hold the URL, and a webhook's URL is a secret.
    fn trouble(&self, url: &str, timeout: Duration, error: &ureq::Error) -> Trouble {
        let host = host(url);
        let seconds = timeout.as_secs_f64();
        let stage = self.progress.stage();
        let why = match error {
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                format!("could not connect to {host} within {:.1} s", timeout.min(CONNECT_MAX).as_secs_f64())
            }
            ureq::Error::Timeout(_) => format!("{host} did not answer within {seconds:.1} s"),
            ureq::Error::HostNotFound => format!("could not find host {host}"),
            ureq::Error::ConnectionFailed => format!("could not connect to {host}"),
            ureq::Error::ConnectProxyFailed(reason) => {
                format!("the proxy refused to connect to {host}: {reason}")
            }
            ureq::Error::InvalidProxyUrl => "the proxy's URL is malformed".to_owned(),
            ureq::Error::Rustls(error) => tls_words(host, error),
            ureq::Error::Tls(reason) => format!("could not speak TLS with {host}: {reason}"),
            // What rustls says arrives as invalid data on the connection.
            ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => tls_words(host, error),
            ureq::Error::BodyExceedsLimit(_) => {
                format!("{host} gave an answer larger than {} MiB", ANSWER_MAX / 1024 / 1024)
            }
            ureq::Error::Io(error) => format!("connection to {host} failed: {}", io_words(error)),
            _ => format!("{host} gave an answer that is not HTTP"),
        };
        let why = match self.proxy_to(url) {
            Some(proxy) if stage != Stage::Connected => format!("{why} (through the proxy {proxy})"),
            _ => why,
        };
        let reused = stage == Stage::Idle && self.progress.was_connected();
        let unresolved = matches!(error, ureq::Error::HostNotFound | ureq::Error::Timeout(Timeout::Resolve));
        if unresolved || stage == Stage::Connecting || (stage == Stage::Idle && !reused) {
            Trouble::NotSent(why)
        } else {
            Trouble::AnswerLost(why)
        }
    }
}

/// Certificates can be mended by a setting; a host that does not speak TLS at all cannot.
pub(crate) fn tls_words(host: &str, error: &dyn fmt::Display) -> String {
    let error = error.to_string();
    if error.contains("certificate") {
        format!("could not trust {host}: {error}; SSL_CERT_FILE names the certificates to trust")
    } else {
        format!("could not speak TLS with {host}: {error}")
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("network", &self.network).finish_non_exhaustive()
    }
}

fn build(network: &Network, url: &str, deadline: Instant, progress: Arc<Progress>) -> Result<Agent, Trouble> {
    let mut config = Agent::config_builder()
        .user_agent(USER_AGENT)
        // Slack's reason stands in the body of a failed answer too.
        .http_status_as_error(false)
        // A redirect would take the token along.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(match proxy_for(network, url) {
            Some(proxy) => Some(build_proxy(proxy, network.no_proxy.as_deref())?),
            None => None,
        });
    if url.starts_with("https:")
        && let Some(found) = network.authorities.read(deadline)
    {
        let roots: Vec<_> = found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        config =
            config.tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build());
    }
    // Slack's messages and answers are a few kilobytes; ureq's default is 128 for each direction.
    config = config.input_buffer_size(BUFFER).output_buffer_size(BUFFER);
    let connector = Watched { inner: DefaultConnector::default(), progress };
    Ok(Agent::with_parts(config.build(), connector, Literal(DefaultResolver::default())))
}

/// The proxy to reach a URL by. A token that goes to this machine unencrypted must not leave it on the way, and seen from
/// a proxy elsewhere `127.0.0.1` is another machine.
pub(crate) fn proxy_for<'a>(network: &'a Network, url: &str) -> Option<&'a Secret> {
    let is_plain = !url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    let stays_here = is_plain && is_loopback(host(url));
    network.proxy.as_ref().filter(|proxy| !stays_here || is_loopback(host(proxy.reveal())))
}

pub(crate) fn build_proxy(url: &Secret, no_proxy: Option<&str>) -> Result<Proxy, Trouble> {
    let wrong = || Trouble::NotSent("the proxy's URL is malformed; mend HTTPS_PROXY".to_owned());
    let parsed = Proxy::new(url.reveal()).map_err(|_| wrong())?;
    if !matches!(parsed.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(Trouble::NotSent(
            "only http and https proxies are supported; mend HTTPS_PROXY".to_owned(),
        ));
    }
    let mut builder = Proxy::builder(parsed.protocol()).host(parsed.host()).port(parsed.port());
    if let Some(user) = parsed.username() {
        builder = builder.username(user);
    }
    if let Some(password) = parsed.password() {
        builder = builder.password(password);
    }
    for host in no_proxy.unwrap_or_default().split(',').map(str::trim).filter(|host| !host.is_empty()) {
        builder = builder.no_proxy(host);
    }
    builder.build().map_err(|_| wrong())
}

/// The method of Slack's Web API that a URL calls.
fn method(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

/// The host of a URL, which unlike the rest may be shown.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// Whether a host, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || name == "localhost"
        || name.ends_with(".localhost")
}

pub(crate) fn io_words(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connection reset".to_owned(),
        ErrorKind::UnexpectedEof => "connection closed before the answer".to_owned(),
        ErrorKind::BrokenPipe => "connection closed while sending".to_owned(),
        _ => cause(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_on_this_machine_goes_through_no_proxy_elsewhere() {
        for (url, proxy, used) in [
            ("https://slack.com/api/x", "http://proxy.example:3128", true),
            ("https://127.0.0.1/api/x", "http://proxy.example:3128", true),
            ("http://127.0.0.1:8765/api/x", "http://proxy.example:3128", false),
            ("HTTP://localhost/api/x", "http://ana:127.0.0.1@proxy.example", false),
            ("http://[::1]/api/x", "proxy.example:3128", false),
            ("http://127.0.0.1:8765/api/x", "http://127.0.0.1:3128", true),
            ("http://127.0.0.1:8765/api/x", "ana:s3cret@localhost:3128", true),
        ] {
            let network = Network { proxy: Some(Secret::new(proxy.to_owned())), ..Network::default() };
            assert_eq!(proxy_for(&network, url).is_some(), used, "{url} by {proxy}");
        }
    }
}
