//! The connection to PostgreSQL, as `doctor` reports it: every setting, and every way to fail.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::cluster::{Cluster, NAME, PASSWORD, Pooler, encoded, strange_authority};
use crate::scene::side_by_side;
use crate::support::{Output, Run, Sandbox};

/// What `doctor` says of the database: verdict, message and hint.
struct Said {
    verdict: String,
    message: String,
    hint: String,
    output: Output,
}

/// Runs `doctor`, which must not show the password.
#[track_caller]
fn said(run: Run<'_>) -> Said {
    let output = run.run().lacks(PASSWORD).lacks(&encoded(PASSWORD));
    let report = output.json();
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["check"] == "database");
    let check = check.unwrap_or_else(|| panic!("no check of the database\n{output}"));
    let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
    let (verdict, message, hint) = (text("verdict"), text("message"), text("hint"));
    assert_eq!(hint.is_empty(), verdict == "ok", "{check}");
    let failed = checks.iter().any(|check| check["verdict"] == "fail");
    assert_eq!(output.code, Some(if failed { 78 } else { 0 }), "{output}");
    Said { verdict, message, hint, output }
}

#[track_caller]
fn doctor(sandbox: &Sandbox, url: &str) -> Said {
    said(sandbox.cmd(["doctor", "--json"]).env("DATABASE_URL", url))
}

/// The connection stands, and the line on it ends like this.
#[track_caller]
fn assert_connected(said: &Said, end: &str) {
    assert_eq!(said.verdict, "ok", "{}", said.message);
    assert!(said.message.ends_with(end), "{}", said.message);
}

#[track_caller]
fn assert_failed(said: &Said, message: &str, hint: &str) {
    assert_eq!(said.verdict, "fail", "{}", said.message);
    assert!(said.message.contains(message), "{}", said.message);
    assert!(said.hint.contains(hint), "{}", said.hint);
}

const PLAIN: &str = ", not encrypted, on this machine";
const UNCHECKED: &str = ", TLS; the certificate is not checked (sslmode=verify-full does)";
const AUTHORITY: &str = ", TLS; the certificate's authority is checked";
const FULL: &str = ", TLS; the certificate's authority and name are checked";

#[test]
fn doctor_shows_host_database_version_and_protection() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let database = cluster.database();
    let version = cluster.sql("SHOW server_version");
    let place = format!("127.0.0.1:{}/{database}: PostgreSQL {version}", cluster.port());
    let found = doctor(&sandbox, &cluster.url("ana", &database));
    assert_eq!(found.message, format!("{place}{UNCHECKED}"));
    let socket = format!(
        "host={} port={} user=ana password='{PASSWORD}' dbname={database} sslmode=verify-full",
        cluster.socket_dir().display(),
        cluster.port()
    );
    assert_connected(&doctor(&sandbox, &socket), ", by a socket of this machine");
    sandbox.env("DATABASE_URL", cluster.url("ana", &database));
    sandbox.cmd(["db", "migrate"]).run().success();
    let page = sandbox.cmd(["doctor"]).run().success().stderr_is("");
    page.stdout_has(&format!("ok   database     {place}"))
        .stdout_has("database_url           (set) (environment)");
    // Without a database there is nothing to say.
    let page = sandbox.cmd(["doctor"]).env_remove("DATABASE_URL").env("PGHOST", "127.0.0.1").run().success();
    page.lacks("database");
}

#[test]
fn certificates_that_never_come_or_never_end_hold_nobody_up() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let pipe = sandbox.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
    let pipe = pipe.display().to_string();
    for (file, why) in
        [(pipe.as_str(), "it does not end within 1 s"), ("/dev/zero", "it is larger than 16 MiB")]
    {
        let query = format!("sslmode=verify-full&sslrootcert={file}");
        let found = doctor(&sandbox, &format!("{}?{query}", cluster.url("ana", "postgres")));
        assert_failed(&found, &format!("could not use sslrootcert {file}: {why}"), "");
    }
}

