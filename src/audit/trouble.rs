//! What is wrong with a database, in plain words, and how to mend it.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustls::CertificateError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::config::database::{Place, Roots};
use crate::exit::{cause, one_line};

/// Why something with a database failed. Holds no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What failed, with the host and port.
    pub(crate) message: String,
    /// How to mend it.
    pub(crate) hint: String,
    /// The server's own code, where it is the server that refused.
    pub(crate) code: Option<SqlState>,
    kind: Kind,
    /// Somebody may listen there who is no PostgreSQL server.
    is_odd: bool,
}

/// What may be tried next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Another host may do.
    Unreachable,
    /// TLS failed or is not there: without it, or at another host, it may do.
    Tls,
    /// Every host would say the same.
    Refused,
}

/// Where something was tried, to say so.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) place: String,
    pub(super) user: String,
    pub(super) database: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Trouble {
    fn new(kind: Kind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: one_line(&message.into()),
            hint: one_line(&hint.into()),
            code: None,
            kind,
            is_odd: false,
        }
    }

    /// The same, where somebody may listen who is no PostgreSQL server.
    fn odd(self) -> Self {
        Self { is_odd: true, ..self }
    }

    pub(super) fn no_runtime(error: &io::Error) -> Self {
        let message = format!("could not prepare a connection: {}", cause(error));
        Self::new(Kind::Refused, message, "see whether the limit of open files is reached (ulimit -n)")
    }

    pub(super) fn file(setting: &str, path: &Path, why: &str, hint: &str) -> Self {
        Self::new(Kind::Refused, format!("could not use {setting} {}: {why}", path.display()), hint)
    }

    pub(super) fn no_authority(roots: &Roots) -> Self {
        let named = match roots {
            Roots::File(path) => format!("sslrootcert {}", path.display()),
            Roots::System(_) => "SSL_CERT_FILE".to_owned(),
        };
        let message = format!("could not use {named}: it holds no authority's certificate");
        Self::new(Kind::Refused, message, "name a file with the authority's certificate in PEM form")
    }

    pub(super) fn unknown_host(name: &str) -> Self {
        let message = format!("could not find host {name}");
        Self::new(Kind::Unreachable, message, "check the host's name in DATABASE_URL, and the network")
    }

    /// A name that was found and has no address.
    pub(super) fn nameless(place: &Place) -> Option<Self> {
        match place {
            Place::Tcp { name, .. } => Some(Self::unknown_host(name)),
            Place::Socket(_) => None,
        }
    }

    pub(super) fn late(at: &At, after: Duration) -> Self {
        let message = format!("{} did not answer within {:.1} s", at.place, after.as_secs_f64());
        let hint = "check host and port, and that no firewall is between; connect_timeout and --deadline say how \
                    long is waited";
        Self::new(Kind::Unreachable, message, hint).odd()
    }

    pub(super) fn lost(at: &At) -> Self {
        Self::new(Kind::Unreachable, format!("the connection to {} is lost", at.place), "try again")
    }

    pub(crate) fn no_schema(place: &str, found: i32, wanted: i32) -> Self {
        let message =
            format!("{place} has version {found} of the audit trail's schema, and {wanted} is needed");
        Self::new(Kind::Refused, message, "run agent-checkpoint db migrate")
    }

    pub(super) fn no_answer(place: &str) -> Self {
        let message = format!("{place} does not answer like a PostgreSQL server");
        Self::new(Kind::Unreachable, message, "check host and port in DATABASE_URL")
    }

    /// Something else listens there.
    pub(super) fn stranger(place: &str, answers: &str) -> Self {
        let message = format!("{place} does not speak PostgreSQL: {answers}");
        Self::new(Kind::Refused, message, "check host and port in DATABASE_URL")
    }

    /// The same, of which it is known what was held by somebody else, and for how long that was waited for.
    pub(super) fn held(self, place: &str, what: &str, waited: Duration) -> Self {
        let message = format!("{place}: {what}; gave up after {:.1} s", waited.as_secs_f64());
        Self { message, ..self }
    }

    pub(super) fn other_session(at: &At, wanted: &str) -> Self {
        let message = format!("{} is not {wanted}", at.place);
        Self::new(Kind::Unreachable, message, "name such a server's host too, or mend target_session_attrs")
    }

    /// What all that was tried came to.
    pub(super) fn all(troubles: Vec<Self>) -> Self {
        let mut messages: Vec<&str> = Vec::new();
        for trouble in &troubles {
            if !messages.contains(&trouble.message.as_str()) {
                messages.push(&trouble.message);
            }
        }
        let message = messages.join("; ");
        match troubles.last() {
            Some(last) => {
                Self { message, is_odd: troubles.iter().any(|trouble| trouble.is_odd), ..last.clone() }
            }
            None => Self::new(Kind::Unreachable, "no host is configured", "name one in DATABASE_URL"),
        }
    }

    /// Whether it is about what was sent and would be the same at any time: a value that the server cannot take, or one
    /// that breaks a rule of a table.
    pub(crate) fn is_about_rows(&self) -> bool {
        // Classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>: cardinality, data, integrity,
        // limits, and what triggers raise.
        let classes = ["21", "22", "23", "44", "54", "P0"];
        self.code.as_ref().is_some_and(|code| classes.iter().any(|class| code.code().starts_with(class)))
    }

    /// Whether a rule says that there is such a row already.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code == Some(SqlState::UNIQUE_VIOLATION)
    }

    /// Whether the tables are not there.
    pub(crate) fn is_about_schema(&self) -> bool {
        self.code == Some(SqlState::UNDEFINED_TABLE)
    }

    /// Whether somebody held a lock for longer than there was time.
    pub(crate) fn is_locked_out(&self) -> bool {
        self.code == Some(SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether it stays as it is until somebody mends it.
    pub(crate) fn needs_somebody(&self) -> bool {
        // Connections, a standby, collisions, resources, other sessions, operators, the system and its accidents: all else the
        // server would say again.
        let passing = ["08", "25", "40", "53", "55", "57", "58", "XX"];
        match &self.code {
            Some(code) => !passing.iter().any(|class| code.code().starts_with(class)),
            None => matches!(self.kind, Kind::Tls | Kind::Refused),
        }
    }

    /// Whether no other host is to be tried.
    pub(super) fn is_final(&self) -> bool {
        self.kind == Kind::Refused
    }

    /// Whether it is worth a look who else may listen there.
    pub(super) fn is_odd(&self) -> bool {
        self.is_odd
    }

    pub(super) fn is_about_tls(&self) -> bool {
        self.kind == Kind::Tls
    }

    /// Whether it may be for being encrypted or not: TLS that failed, or a server that lets nobody in this way. A
    /// refused password is never sent once more without protection.
    pub(super) fn asks_for_the_other_way(&self) -> bool {
        let by_server = [SqlState::INVALID_AUTHORIZATION_SPECIFICATION, SqlState::PROTOCOL_VIOLATION];
        self.is_about_tls() || self.code.as_ref().is_some_and(|code| by_server.contains(code))
    }

    /// In our own words: what the crate says of an error is little, and what kind it is only its text tells.
    pub(super) fn of(at: &At, error: &Error) -> Self {
        if let Some(refusal) = error.as_db_error() {
            return Self {
                code: Some(refusal.code().clone()),
                ..refused(at, refusal.code(), refusal.message())
            };
        }
        let place = &at.place;
        let source = error.source();
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        let why = io.map(cause).or_else(|| source.map(ToString::to_string)).unwrap_or_default();
        match error.to_string().as_str() {
            "error performing TLS handshake" => about_tls(place, &why, io),
            "invalid configuration" if why == "password missing" => Self::new(
                Kind::Refused,
                format!("{place} asks for a password and none is configured"),
                "write it into DATABASE_URL, PGPASSWORD or the password file",
            ),
            "authentication error" if why.contains("channel binding") => Self::new(
                Kind::Refused,
                format!(
                    "{place} cannot tie the password to its certificate, which channel_binding=require asks for"
                ),
                "use sslmode=require or stronger with a server that stores passwords as scram-sha-256",
            ),
            "authentication error" => Self::new(
                Kind::Refused,
                format!("could not prove who we are to {place}: {why}"),
                "let the server ask for a password (scram-sha-256) or a certificate",
            ),
            "error connecting to server" => unreachable(place, io, &why),
            "unexpected message from server" | "error parsing response from server" => Self::new(
                Kind::Unreachable,
                format!("{place} does not answer like a PostgreSQL server"),
                "check host and port in DATABASE_URL",
            )
            .odd(),
            // Of another type, or not there.
            words if words.contains("column") => Self::new(
                Kind::Refused,
                format!("{place} answers with something else than was asked for: {words}"),
                "compare the tables with what agent-checkpoint db schema prints",
            ),
            words => {
                let why = if why.is_empty() { words } else { &why };
                let message = format!("the connection to {place} failed: {why}");
                Self::new(Kind::Unreachable, message, "see the server's log, and try again").odd()
            }
        }
    }
}

fn unreachable(place: &str, io: Option<&io::Error>, why: &str) -> Trouble {
    let kind = io.map(io::Error::kind);
    let (message, hint) = match kind {
        Some(io::ErrorKind::ConnectionRefused) => (
            format!("{place} refused the connection"),
            "check host and port, and that the server runs and listens there",
        ),
        Some(io::ErrorKind::NotFound) => (
            format!("there is no socket {place}"),
            "check the socket's directory and the port, and that the server runs",
        ),
        Some(io::ErrorKind::PermissionDenied) => (
            format!("{place} may not be used: permission denied"),
            "let the socket's directory be open to this user",
        ),
        _ => (format!("could not connect to {place}: {why}"), "check host and port, and the network"),
    };
    Trouble::new(Kind::Unreachable, message, hint)
}

fn about_tls(place: &str, why: &str, io: Option<&io::Error>) -> Trouble {
    let error = io.and_then(io::Error::get_ref).and_then(|error| error.downcast_ref::<rustls::Error>());
    let (message, hint) = match error {
        Some(rustls::Error::InvalidCertificate(certificate)) => distrust(place, certificate),
        Some(rustls::Error::AlertReceived(_)) => (
            format!("{place} broke off TLS: {why}"),
            "see the server's log; it may ask for a certificate of yours (sslcert and sslkey)".to_owned(),
        ),
        _ if why == "server does not support TLS" => (
            format!("{place} offers no TLS"),
            "turn it on at the server, or give sslmode=disable where the network is safe".to_owned(),
        ),
        _ => (
            format!("could not speak TLS with {place}: {why}"),
            "check host and port, sslmode and sslnegotiation".to_owned(),
        ),
    };
    // A server that was understood is one.
    let is_odd = !matches!(error, Some(rustls::Error::InvalidCertificate(_)));
    Trouble { is_odd, ..Trouble::new(Kind::Tls, message, hint) }
}

fn distrust(place: &str, error: &CertificateError) -> (String, String) {
    let (why, hint) = match error {
        // An authority that was made anew has the old one's name and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "nobody who is trusted signed its certificate".to_owned(),
            "name the authority's certificate with sslrootcert=FILE",
        ),
        CertificateError::NotValidForName => (
            "its certificate is for another host".to_owned(),
            "connect by a name that stands in the certificate",
        ),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = if presented.is_empty() { "none".to_owned() } else { presented.join(", ") };
            (
                format!("its certificate is for another host; the names in it: {names}"),
                "connect by a name in the certificate's subjectAltName, or use sslmode=verify-ca",
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "its certificate has expired".to_owned(),
            "renew the server's certificate, or set this machine's clock",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("its certificate is not valid yet".to_owned(), "set this machine's clock")
        }
        other if format!("{other:?}").contains("UnsupportedCertVersion") => (
            "its certificate is of version 1, which has no names in it".to_owned(),
            "make the certificate anew with a subjectAltName (openssl x509 -req -extfile …), or use sslmode=require \
             without an sslrootcert",
        ),
        other => (format!("its certificate is refused: {other}"), "mend the server's certificate"),
    };
    (format!("could not trust {place}: {why}"), hint.to_owned())
}

