//! Real PostgreSQL servers, thrown away with the test.
//!
//! [`Cluster::shared`] is one server for all tests of this program: TLS, passwords, a database for each test that asks.
//! [`Cluster::start`] is one of a test's own, to be stopped or broken. [`Pooler`] is a PgBouncer before one of them. No
//! server outlives the tests, whatever becomes of them: each has a guardian, a shell that waits for the end of a pipe
//! which only the test program holds open, then stops the server and removes its directory.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User, geteuid};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use x509_cert::certificate::{Certificate, Version};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, EncodePem};

/// The password of every user of a cluster.
pub(crate) const PASSWORD: &str = "s3cret pass:word@/?";
/// A name that the server's certificate is good for; no resolver knows it.
pub(crate) const NAME: &str = "db.checkpoint.invalid";

/// What the server's certificate is good for.
const SERVER_NAMES: &[&str] = &[NAME, "127.0.0.1"];

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the guardian does; its arguments are the signal that stops the server, its directory, and the server's command.
const GUARDIAN: &str = r#"signal=$1 dir=$2; shift 2
"$@" >"$dir/log" 2>&1 & server=$!
read -r _
kill -s "$signal" "$server" 2>/dev/null
wait "$server"
rm -rf "$dir""#;

/// Users of a cluster, and the lines of `pg_hba.conf` that let them in. All have the same password.
const USERS: &[(&str, &str)] = &[
    ("ana", "host all ana all scram-sha-256"),
    ("only_tls", "hostssl all only_tls all scram-sha-256"),
    ("only_plain", "hostnossl all only_plain all scram-sha-256"),
    ("trusted", "host all trusted all trust"),
    ("by_certificate", "hostssl all by_certificate all cert"),
    ("few", "host all few all scram-sha-256"),
    ("nobody_knows", ""),
];

/// A process with its guardian, and a directory that goes with them.
struct Guarded {
    dir: PathBuf,
    guardian: Child,
}

impl Guarded {
    /// An empty directory that the server's user owns.
    #[track_caller]
    fn directory() -> PathBuf {
        let dir = tempfile::Builder::new().prefix("checkpoint-pg-").tempdir().expect("a directory").keep();
        let (uid, gid) = servant();
        chown(&dir, Some(uid.as_raw()), Some(gid.as_raw())).expect("a directory of the server's user");
        dir
    }

    #[track_caller]
    fn start(signal: &str, dir: PathBuf, command: &mut Command) -> Self {
        let mut guardian = Command::new("/bin/sh");
        guardian.args(["-c", GUARDIAN, "guardian", signal]).arg(&dir);
        guardian.arg(command.get_program()).args(command.get_args());
        let guardian = as_servant(&mut guardian).stdin(Stdio::piped()).spawn().expect("a shell");
        Self { dir, guardian }
    }

    /// Waits until it is ready; false if it ended instead.
    #[track_caller]
    fn wait(&mut self, mut is_ready: impl FnMut() -> bool) -> bool {
        let since = Instant::now();
        while !is_ready() {
            let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(since.elapsed() < PATIENCE, "no server after {PATIENCE:?}: {}", log());
            if log().contains("could not bind") || log().contains("Address already in use") {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

/// Who servers run as, since they refuse to be root.
fn servant() -> (Uid, Gid) {
    if !geteuid().is_root() {
        return (geteuid(), nix::unistd::getegid());
    }
    let known = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
    let user = known.expect("a user other than root: postgres or nobody");
    (user.uid, user.gid)
}

fn as_servant(command: &mut Command) -> &mut Command {
    let (uid, gid) = servant();
    if geteuid().is_root() {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    // What interrupts the tests must not keep the guardian from its work.
    command.process_group(0).current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C")
}

/// One of PostgreSQL's programs, of the newest version that is installed, or from the directory that POSTGRESQL_BIN
/// names.
#[track_caller]
fn program(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("POSTGRESQL_BIN") {
            return PathBuf::from(dir);
        }
        let roots = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/usr", "/"];
        let version = |path: &Path| -> u32 {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.trim_start_matches("postgresql@").parse().unwrap_or(0)
        };
        let found = roots.iter().flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
        let mut dirs: Vec<PathBuf> =
            found.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists()).collect();
        dirs.sort_by_key(|path| version(path));
        dirs.pop().expect("PostgreSQL, which tests/run installs").join("bin")
    });
    dir.join(name)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// An authority made for the tests, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key: String,
}

impl Authority {
    /// With these names it may be the server itself.
    fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pair = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&pair).expect("a certificate").pem();
        let key = pair.serialize_pem();
        Self { issuer: Issuer::new(params, pair), pem, key }
    }