#[test]
fn every_sslmode_encrypts_and_checks_what_libpq_does() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let own = sandbox.write("own.pem", cluster.authority()).display().to_string();
    let other = sandbox.write("other.pem", strange_authority()).display().to_string();
    let unreadable = sandbox.path().join("nowhere.pem").display().to_string();
    let distrust = "nobody who is trusted signed its certificate";
    for (user, query, expected) in [
        ("ana", "sslmode=disable".to_owned(), Ok(PLAIN)),
        ("ana", "sslmode=allow".to_owned(), Ok(PLAIN)),
        ("ana", "sslmode=prefer".to_owned(), Ok(UNCHECKED)),
        ("ana", "sslmode=require".to_owned(), Ok(UNCHECKED)),
        (
            "only_tls",
            "sslmode=disable".to_owned(),
            Err("does not let user 'only_tls' into database 'postgres'"),
        ),
        ("only_tls", "sslmode=allow".to_owned(), Ok(UNCHECKED)),
        ("only_plain", "sslmode=prefer".to_owned(), Ok(PLAIN)),
        ("only_plain", "sslmode=require".to_owned(), Err("does not let user 'only_plain' into database")),
        ("ana", format!("sslmode=require&sslrootcert={own}"), Ok(AUTHORITY)),
        ("ana", format!("sslmode=require&sslrootcert={other}"), Err(distrust)),
        ("ana", format!("sslmode=verify-ca&sslrootcert={own}"), Ok(AUTHORITY)),
        ("ana", format!("sslmode=verify-full&sslrootcert={own}"), Ok(FULL)),
        ("ana", format!("sslmode=verify-full&sslrootcert={other}"), Err(distrust)),
        // libpq too goes on without, where it only prefers TLS.
        ("ana", format!("sslmode=prefer&sslrootcert={other}"), Ok(PLAIN)),
        ("ana", "sslmode=verify-full".to_owned(), Err(distrust)),
        ("ana", "sslrootcert=system".to_owned(), Err(distrust)),
        ("ana", format!("sslmode=verify-full&sslrootcert={unreadable}"), Err("could not use sslrootcert /")),
        ("ana", "sslmode=require&ssl_min_protocol_version=TLSv1.3".to_owned(), Ok(UNCHECKED)),
        ("ana", "sslmode=require&ssl_max_protocol_version=TLSv1.2".to_owned(), Ok(UNCHECKED)),
    ] {
        let found = doctor(&sandbox, &format!("{}?{query}", cluster.url(user, "postgres")));
        match expected {
            Ok(end) => assert_connected(&found, end),
            Err(message) => assert_failed(&found, message, ""),
        }
    }
    let url = format!("{}?sslmode=verify-full", cluster.url("ana", "postgres"));
    for (name, value) in [("SSL_CERT_FILE", &own), ("PGSSLROOTCERT", &own)] {
        assert_connected(
            &said(sandbox.cmd(["doctor", "--json"]).env("DATABASE_URL", &url).env(name, value)),
            FULL,
        );
    }
    // A file for Slack's certificates does not make the database's be checked.
    let url = format!("{}?sslmode=require", cluster.url("ana", "postgres"));
    let run = sandbox.cmd(["doctor", "--json"]).env("DATABASE_URL", &url).env("SSL_CERT_FILE", &other);
    assert_connected(&said(run), UNCHECKED);
}

#[test]
fn the_name_in_the_certificate_is_that_of_the_host_not_of_its_address() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let own = sandbox.write("own.pem", cluster.authority());
    let url = |host: &str, mode: &str| {
        format!(
            "postgres://ana:{}@{host}:{}/postgres?hostaddr=127.0.0.1&sslmode={mode}&sslrootcert={}",
            encoded(PASSWORD),
            cluster.port(),
            own.display()
        )
    };
    let found = doctor(&sandbox, &url(NAME, "verify-full"));
    assert_connected(&found, FULL);
    assert!(found.message.starts_with(NAME), "{}", found.message);
    let found = doctor(&sandbox, &url("other.invalid", "verify-full"));
    assert_failed(&found, "its certificate is for another host; the names in it: ", "sslmode=verify-ca");
    assert!(found.message.contains(NAME), "{}", found.message);
    assert_connected(&doctor(&sandbox, &url("other.invalid", "verify-ca")), AUTHORITY);
}

