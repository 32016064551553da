//! From connection parameters to a [`Database`]: the text's own, else libpq's variables, else its files and defaults.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::text::{Parameters, SHAPE};
use super::{
    APPLICATION_NAME, ChannelBinding, DEFAULT_PORT, Database, Encryption, Host, Keepalive, Place, Proof,
    Roots, Session, Surroundings, Tls, Versions, local_socket, passfile,
};
use crate::checkpoint::parse::Invalid;
use crate::config::Problem;
use crate::config::resolve::absolute;
use crate::exit::one_line;
use crate::secret::Secret;

/// libpq's variables, and the parameter that each fills in.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGDATABASE", "dbname"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGPASSFILE", "passfile"),
];

/// What only says how other programs connect, or has no meaning for this one.
const IGNORED: &[&str] = &[
    // libpq's own.
    "authtype",
    "client_encoding",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "replication",
    "sslcompression",
    "sslkeylogfile",
    "sslpassword",
    "tty",
    // Poolers and providers.
    "pgbouncer",
    "pool_mode",
    "supa",
    "workaround",
    // Other drivers.
    "connection_limit",
    "max_pool_size",
    "pool_size",
    "pool_timeout",
    "prepared_statement_cache_size",
    "prepareThreshold",
    "socket_timeout",
    "statement_cache_size",
    "uselibpqcompat",
];

/// What asks for a protection that we do not have: without it the connection would be less safe than was asked for.
const REFUSED: &[(&str, &str)] = &[
    ("sslcrl", "take it out; lists of revoked certificates are not supported"),
    ("sslcrldir", "take it out; lists of revoked certificates are not supported"),
    ("require_auth", "take it out; channel_binding=require and sslmode=verify-full guard the password"),
    ("requirepeer", "take it out; guard the socket's directory instead"),
    ("service", "write what the service file says into the URL"),
    ("sslidentity", "give sslcert and sslkey"),
];

/// What the text of `DATABASE_URL` says, and what it may be filled in from.
pub(super) struct Settings<'a> {
    pub(super) said: Parameters,
    pub(super) around: &'a Surroundings,
}