    /// A certificate and its key, as PEM.
    fn sign(&self, common_name: &str, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        (pem, key.serialize_pem())
    }
}

/// A PostgreSQL server.
pub(crate) struct Cluster {
    process: Guarded,
    port: u16,
    authority: Authority,
    databases: AtomicU32,
    /// The guardians of those that were started after one was killed.
    revived: Vec<Guarded>,
}

impl Cluster {
    /// The server that tests share, each with a database of its own.
    #[track_caller]
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of one's own.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let authority = Authority::new(&[]);
        let identity = authority.sign("the server", SERVER_NAMES);
        Self::with(authority, identity)
    }

    /// One whose certificate nobody else signed, as many a server has it.
    #[track_caller]
    pub(crate) fn start_self_signed() -> Self {
        let authority = Authority::new(SERVER_NAMES);
        let identity = (authority.pem.clone(), authority.key.clone());
        Self::with(authority, identity)
    }

    /// One whose certificate is of version 1, which has no names in it: what PostgreSQL's manual makes with OpenSSL 3.0.
    #[track_caller]
    pub(crate) fn start_with_version_1() -> Self {
        let authority = Authority::new(&[]);
        let (pem, key) = authority.sign(NAME, &[]);
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let mut certificate = Certificate::from_der(&certificate).expect("a certificate");
        certificate.tbs_certificate.version = Version::V1;
        certificate.tbs_certificate.extensions = None;
        // Its signature is wrong now, and nobody looks at it.
        let pem = certificate.to_pem(LineEnding::LF).expect("a certificate");
        Self::with(authority, (pem, key))
    }

    #[track_caller]
    fn with(authority: Authority, (certificate, key): (String, String)) -> Self {
        let dir = Guarded::directory();
        let data = dir.join("data");
        let mut initdb = Command::new(program("initdb"));
        initdb.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            // Small, so that a disk can be small too.
            "--wal-segsize=1",
            "--no-sync",
        ]);
        let made = as_servant(&mut initdb).output().expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

        let rules: String = USERS.iter().map(|(_, rule)| format!("{rule}\n")).collect();
        let rules = format!("local all postgres trust\nlocal all all scram-sha-256\n{rules}");
        for (name, text) in [
            ("server.crt", &certificate),
            ("server.key", &key),
            ("root.crt", &authority.pem),
            ("pg_hba.conf", &rules),
        ] {
            write_as_servant(&data.join(name), text);
        }
        for _ in 0..9 {
            let port = free_port();
            let process = Self::serve(dir.clone(), port);
            if let Some(process) = process {
                let cluster =
                    Self { process, port, authority, databases: AtomicU32::new(0), revived: Vec::new() };
                for (user, _) in USERS {
                    cluster.sql(&format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'"));
                }
                cluster.sql("ALTER ROLE few CONNECTION LIMIT 0");
                return cluster;
            }
        }
        panic!("there is no free port");
    }

    /// Starts the server in its directory; `None` if somebody took the port meanwhile.
    #[track_caller]
    fn serve(dir: PathBuf, port: u16) -> Option<Guarded> {
        let mut command = Command::new(program("postgres"));
        command.arg("-D").arg(dir.join("data"));
        for setting in [
            format!("port={port}"),
            format!("unix_socket_directories={}", dir.display()),
            "listen_addresses=127.0.0.1".to_owned(),
            "ssl=on".to_owned(),
            "ssl_ca_file=root.crt".to_owned(),
            "fsync=off".to_owned(),
            "full_page_writes=off".to_owned(),
            "password_encryption=scram-sha-256".to_owned(),
            "log_statement=all".to_owned(),
            // The database; its statements are found by it.
            "log_line_prefix=%d ".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        let mut process = Guarded::start("QUIT", dir.clone(), &mut command);
        let is_ready = || ask(&dir, port, "postgres", "SELECT 1").is_ok();
        if process.wait(is_ready) {
            return Some(process);
        }
        // Its directory is used again.
        let _ = process.guardian.kill();
        None
    }

    /// One on whose disk no file grows beyond 4 MiB, until [`Cluster::make_room`].
    #[track_caller]
    pub(crate) fn start_with_little_room() -> Self {
        let cluster = Self::start();
        cluster.limit_files("4194304");
        cluster
    }

    /// Ends the limit for connections that begin from now on.
    #[track_caller]
    pub(crate) fn make_room(&self) {
        self.limit_files("unlimited");
    }

    #[track_caller]
    fn limit_files(&self, bytes: &str) {
        let pid = self.pid().to_string();
        let fsize = format!("--fsize={bytes}:unlimited");
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &pid, &fsize]);
        let limited = as_servant(&mut prlimit).status().expect("prlimit");
        assert!(limited.success(), "{fsize}");
    }

    /// The server's first process.
    #[track_caller]
    fn pid(&self) -> i32 {
        let file =
            fs::read_to_string(self.process.dir.join("data/postmaster.pid")).expect("a running server");
        file.lines().next().and_then(|line| line.trim().parse().ok()).expect("its number")
    }

    /// Kills the server with its connections, as a power loss would.
    #[track_caller]
    pub(crate) fn kill(&self) {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in std::iter::once(pid).chain(children) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let since = Instant::now();
        while ask(&self.process.dir, self.port, "postgres", "SELECT 1").is_ok() {
            assert!(since.elapsed() < PATIENCE, "the server goes on");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again after [`Cluster::kill`], on the same port.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let dir = self.process.dir.clone();
        // Its guardian has not noticed the death of the first one, so that these say it is alive.
        fs::remove_file(dir.join("data/postmaster.pid")).expect("the file of the one that was killed");
        let _ = fs::remove_file(dir.join(format!(".s.PGSQL.{}.lock", self.port)));
        // The log of the one that was killed says that it was ready.
        let process = Self::serve(dir, self.port).expect("the port");
        self.revived.push(process);
    }

    /// What a statement of the superuser answers, one row a line, its columns separated by `|`.
    #[track_caller]
    pub(crate) fn sql(&self, statement: &str) -> String {
        ask(&self.process.dir, self.port, "postgres", statement)
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// The same in another database than the superuser's.
    #[track_caller]
    pub(crate) fn sql_in(&self, database: &str, statement: &str) -> String {
        self.try_in(database, statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// The same, or what the server says against it.
    pub(crate) fn try_in(&self, database: &str, statement: &str) -> Result<String, String> {
        ask(&self.process.dir, self.port, database, statement)
    }

    /// A new and empty database, which belongs to the user `ana`.
    #[track_caller]
    pub(crate) fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.sql(&format!("CREATE DATABASE {name} OWNER ana"));
        name
    }

    /// What was said to a database so far: each statement after `statement: `, or after `execute NAME: ` where it had a
    /// name, `<unnamed>` without one.
    #[track_caller]
    pub(crate) fn statements(&self, database: &str) -> Vec<String> {
        let log = fs::read_to_string(self.process.dir.join("log")).expect("the server's log");
        let prefix = format!("{database} LOG:  ");
        log.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its Unix socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.process.dir
    }

    /// The URL for a user and a database.
    pub(crate) fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}:{}@127.0.0.1:{}/{database}", encoded(PASSWORD), self.port)
    }

    /// The authority's certificate as PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.authority.pem
    }

    /// Takes TLS off each connection to a port and hands on what is in it, for clients that begin with TLS at once: what
    /// PostgreSQL 17 does by itself.
    #[track_caller]
    pub(crate) fn unwrap_tls(&self) -> u16 {
        let (certificate, key) = self.authority.sign("the front", SERVER_NAMES);
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![certificate], key);
        let mut config = config.expect("a usable certificate");
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let (config, upstream) = (Arc::new(config), self.port);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its number").port();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let config = Arc::clone(&config);
                thread::spawn(move || hand_on(client, config, upstream));
            }
        });
        port
    }

    /// A certificate for a user, and its key, as PEM.
    pub(crate) fn certificate(&self, user: &str) -> (String, String) {
        self.authority.sign(user, &[])
    }
}

