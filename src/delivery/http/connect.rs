//! How a connection is made, and how far that has come.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, NextTimeout};

/// Takes an address for what it is: looking a name up costs a thread, so that it can be given up in time.
#[derive(Debug)]
pub(super) struct Literal(pub(super) DefaultResolver);

impl Resolver for Literal {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        match host.parse::<IpAddr>() {
            Ok(address) => {
                let mut found = self.empty();
                found.push(SocketAddr::new(address, uri.port_u16().unwrap_or(default_port)));
                Ok(found)
            }
            Err(_) => self.0.resolve(uri, config, timeout),
        }
    }
}

/// How far the present request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// No connection was asked for: not yet, or one is being reused.
    Idle = 0,
    Connecting = 1,
    Connected = 2,
}

/// Tells apart what failed before a request could leave from what failed after.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stage: AtomicU8,
    connected_before: AtomicU8,
}

impl Progress {
    pub(super) fn reset(&self) {
        if self.stage() == Stage::Connected {
            self.connected_before.store(1, Ordering::Relaxed);
        }
        self.set(Stage::Idle);
    }

    fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Idle,
            1 => Stage::Connecting,
            _ => Stage::Connected,
        }
    }

    pub(super) fn was_connected(&self) -> bool {
        self.connected_before.load(Ordering::Relaxed) == 1
    }
}

/// ureq's own connector, watched: its errors do not say whether a connection had been made.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) inner: DefaultConnector,
    pub(super) progress: Arc<Progress>,
}

impl Connector<()> for Watched {
    type Out = <DefaultConnector as Connector<()>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        self.progress.set(Stage::Connecting);
        let connected = self.inner.connect(details, chained);
        // The way to a proxy is connected by us as well: it may be open while the tunnel behind it is refused.
        self.progress.set(if connected.is_ok() { Stage::Connected } else { Stage::Connecting });
        connected
    }
}