#[test]
fn a_certificate_that_a_server_signed_itself_is_trusted_where_it_is_named() {
    let sandbox = Sandbox::new();
    let own = Cluster::start_self_signed();
    let file = sandbox.write("server.pem", own.authority());
    for (mode, host, expected) in [
        ("verify-full", NAME, Ok(FULL)),
        ("verify-ca", "other.invalid", Ok(AUTHORITY)),
        ("verify-full", "other.invalid", Err("its certificate is for another host")),
    ] {
        let found = doctor(
            &sandbox,
            &format!(
                "postgres://ana:{}@{host}:{}/postgres?hostaddr=127.0.0.1&sslmode={mode}&sslrootcert={}",
                encoded(PASSWORD),
                own.port(),
                file.display()
            ),
        );
        match expected {
            Ok(end) => assert_connected(&found, end),
            Err(message) => assert_failed(&found, message, "subjectAltName"),
        }
    }
}

#[test]
fn an_old_certificate_encrypts_and_proves_nothing() {
    let (cluster, sandbox) = (Cluster::start_with_version_1(), Sandbox::new());
    let own = sandbox.write("own.pem", cluster.authority());
    let url = |query: &str| format!("{}?{query}", cluster.url("ana", "postgres"));
    for query in ["sslmode=prefer", "sslmode=require&channel_binding=require"] {
        assert_connected(&doctor(&sandbox, &url(query)), UNCHECKED);
    }
    let found = doctor(&sandbox, &url(&format!("sslmode=verify-ca&sslrootcert={}", own.display())));
    assert_failed(&found, "its certificate is of version 1", "subjectAltName");
}

#[test]
fn a_certificate_of_ones_own_opens_the_door() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let (certificate, key) = cluster.certificate("by_certificate");
    let (_, foreign) = cluster.certificate("ana");
    let certificate = sandbox.write("client.pem", certificate).display().to_string();
    let key = sandbox.write("client.key", key).display().to_string();
    let foreign = sandbox.write("foreign.key", foreign).display().to_string();
    let url = format!("{}?sslmode=require", cluster.url("by_certificate", "postgres"));
    assert_connected(&doctor(&sandbox, &format!("{url}&sslcert={certificate}&sslkey={key}")), UNCHECKED);
    for (query, message) in [
        (String::new(), "certificate"),
        (format!("&sslcert={certificate}&sslkey={certificate}"), "it holds no key that can be read"),
        (format!("&sslcert={certificate}&sslkey={foreign}"), "could not use sslkey"),
        (format!("&sslcert={key}&sslkey={key}"), "could not use sslcert"),
    ] {
        assert_failed(&doctor(&sandbox, &format!("{url}{query}")), message, "");
    }
}

#[test]
fn a_password_can_be_tied_to_the_certificate() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let url = |user: &str, query: &str| format!("{}?{query}", cluster.url(user, "postgres"));
    for query in [
        "sslmode=require&channel_binding=require",
        "sslmode=require&channel_binding=prefer",
        "sslmode=require&channel_binding=disable",
    ] {
        assert_connected(&doctor(&sandbox, &url("ana", query)), UNCHECKED);
    }
    for (user, query) in [
        ("ana", "sslmode=disable&channel_binding=require"),
        ("trusted", "sslmode=require&channel_binding=require"),
    ] {
        assert_failed(
            &doctor(&sandbox, &url(user, query)),
            "cannot tie the password to its certificate",
            "sslmode",
        );
    }
}