/// Hands on what either side says, until one of them ends.
fn hand_on(client: TcpStream, config: Arc<ServerConfig>, upstream: u16) -> std::io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut client = StreamOwned::new(connection, client);
    client.conn.complete_io(&mut client.sock)?;
    // PostgreSQL asks for it.
    if client.conn.alpn_protocol() != Some(b"postgresql") {
        return Ok(());
    }
    let turn = Some(Duration::from_millis(5));
    client.sock.set_read_timeout(turn)?;
    server.set_read_timeout(turn)?;
    let mut bytes = [0; 4096];
    loop {
        match client.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => server.write_all(&bytes[..count])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        match server.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => client.write_all(&bytes[..count])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        client.flush()?;
    }
}

/// An authority's certificate that signed nothing.
pub(crate) fn strange_authority() -> String {
    Authority::new(&[]).pem
}

/// As a part of a URL.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn ask(dir: &Path, port: u16, database: &str, statement: &str) -> Result<String, String> {
    let mut psql = Command::new(program("psql"));
    psql.env_clear().args([
        "-X",
        "-A",
        "-t",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-U",
        "postgres",
        "-d",
        database,
    ]);
    let output = psql.arg("-h").arg(dir).args(["-p", &port.to_string(), "-c", statement]).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A file that its owner alone may read, as servers ask for keys.