impl Settings<'_> {
    /// # Errors
    /// A parameter that cannot be honoured. Only what is no secret is quoted.
    pub(super) fn database(&self, warnings: &mut Vec<Problem>) -> Result<Database, Invalid> {
        self.refuse()?;
        warnings.extend(self.unknown());
        let ours = || (self.around.user)();
        let user = self.get("user").map(str::to_owned).or_else(ours);
        let user = user.ok_or_else(|| Invalid::new("names no user", SHAPE))?;
        let name = self.get("dbname").unwrap_or(&user).to_owned();
        let mut hosts = self.hosts()?;
        self.give_passwords(&mut hosts, &name, &user, warnings);
        Ok(Database {
            hosts,
            user,
            name,
            encryption: self.encryption()?,
            channel_binding: self.one_of(
                "channel_binding",
                &[
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ],
                ChannelBinding::Prefer,
            )?,
            // libpq: not given, zero and less mean without end.
            connect_timeout: self.seconds("connect_timeout")?,
            session: self.one_of(
                "target_session_attrs",
                &[
                    ("any", Session::Any),
                    ("read-write", Session::ReadWrite),
                    ("read-only", Session::ReadOnly),
                    ("primary", Session::Primary),
                    ("standby", Session::Standby),
                    ("prefer-standby", Session::PreferStandby),
                ],
                Session::Any,
            )?,
            balance: self.one_of("load_balance_hosts", &[("disable", false), ("random", true)], false)?,
            application_name: self
                .get("application_name")
                .or(self.get("fallback_application_name"))
                .unwrap_or(APPLICATION_NAME)
                .to_owned(),
            options: self.get("options").map(str::to_owned),
            keepalive: Keepalive {
                on: self.number("keepalives")? != Some(0),
                idle: self.seconds("keepalives_idle")?,
                interval: self.seconds("keepalives_interval")?,
                count: self
                    .number("keepalives_count")?
                    .and_then(|count| u32::try_from(count).ok())
                    .filter(|&count| count > 0),
                unacknowledged: self
                    .number("tcp_user_timeout")?
                    .and_then(|millis| u64::try_from(millis).ok())
                    .filter(|&millis| millis > 0)
                    .map(Duration::from_millis),
            },
        })
    }

    /// A parameter's value; empty ones are as good as none.
    fn get(&self, name: &str) -> Option<&str> {
        let variable = || {
            let (variable, _) = VARIABLES.iter().find(|(_, parameter)| *parameter == name)?;
            self.around.variables.get(variable)
        };
        self.said.get(name).or_else(variable).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// What whoever mends a parameter has to look for.
    fn source<'n>(&self, name: &'n str) -> &'n str {
        let variable = VARIABLES.iter().find(|(_, parameter)| *parameter == name);
        match variable {
            Some((variable, _)) if !self.said.contains_key(name) => variable,
            _ => name,
        }
    }

    fn wrong(&self, name: &str, value: &str, hint: impl Into<String>) -> Invalid {
        let value: String = one_line(value).chars().take(40).collect();
        Invalid::new(format!("is used with {} '{value}'", self.source(name)), hint)
    }

    fn one_of<T: Copy>(&self, name: &str, known: &[(&str, T)], default: T) -> Result<T, Invalid> {
        let Some(value) = self.get(name) else { return Ok(default) };
        known.iter().find(|(spelling, _)| *spelling == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let spellings: Vec<_> = known.iter().map(|(spelling, _)| *spelling).collect();
            self.wrong(name, value, format!("{name} is one of {}", spellings.join(", ")))
        })
    }

    /// As large as libpq's, so that no clock overflows.
    fn number(&self, name: &str) -> Result<Option<i32>, Invalid> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = |_| self.wrong(name, value, format!("{name} is a whole number"));
        value.trim().parse().map(Some).map_err(wrong)
    }

    /// Seconds, of which zero and less mean that nothing is set.
    fn seconds(&self, name: &str) -> Result<Option<Duration>, Invalid> {
        let seconds = self.number(name)?.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(seconds.filter(|&seconds| seconds > 0).map(Duration::from_secs))
    }

    fn refuse(&self) -> Result<(), Invalid> {
        let cannot = |name: &str, hint: &str| {
            Err(Invalid::new(format!("is used with {}, which is not supported", self.source(name)), hint))
        };
        for (name, hint) in REFUSED {
            if self.get(name).is_some() {
                return cannot(name, hint);
            }
        }
        if self.get("gssencmode") == Some("require") {
            return cannot("gssencmode", "use sslmode=verify-full instead of gssencmode=require");
        }
        if self.get("sslaccept") == Some("strict") {
            return cannot("sslaccept", "use sslmode=verify-full instead of sslaccept=strict");
        }
        Ok(())
    }

    /// Parameters that nobody knows: perhaps misspelt.
    fn unknown(&self) -> Option<Problem> {
        const READ: &[&str] = &[
            "fallback_application_name",
            "keepalives",
            "keepalives_idle",
            "keepalives_interval",
            "keepalives_count",
            "tcp_user_timeout",
            "requiressl",
            "sslaccept",
        ];
        let known = |name: &str| {
            let variables = VARIABLES.iter().map(|(_, parameter)| parameter);
            READ.iter().chain(IGNORED).chain(variables).any(|known| *known == name)
        };
        let unknown: Vec<_> =
            self.said.keys().filter(|name| !known(name)).map(|name| one_line(name)).collect();
        (!unknown.is_empty()).then(|| Problem {
            // A name that is none may be a part of a password.
            message: match unknown
                .iter()
                .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            {
                true => format!("the database's URL has unknown parameters: {}", unknown.join(", ")),
                false => "the database's URL has unknown parameters".to_owned(),
            },
            hint: "parameters have the names of libpq, such as sslmode".to_owned(),
            harmless: true,
        })
    }

    fn hosts(&self) -> Result<Vec<Host>, Invalid> {
        let list = |name: &str| -> Vec<&str> {
            self.get(name).map(|text| text.split(',').map(str::trim).collect()).unwrap_or_default()
        };
        let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
        let count = names.len().max(addresses.len()).max(1);
        if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
            let reason = format!("names {} hosts with {} addresses", names.len(), addresses.len());
            return Err(Invalid::new(reason, "give as many of hostaddr as of host"));
        }
        if ports.len() > 1 && ports.len() != count {
            let reason = format!("names {count} hosts with {} ports", ports.len());
            return Err(Invalid::new(reason, "give one port, or one for each host"));
        }
        (0..count)
            .map(|at| {
                let port = ports.get(at).or(ports.first()).copied().unwrap_or_default();
                let port = self.port(port)?;
                let name = names.get(at).copied().unwrap_or_default();
                let address = addresses.get(at).copied().filter(|address| !address.is_empty());
                Ok(Host { place: self.place(name, address, port)?, port, password: None })
            })
            .collect()
    }

    fn port(&self, text: &str) -> Result<u16, Invalid> {
        if text.is_empty() {
            return Ok(DEFAULT_PORT);
        }
        text.parse().ok().filter(|&port| port > 0).ok_or_else(|| match self.said.contains_key("port") {
            // What stands there may be a part of a password that holds a raw slash.
            true => Invalid::new(
                "has a port that is no number from 1 to 65535",
                "mend it; a / in a password is written as %2F",
            ),
            false => self.wrong("port", text, "a port is a number from 1 to 65535"),
        })
    }

    fn place(&self, name: &str, address: Option<&str>, port: u16) -> Result<Place, Invalid> {
        let parsed = |text: &str| {
            text.parse::<IpAddr>().map_err(|_| self.wrong("hostaddr", text, "hostaddr is an IP address"))
        };
        let address = address.map(parsed).transpose()?;
        if name.starts_with('/') && address.is_none() {
            return Ok(Place::Socket(PathBuf::from(name)));
        }
        if name.contains(['@', '/', ':']) && name.parse::<IpAddr>().is_err()
            || name.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(Invalid::new(
                "has a host that can be none",
                "write what has a meaning of its own in a URL as %XX: @ as %40, / as %2F",
            ));
        }
        match (name, address) {
            ("", Some(address)) => Ok(Place::Tcp { name: address.to_string(), address: Some(address) }),
            ("", None) => Ok(local_socket(port)
                .map_or_else(|| Place::Tcp { name: "localhost".to_owned(), address: None }, Place::Socket)),
            (name, address) => Ok(Place::Tcp { name: name.to_owned(), address }),
        }
    }

    /// A password of the URL or of `PGPASSWORD` is for every host, one of the password file for those that it names.
    fn give_passwords(&self, hosts: &mut [Host], name: &str, user: &str, warnings: &mut Vec<Problem>) {
        if let Some(password) = self.get("password") {
            hosts.iter_mut().for_each(|host| host.password = Some(Secret::new(password.to_owned())));
            return;
        }
        let default = || Some(self.around.home.as_ref()?.join(".pgpass"));
        let Some(path) = self.get("passfile").map(PathBuf::from).or_else(default) else { return };
        let text = match passfile::read(&path) {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(problem) => return warnings.push(problem),
        };
        for host in hosts {
            let port = host.port.to_string();
            let found = |place: &str| passfile::find(&text, [place, &port, name, user]);
            host.password = match &host.place {
                Place::Tcp { name, .. } => found(name),
                // libpq looks for its own default directory by the name of this machine.
                Place::Socket(dir) => found(&dir.to_string_lossy()).or_else(|| {
                    found("localhost")
                        .filter(|_| super::SOCKET_DIRS.iter().any(|known| dir == Path::new(known)))
                }),
            }
            .map(Secret::new);
        }
    }

    fn encryption(&self) -> Result<Encryption, Invalid> {
        let home = |name: &str| {
            let path = self.around.home.as_ref()?.join(".postgresql").join(name);
            path.exists().then_some(path)
        };
        let system = || Roots::System(self.around.authorities.clone());
        let named = self.get("sslrootcert");
        let roots = match named {
            Some("system") => system(),
            Some(path) => Roots::File(absolute(path)),
            None => home("root.crt").map_or_else(system, Roots::File),
        };
        let default = match (named, self.get("requiressl")) {
            (Some("system"), _) => (Tls::Require, Proof::Name),
            (_, Some("1")) => (Tls::Require, Proof::Nothing),
            _ => (Tls::Prefer, Proof::Nothing),
        };
        let (tls, mut proof) = self.one_of(
            "sslmode",
            &[
                ("disable", (Tls::Never, Proof::Nothing)),
                ("allow", (Tls::Allow, Proof::Nothing)),
                ("prefer", (Tls::Prefer, Proof::Nothing)),
                ("require", (Tls::Require, Proof::Nothing)),
                ("verify-ca", (Tls::Require, Proof::Authority)),
                ("verify-full", (Tls::Require, Proof::Name)),
                // As node-postgres spells it.
                ("no-verify", (Tls::Require, Proof::Nothing)),
            ],
            default,
        )?;
        let mode = self.get("sslmode").unwrap_or_default();
        if named == Some("system") && proof != Proof::Name {
            return Err(self.wrong("sslmode", mode, "sslrootcert=system goes with sslmode=verify-full only"));
        }
        // libpq: whoever names an authority wants it to be asked.
        if matches!(roots, Roots::File(_)) && proof == Proof::Nothing && mode != "no-verify" {
            proof = Proof::Authority;
        }
        let direct = self.one_of("sslnegotiation", &[("postgres", false), ("direct", true)], false)?;
        if direct && tls != Tls::Require {
            return Err(self.wrong(
                "sslnegotiation",
                "direct",
                "it goes with sslmode=require or stronger only",
            ));
        }
        Ok(Encryption {
            tls,
            proof,
            roots,
            direct,
            identity: self.identity(&home)?,
            names_host: self.one_of("sslsni", &[("0", false), ("1", true)], true)?,
            versions: self.versions()?,
        })
    }

    /// Our own certificate: the one that is named, else libpq's default file, where there is one.
    fn identity(
        &self,
        home: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> Result<Option<(PathBuf, PathBuf)>, Invalid> {
        let mode = self.one_of(
            "sslcertmode",
            &[("disable", Some(false)), ("allow", None), ("require", Some(true))],
            None,
        )?;
        let certificate = self.get("sslcert").map(absolute).or_else(|| home("postgresql.crt"));
        let key = self.get("sslkey").map(absolute).or_else(|| home("postgresql.key"));
        match (mode, certificate, key) {
            (Some(false), ..) | (None, None, _) => Ok(None),
            (Some(true), None, _) => Err(self.wrong(
                "sslcertmode",
                "require",
                "name a certificate with sslcert and its key with sslkey",
            )),
            (_, Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (_, Some(certificate), None) => Err(self.wrong(
                "sslcert",
                &certificate.display().to_string(),
                "name the certificate's key with sslkey",
            )),
        }
    }

    fn versions(&self) -> Result<Versions, Invalid> {
        const KNOWN: &[(&str, u8)] = &[("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.2", 2), ("TLSv1.3", 3)];
        let least = self.one_of("ssl_min_protocol_version", KNOWN, 2)?;
        let most = self.one_of("ssl_max_protocol_version", KNOWN, 3)?;
        match (least, most) {
            (..=2, 3) => Ok(Versions::Any),
            (3, 3) => Ok(Versions::Only13),
            (..=2, 2) => Ok(Versions::Only12),
            _ => {
                let value = self.get("ssl_max_protocol_version").unwrap_or_default();
                Err(self.wrong("ssl_max_protocol_version", value, "TLSv1.2 and TLSv1.3 are supported"))
            }
        }
    }
}