#[test]
fn every_failure_says_what_failed_where_and_how_to_mend_it() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let port = cluster.port();
    let place = format!("127.0.0.1:{port}");
    let with = |user: &str, password: &str, database: &str| {
        format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
    };
    let missing = cluster.socket_dir().join("missing");
    for (url, message, hint) in [
        (
            with("ana", "wr0ng-password", "postgres"),
            format!("{place} refused the password of user 'ana'"),
            "mend user or password in DATABASE_URL",
        ),
        (
            format!("postgres://ana@{place}/postgres"),
            format!("{place} asks for a password and none is configured"),
            "PGPASSWORD",
        ),
        (
            cluster.url("ana", "nowhere"),
            format!("{place} has no database 'nowhere'"),
            "create it (createdb nowhere)",
        ),
        (
            cluster.url("nobody_knows", "postgres"),
            format!(
                "{place} does not let user 'nobody_knows' into database 'postgres': no pg_hba.conf entry"
            ),
            "pg_hba.conf",
        ),
        (
            cluster.url("few", "postgres"),
            format!("{place} has too many connections: "),
            "put a pooler such as PgBouncer in between",
        ),
        (
            "postgres://ana@127.0.0.1:1/x".to_owned(),
            "127.0.0.1:1 refused the connection".to_owned(),
            "that the server runs and listens there",
        ),
        (
            "postgres://ana@db.invalid/x".to_owned(),
            "could not find host db.invalid".to_owned(),
            "check the host's name",
        ),
        (
            format!("host={} user=ana", missing.display()),
            format!("there is no socket {}/.s.PGSQL.5432", missing.display()),
            "check the socket's directory",
        ),
        (
            cluster.url("ana", "postgres") + "?options=-c%20nonsense%3Dx",
            format!("{place} refused: unrecognized configuration parameter"),
            "see the server's log",
        ),
    ] {
        let found = doctor(&sandbox, &url);
        assert_eq!(found.verdict, "fail", "{}", found.message);
        assert!(found.message.starts_with(&message), "{message}: {}", found.message);
        assert!(found.hint.contains(hint), "{hint}: {}", found.hint);
        found.output.lacks("wr0ng-password");
    }
}

/// A server that reads what begins a connection, answers it, and is silent from then on.
fn silent(answers: &'static [&'static [u8]]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("its number").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut stream = stream;
                let mut asked = [0; 4096];
                for answer in answers {
                    if stream.read(&mut asked).is_err() || stream.write_all(answer).is_err() {
                        return;
                    }
                }
                while stream.read(&mut asked).is_ok_and(|count| count > 0) {}
            });
        }
    });
    port
}

#[test]
fn nothing_hangs_beyond_the_deadline() {
    let rows: [(&str, &'static [&'static [u8]]); 5] = [
        ("sslmode=disable", &[]),
        ("sslmode=require", &[]),
        // Offers TLS and says no more.
        ("sslmode=require", &[b"S"]),
        ("sslmode=prefer", &[b"N", b"R\0\0\0\x08\0\0\0\x03"]),
        // Lets us in, and then leaves the question without an answer.
        ("sslmode=disable", &[b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"]),
    ];
    side_by_side(rows, |(query, answers)| {
        let sandbox = Sandbox::new();
        let port = silent(answers);
        let url = format!("postgres://ana:{}@127.0.0.1:{port}/x?{query}", encoded(PASSWORD));
        let run = sandbox.cmd(["doctor", "--json", "--deadline", "700ms"]).env("DATABASE_URL", url);
        let found = said(run);
        assert_failed(&found, &format!("127.0.0.1:{port} did not answer within 0."), "--deadline");
        found.output.within(Duration::from_secs(8));
    });
}

#[test]
fn a_host_that_is_silent_leaves_time_for_the_next() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let port = silent(&[]);
    let password = encoded(PASSWORD);
    let places = format!("127.0.0.1:1,127.0.0.1:{port},127.0.0.1:{}", cluster.port());
    for (query, extra) in [("", ""), ("?connect_timeout=1", ""), ("", "1"), ("?connect_timeout=0", "")] {
        let url = format!("postgres://ana:{password}@{places}/postgres{query}");
        let found =
            said(sandbox.cmd(["doctor", "--json"]).env("DATABASE_URL", url).env("PGCONNECT_TIMEOUT", extra));
        assert_connected(&found, UNCHECKED);
        assert!(found.message.starts_with(&format!("127.0.0.1:{}/", cluster.port())), "{}", found.message);
    }
    let url =
        format!("{}?connect_timeout=2147483647&tcp_user_timeout=2147483647", cluster.url("ana", "postgres"));
    assert_connected(&doctor(&sandbox, &url), UNCHECKED);
    // One that refuses us is the end, as with libpq.
    let url = format!("postgres://ana:wrong-word@127.0.0.1:{0},127.0.0.1:1/postgres", cluster.port());
    let found = doctor(&sandbox, &url);
    assert_failed(&found, "refused the password of user 'ana'", "");
    assert!(!found.message.contains("127.0.0.1:1 "), "{}", found.message);
    // Where nobody answers, all are named.
    let found = doctor(&sandbox, "postgres://ana@127.0.0.1:1,127.0.0.1:2,db.invalid/x");
    assert_failed(
        &found,
        "127.0.0.1:1 refused the connection; 127.0.0.1:2 refused the connection; could not find host db.invalid",
        "",
    );
}