#[track_caller]
fn write_as_servant(path: &Path, text: &str) {
    let mut tee = Command::new("/bin/sh");
    tee.args(["-c", "umask 077; cat >\"$0\""]).arg(path);
    let mut tee = as_servant(&mut tee).stdin(Stdio::piped()).spawn().expect("a shell");
    tee.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("to write");
    assert!(tee.wait().expect("its end").success(), "{}", path.display());
}

/// A PgBouncer that gives each transaction any of a server's connections.
pub(crate) struct Pooler {
    _process: Guarded,
    port: u16,
}

impl Pooler {
    /// For the user `ana` of this server.
    #[track_caller]
    pub(crate) fn start(cluster: &Cluster) -> Self {
        for _ in 0..9 {
            let (dir, port) = (Guarded::directory(), free_port());
            let settings = format!(
                "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
                 default_pool_size = 2\nlogfile =\npidfile =\n",
                cluster.socket_dir().display(),
                cluster.port(),
                dir.join("users").display(),
            );
            write_as_servant(&dir.join("settings"), &settings);
            write_as_servant(&dir.join("users"), &format!("\"ana\" \"{PASSWORD}\"\n"));
            let paths = ["/usr/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
            let program = paths.into_iter().find(|path| Path::new(path).exists());
            let mut command = Command::new(program.expect("PgBouncer, which tests/run installs"));
            command.arg(dir.join("settings"));
            let mut process = Guarded::start("TERM", dir, &mut command);
            if process.wait(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()) {
                return Self { _process: process, port };
            }
        }
        panic!("there is no free port");
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://ana:{}@127.0.0.1:{}/{database}", encoded(PASSWORD), self.port)
    }
}