/// What the server says no with.
fn refused(at: &At, code: &SqlState, said: &str) -> Trouble {
    let At { place, user, database } = at;
    let not_ready = [SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    let (kind, message, hint) = match code {
        code if *code == SqlState::INVALID_PASSWORD => (
            Kind::Refused,
            format!("{place} refused the password of user '{user}'"),
            "mend user or password in DATABASE_URL, PGPASSWORD or the password file".to_owned(),
        ),
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => (
            Kind::Refused,
            format!("{place} does not let user '{user}' into database '{database}': {said}"),
            "check user and database; the server's pg_hba.conf says who may connect from where, and whether with TLS \
             (sslmode)"
                .to_owned(),
        ),
        code if *code == SqlState::INVALID_CATALOG_NAME => (
            Kind::Refused,
            format!("{place} has no database '{database}'"),
            format!("create it (createdb {database}), or mend the database's name in DATABASE_URL"),
        ),
        code if *code == SqlState::TOO_MANY_CONNECTIONS => (
            Kind::Refused,
            format!("{place} has too many connections: {said}"),
            "wait for others to end, raise max_connections, or put a pooler such as PgBouncer in between".to_owned(),
        ),
        code if *code == SqlState::LOCK_NOT_AVAILABLE => (
            Kind::Refused,
            format!("{place}: somebody holds a table: {said}"),
            "see pg_stat_activity for who it is, and try again when they are done".to_owned(),
        ),
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => (
            Kind::Refused,
            format!("{place} does not let user '{user}' do that in database '{database}': {said}"),
            "use the tables' owner, or have granted what agent-checkpoint doctor names".to_owned(),
        ),
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION => (
            Kind::Refused,
            format!("{place} lets nobody write, as a standby does: {said}"),
            "name the primary's host; with several hosts, add target_session_attrs=read-write".to_owned(),
        ),
        code if *code == SqlState::QUERY_CANCELED => (
            Kind::Refused,
            format!("{place} was not done within the time that there was: {said}"),
            "see in pg_stat_activity what the server is busy with, and try again".to_owned(),
        ),
        code if *code == SqlState::UNDEFINED_COLUMN => (
            Kind::Refused,
            format!("{place}: a table of the audit trail is not as db migrate makes it: {said}"),
            "agent-checkpoint doctor names the columns that are missing".to_owned(),
        ),
        code if *code == SqlState::INVALID_COLUMN_REFERENCE => (
            Kind::Refused,
            format!("{place}: a table of the audit trail has no unique key by id alone: {said}"),
            "make id the primary key; a partitioned table has to be partitioned by id for that".to_owned(),
        ),
        code if not_ready.contains(code) => {
            (Kind::Unreachable, format!("{place} is not ready: {said}"), "wait until it is".to_owned())
        }
        code => (
            Kind::Refused,
            format!("{place} refused: {said} ({})", code.code()),
            "see the server's log, and PostgreSQL's table of error codes".to_owned(),
        ),
    };
    Trouble::new(kind, message, hint)
}