#[test]
fn a_server_is_chosen_by_what_it_is() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let (writable, read_only) = (cluster.database(), cluster.database());
    cluster.sql(&format!("ALTER DATABASE {read_only} SET default_transaction_read_only = on"));
    for (database, wanted, refusal) in [
        (&writable, "any", None),
        (&writable, "read-write", None),
        (&writable, "read-only", Some("is not read-only")),
        (&writable, "primary", None),
        (&writable, "standby", Some("is not a standby")),
        (&writable, "prefer-standby", None),
        (&read_only, "read-write", Some("is not read-write")),
        (&read_only, "read-only", None),
    ] {
        let url = format!("{}?target_session_attrs={wanted}", cluster.url("ana", database));
        let found = doctor(&sandbox, &url);
        match refusal {
            None => assert_connected(&found, UNCHECKED),
            Some(message) => assert_failed(&found, message, "target_session_attrs"),
        }
    }
}

#[test]
fn what_the_url_leaves_out_comes_from_libpqs_variables_and_password_file() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let database = cluster.database();
    let port = cluster.port().to_string();
    sandbox.env("DATABASE_URL", "postgres://").env("PGHOST", "127.0.0.1").env("PGPORT", &port);
    sandbox.env("PGUSER", "ana").env("PGDATABASE", &database).env("PGAPPNAME", "by-variable");
    let json = || sandbox.cmd(["doctor", "--json"]);
    assert_failed(&said(json()), "asks for a password and none is configured", "");
    assert_connected(&said(json().env("PGPASSWORD", PASSWORD)), UNCHECKED);
    assert_connected(&said(json().env("PGPASSWORD", PASSWORD).env("PGSSLMODE", "disable")), PLAIN);

    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    let file =
        sandbox.write(sandbox.home().join(".pgpass"), format!("127.0.0.1:*:{database}:ana:{escaped}\n"));
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its mode");
    mode(0o600);
    assert_connected(&said(json()), UNCHECKED);
    mode(0o644);
    let found = said(json());
    assert_failed(&found, "asks for a password and none is configured", "");
    found.output.stdout_has(".pgpass can be read by others; it is passed over");
}

#[test]
fn the_url_may_come_from_a_file_and_neon_s_name_is_second() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let url = cluster.url("ana", "postgres");
    let file = sandbox.write("url", format!("{url}\n"));
    assert_connected(&doctor(&sandbox, &format!("file:{}", file.display())), UNCHECKED);
    let neon = sandbox.cmd(["doctor", "--json"]).env("NEON_DATABASE_URL", &url);
    assert_connected(&said(neon), UNCHECKED);
    // One that is broken is not replaced.
    let both = sandbox.cmd(["doctor", "--json"]).env("NEON_DATABASE_URL", &url);
    let found = said(both.env("DATABASE_URL", "file:/nowhere/url"));
    assert_failed(&found, "it cannot be used", "mend the setting named above");
    found.output.stdout_has("DATABASE_URL: the value names the file '/nowhere/url', which could not be read");
}

