//! The database of the audit trail: `DATABASE_URL`, and what libpq's variables and files add to it.

mod passfile;
mod settings;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Problem;
use crate::checkpoint::parse::Invalid;
use crate::secret::Secret;
use crate::trust::Authorities;
use settings::Settings;

/// What the server shows for a connection whose name nobody chose.
const APPLICATION_NAME: &str = "agent-checkpoint";
/// Where servers keep their Unix socket, as distributions build them.
const SOCKET_DIRS: &[&str] = &["/run/postgresql", "/var/run/postgresql", "/tmp"];
const DEFAULT_PORT: u16 = 5432;

/// Where audit rows go.
#[derive(Debug, Clone)]
pub(crate) enum Audit {
    /// No database is configured.
    Off,
    Database(Arc<Database>),
    /// One is configured but cannot be used: rows wait until it is mended.
    Broken,
}

/// A PostgreSQL server, or several of which one is used, and how to speak with it. All of it as configured: nothing is
/// read from the environment later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Database {
    /// Tried in this order; never empty.
    pub(crate) hosts: Vec<Host>,
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) encryption: Encryption,
    pub(crate) channel_binding: ChannelBinding,
    /// For each host; without it the hosts share the time that the caller has.
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) session: Session,
    /// Begin with any of the hosts.
    pub(crate) balance: bool,
    pub(crate) application_name: String,
    pub(crate) options: Option<String>,
    pub(crate) keepalive: Keepalive,
}

/// One of the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) place: Place,
    pub(crate) port: u16,
    pub(crate) password: Option<Secret>,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The name also stands in the certificate; with an address it is not looked up.
    Tcp { name: String, address: Option<IpAddr> },
    /// The directory of a Unix socket.
    Socket(PathBuf),
}

/// When TLS is used; libpq's `sslmode` without what it says of certificates. Never on a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Never,
    /// When the server insists.
    Allow,
    /// When the server offers it.
    Prefer,
    Require,
}

/// What a server's certificate must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    Nothing,
    /// That a trusted authority signed it.
    Authority,
    /// And that it is for this host.
    Name,
}

/// Which authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Roots {
    File(PathBuf),
    /// Those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or the built-in ones.
    System(Authorities),
}

/// Which versions of TLS may be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    Any,
    Only12,
    Only13,
}

/// How the connection is encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encryption {
    pub(crate) tls: Tls,
    pub(crate) proof: Proof,
    pub(crate) roots: Roots,
    /// Begin with TLS at once (`sslnegotiation=direct`, PostgreSQL 17).
    pub(crate) direct: bool,
    /// Our own certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Tell the server's name before the encryption begins (SNI).
    pub(crate) names_host: bool,
    pub(crate) versions: Versions,
}

/// Whether the password's proof is tied to the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// What a server must be; libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// How a dead connection is noticed; `None` leaves it to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keepalive {
    pub(crate) on: bool,
    pub(crate) idle: Option<Duration>,
    pub(crate) interval: Option<Duration>,
    pub(crate) count: Option<u32>,
    /// The longest that sent data may stay unacknowledged.
    pub(crate) unacknowledged: Option<Duration>,
}

impl Database {
    /// For a test: what a URL alone says.
    #[cfg(test)]
    pub(crate) fn of(url: &str) -> Self {
        let around = Surroundings {
            variables: BTreeMap::new(),
            home: None,
            user: || None,
            authorities: Authorities::default(),
        };
        read(url, &around).database.expect("it is a connection URL")
    }

    /// What tells it from other databases, whoever connects to it and how; holds no secret.
    pub(crate) fn fingerprint(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        let name = format!("{}/{}", hosts.join(","), self.name);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).simple().to_string()
    }
}

impl fmt::Display for Host {
    /// Without the password, as `db.example.com:5432`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Place::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
            Place::Socket(dir) => write!(f, "{}/.s.PGSQL.{}", dir.display(), self.port),
        }
    }
}

/// What the database's settings depend on beside their own text.
pub(super) struct Surroundings {
    /// libpq's variables, those that are set.
    pub(super) variables: BTreeMap<&'static str, String>,
    pub(super) home: Option<PathBuf>,
    /// The name of this process's user; to find it may cost more than a call takes.
    pub(super) user: fn() -> Option<String>,
    pub(super) authorities: Authorities,
}

pub(super) use settings::VARIABLES;

/// What came of the text of `DATABASE_URL`.
pub(super) struct Read {
    pub(super) database: Result<Database, Invalid>,
    /// Passwords in every form in which they may turn up.
    pub(super) secrets: Vec<Secret>,
    pub(super) warnings: Vec<Problem>,
}

pub(super) fn read(text: &str, around: &Surroundings) -> Read {
    let mut warnings = Vec::new();
    let mut passwords: Vec<String> = super::resolve::password_of(text).into_iter().collect();
    let database = text::parse(text).and_then(|said| {
        passwords.extend(said.get("password").cloned());
        Settings { said, around }.database(&mut warnings)
    });
    let hosts = database.as_ref().map(|database| database.hosts.as_slice()).unwrap_or_default();
    passwords.extend(hosts.iter().filter_map(|host| Some(host.password.as_ref()?.reveal().to_owned())));
    let mut known = Vec::new();
    for password in passwords {
        if !known.contains(&password) {
            known.push(password);
        }
    }
    if let Ok(Database { user, name, .. }) = &database {
        // One that is the user's or the database's name, such as `postgres`, keeps nobody out, and it is an ordinary
        // word in what agents say.
        known.retain(|password| password != user && password != name);
    }
    Read { database, secrets: known.into_iter().map(Secret::new).collect(), warnings }
}

/// The socket's directory on this machine, where a server listens there.
fn local_socket(port: u16) -> Option<PathBuf> {
    let name = format!(".s.PGSQL.{port}");
    SOCKET_DIRS.iter().map(Path::new).find(|dir| dir.join(&name).exists()).map(Path::to_owned)
}

#[cfg(test)]
mod tests;