#[test]
fn a_wrong_url_breaks_no_caller_and_is_named_without_its_password() {
    let sandbox = Sandbox::new();
    let url = "postgres://ana:s3cret-pass/word@db/x";
    let words = "DATABASE_URL: the value has an @ behind the / that ends its host; the database is not used until it is \
                 mended";
    for (args, code) in [(vec!["emit", "one"], 0), (vec!["emit", "--strict", "one"], 78), (vec!["flush"], 78)]
    {
        let output = sandbox.cmd(args).env("DATABASE_URL", url).run().code(code);
        output.stderr_has(words).lacks("s3cret-pass").lacks("word@db");
    }
    // Also what an agent repeats of it is masked.
    let run = sandbox.cmd(["emit", "--json", "connecting to postgres://ana:s3cret-pass/word@db/x"]);
    run.env("DATABASE_URL", url).run().success().lacks("s3cret-pass");
}

#[test]
fn a_transaction_pooler_is_as_good_as_a_server() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let pooler = Pooler::start(cluster);
    let database = cluster.database();
    for _ in 0..3 {
        assert_connected(&doctor(&sandbox, &pooler.url(&database)), PLAIN);
    }
    assert_connected(&doctor(&sandbox, &(pooler.url(&database) + "?pgbouncer=true&sslmode=prefer")), PLAIN);
    let found = doctor(&sandbox, &(pooler.url(&database) + "?sslmode=require"));
    assert_failed(&found, "offers no TLS", "sslmode=disable");
}

#[test]
fn nothing_is_named_or_set_in_a_session() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let database = cluster.database();
    let url = format!("{}?target_session_attrs=read-write", cluster.url("ana", &database));
    assert_connected(&doctor(&sandbox, &url), UNCHECKED);
    let said = cluster.statements(&database);
    let unnamed = |line: &&String| line.starts_with("execute <unnamed>: SELECT ");
    let plain = |line: &String| line.strip_prefix("statement: ").map(str::to_owned);
    let mut plain: Vec<String> = said.iter().filter_map(plain).collect();
    // Set for the transaction alone.
    plain.retain(|line| !line.starts_with("SET LOCAL lock_timeout = "));
    let expected = [
        "SHOW transaction_read_only",
        "START TRANSACTION",
        "SELECT coalesce(max(version), 0) FROM agent_checkpoint_schema",
        "ROLLBACK",
    ];
    assert_eq!(plain, expected, "{said:#?}");
    assert_eq!((said.iter().filter(unnamed).count(), said.len()), (2, 7), "{said:#?}");
}

#[test]
fn a_server_that_is_stopped_and_started_is_told_of_as_it_is() {
    let sandbox = Sandbox::new();
    let cluster = Cluster::start();
    let url = cluster.url("ana", "postgres");
    assert_connected(&doctor(&sandbox, &url), UNCHECKED);
    let port = cluster.port();
    drop(cluster);
    assert_failed(&doctor(&sandbox, &url), &format!("127.0.0.1:{port} refused the connection"), "");
}

#[test]
fn tls_may_begin_at_once() {
    let (cluster, sandbox) = (Cluster::shared(), Sandbox::new());
    let port = cluster.unwrap_tls();
    let own = sandbox.write("own.pem", cluster.authority());
    let url = format!(
        "postgres://ana:{}@127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert={}",
        encoded(PASSWORD),
        own.display()
    );
    assert_connected(&doctor(&sandbox, &format!("{url}&sslnegotiation=direct")), FULL);
    // PostgreSQL before 17 wants to be asked first.
    let url = format!("{}?sslmode=require&sslnegotiation=direct", cluster.url("ana", "postgres"));
    if cluster.sql("SHOW server_version_num").parse::<u32>().is_ok_and(|version| version < 170_000) {
        assert_failed(&doctor(&sandbox, &url), "could not speak TLS with 127.0.0.1", "sslnegotiation");
    }
}
