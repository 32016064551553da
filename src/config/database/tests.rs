//! What a connection's settings come to, and what is refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn around(variables: &[(&'static str, &str)]) -> Surroundings {
    Surroundings {
        variables: variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        home: None,
        user: || Some("system-user".to_owned()),
        authorities: Authorities::default(),
    }
}

fn resolved(text: &str, around: &Surroundings) -> Database {
    let Read { database, warnings, .. } = read(text, around);
    assert_eq!(warnings, [], "{text}");
    database.unwrap_or_else(|invalid| panic!("{text}: {invalid}"))
}

fn hosts(database: &Database) -> Vec<String> {
    let password =
        |host: &Host| host.password.as_ref().map_or("-".to_owned(), |secret| secret.reveal().to_owned());
    database.hosts.iter().map(|host| format!("{host} {}", password(host))).collect()
}

#[test]
fn the_url_goes_before_the_variables_and_they_before_the_defaults() {
    let all = [
        ("PGHOST", "env-host"),
        ("PGPORT", "5999"),
        ("PGUSER", "env-user"),
        ("PGPASSWORD", "env-secret"),
        ("PGDATABASE", "env-db"),
        ("PGAPPNAME", "env-app"),
        ("PGOPTIONS", "-c a=b"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGTARGETSESSIONATTRS", "read-write"),
        ("PGCHANNELBINDING", "require"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/ca.pem"),
    ];
    let filled = resolved("postgres://", &around(&all));
    assert_eq!(hosts(&filled), ["env-host:5999 env-secret"]);
    assert_eq!((filled.user.as_str(), filled.name.as_str()), ("env-user", "env-db"));
    assert_eq!((filled.application_name.as_str(), filled.options.as_deref()), ("env-app", Some("-c a=b")));
    assert_eq!(filled.connect_timeout, Some(Duration::from_secs(7)));
    assert_eq!((filled.session, filled.channel_binding), (Session::ReadWrite, ChannelBinding::Require));
    assert_eq!(
        (filled.encryption.proof, filled.encryption.roots),
        (Proof::Name, Roots::File("/ca.pem".into()))
    );

    let text = "postgres://ana:s3cret@db:5433/app?application_name=app&options=x&connect_timeout=3\
                &target_session_attrs=standby&channel_binding=disable&sslmode=disable&sslrootcert=/own.pem";
    let said = resolved(text, &around(&all));
    assert_eq!(hosts(&said), ["db:5433 s3cret"]);
    assert_eq!((said.user.as_str(), said.name.as_str()), ("ana", "app"));
    assert_eq!((said.application_name.as_str(), said.options.as_deref()), ("app", Some("x")));
    assert_eq!(said.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!((said.session, said.channel_binding), (Session::Standby, ChannelBinding::Disable));
    assert_eq!(said.encryption.tls, Tls::Never);

    let bare = resolved("postgres://db", &around(&[("PGPASSWORD", "")]));
    assert_eq!(hosts(&bare), ["db:5432 -"]);
    assert_eq!((bare.user.as_str(), bare.name.as_str()), ("system-user", "system-user"));
    assert_eq!((bare.application_name.as_str(), bare.options), ("agent-checkpoint", None));
    assert_eq!((bare.connect_timeout, bare.session), (None, Session::Any));
    let Encryption { tls, proof, roots, direct, identity, names_host, versions } = bare.encryption;
    assert_eq!((tls, proof, roots), (Tls::Prefer, Proof::Nothing, Roots::System(Authorities::default())));
    assert_eq!((direct, identity, names_host, versions), (false, None, true, Versions::Any));
}

#[test]
fn hosts_addresses_and_ports_belong_together() {
    for (text, expected) in [
        ("postgres://u:p@a:1,b,[::1]:3/x", vec!["a:1 p", "b:5432 p", "[::1]:3 p"]),
        ("host=a,b port=7 user=u", vec!["a:7 -", "b:7 -"]),
        ("host=a,b hostaddr=10.0.0.1,::2 port=7,", vec!["a:7 -", "b:5432 -"]),
        ("hostaddr=10.0.0.1 user=u", vec!["10.0.0.1:5432 -"]),
        ("postgres://%2Frun%2Fpg:7/x", vec!["/run/pg/.s.PGSQL.7 -"]),
        ("host=/run/pg,db user=u", vec!["/run/pg/.s.PGSQL.5432 -", "db:5432 -"]),
    ] {
        assert_eq!(hosts(&resolved(text, &around(&[]))), expected, "{text}");
    }
    let addressed = resolved("host=a hostaddr=10.0.0.1", &around(&[]));
    let Place::Tcp { name, address } = &addressed.hosts[0].place else { panic!("{addressed:?}") };
    assert_eq!(
        (name.as_str(), address.map(|address| address.to_string())),
        ("a", Some("10.0.0.1".to_owned()))
    );
}

#[test]
fn sslmode_means_what_it_means_to_libpq() {
    let file = || Roots::File("/ca.pem".into());
    let system = || Roots::System(Authorities::default());
    for (query, tls, proof, roots) in [
        ("", Tls::Prefer, Proof::Nothing, system()),
        ("sslmode=disable", Tls::Never, Proof::Nothing, system()),
        ("sslmode=allow", Tls::Allow, Proof::Nothing, system()),
        ("sslmode=require", Tls::Require, Proof::Nothing, system()),
        ("ssl=true", Tls::Require, Proof::Nothing, system()),
        ("requiressl=1", Tls::Require, Proof::Nothing, system()),
        ("sslmode=require&sslrootcert=/ca.pem", Tls::Require, Proof::Authority, file()),
        ("sslmode=no-verify&sslrootcert=/ca.pem", Tls::Require, Proof::Nothing, file()),
        ("sslrootcert=/ca.pem", Tls::Prefer, Proof::Authority, file()),
        ("sslmode=verify-ca", Tls::Require, Proof::Authority, system()),
        ("sslmode=verify-full&sslrootcert=/ca.pem", Tls::Require, Proof::Name, file()),
        ("sslrootcert=system", Tls::Require, Proof::Name, system()),
    ] {
        let found = resolved(&format!("postgres://db/x?{query}"), &around(&[])).encryption;
        assert_eq!((found.tls, found.proof, found.roots), (tls, proof, roots), "{query}");
    }
    let versions =
        |query: &str| resolved(&format!("postgres://db/x?{query}"), &around(&[])).encryption.versions;
    assert_eq!(versions("ssl_min_protocol_version=TLSv1"), Versions::Any);
    assert_eq!(versions("ssl_min_protocol_version=TLSv1.3"), Versions::Only13);
    assert_eq!(versions("ssl_max_protocol_version=TLSv1.2"), Versions::Only12);
}

#[test]
fn what_other_programs_need_is_passed_over() {
    let text = "postgres://ana@db/x?pgbouncer=true&connection_limit=1&supa=base-pooler.x&sslcompression=0\
                &krbsrvname=postgres&gssencmode=prefer&gssencmode=disable&client_encoding=utf8&keepalives=1\
                &keepalives_idle=30&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=9000&sslsni=0\
                &load_balance_hosts=random&sslnegotiation=direct&sslmode=require&uselibpqcompat=true";
    let found = resolved(text, &around(&[]));
    assert_eq!(
        found.keepalive,
        Keepalive {
            on: true,
            idle: Some(Duration::from_secs(30)),
            interval: Some(Duration::from_secs(5)),
            count: Some(3),
            unacknowledged: Some(Duration::from_secs(9)),
        }
    );
    assert!(found.balance && found.encryption.direct && !found.encryption.names_host);

    let Read { database, warnings, .. } = read("postgres://db/x?sslmoed=require&pass%3Bs3=1", &around(&[]));
    assert!(database.is_ok());
    let messages: Vec<_> =
        warnings.iter().map(|problem| (problem.message.as_str(), problem.harmless)).collect();
    assert_eq!(messages, [("the database's URL has unknown parameters", true)]);
    let Read { warnings, .. } = read("postgres://db/x?sslmoed=require", &around(&[]));
    assert_eq!(warnings[0].message, "the database's URL has unknown parameters: sslmoed");
}

#[test]
fn what_cannot_be_honoured_is_refused_and_named() {
    for (text, variable, reason) in [
        ("postgres://db/x?sslmode=on", None, "is used with sslmode 'on'"),
        ("postgres://db/x", Some(("PGSSLMODE", "on")), "is used with PGSSLMODE 'on'"),
        ("postgres://db/x?connect_timeout=soon", None, "is used with connect_timeout 'soon'"),
        ("postgres://db/x?connect_timeout=2147483648", None, "is used with connect_timeout '2147483648'"),
        ("postgres://db/x?target_session_attrs=best", None, "is used with target_session_attrs 'best'"),
        ("postgres://db/x?sslcrl=/crl", None, "is used with sslcrl, which is not supported"),
        ("postgres://db/x", Some(("PGSSLCRL", "/crl")), "is used with PGSSLCRL, which is not supported"),
        ("postgres://db/x?require_auth=none", None, "is used with require_auth, which is not supported"),
        ("postgres://db/x?gssencmode=require", None, "is used with gssencmode, which is not supported"),
        ("postgres://db/x?sslaccept=strict", None, "is used with sslaccept, which is not supported"),
        ("service=s", None, "is used with service, which is not supported"),
        ("postgres://db/x?sslrootcert=system&sslmode=require", None, "is used with sslmode 'require'"),
        ("postgres://db/x?sslnegotiation=direct", None, "is used with sslnegotiation 'direct'"),
        ("postgres://db/x?sslcert=/c.pem", None, "is used with sslcert '/c.pem'"),
        ("postgres://db/x?sslcertmode=require", None, "is used with sslcertmode 'require'"),
        (
            "postgres://db/x?ssl_max_protocol_version=TLSv1.1",
            None,
            "is used with ssl_max_protocol_version 'TLSv1.1'",
        ),
        ("postgres://a,b,c:1:2/x", None, "has a port that is no number from 1 to 65535"),
        ("host=a,b port=1,2,3", None, "names 2 hosts with 3 ports"),
        ("host=a,b hostaddr=10.0.0.1", None, "names 2 hosts with 1 addresses"),
        ("host=a hostaddr=b", None, "is used with hostaddr 'b'"),
        // The password has a raw slash.
        ("postgres://ana:s3/cret@db/x", None, "has an @ behind the / that ends its host"),
        ("postgres://db", Some(("PGPORT", "0")), "is used with PGPORT '0'"),
        ("host='a b'", None, "has a host that can be none"),
    ] {
        let around = around(variable.as_slice());
        let reasons = read(text, &around).database.map_err(|invalid| invalid.reason);
        assert_eq!(reasons.err().as_deref(), Some(reason), "{text}");
    }
}

#[test]
fn a_password_is_known_in_every_form_and_shown_in_none() {
    let forms = |text: &str, variables: &[(&'static str, &str)]| {
        let Read { secrets, database, .. } = read(text, &around(variables));
        assert!(!format!("{database:?}").contains("s3c"), "{database:?}");
        secrets.iter().map(|secret| secret.reveal().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(forms("postgres://ana:s3c%40ret@db/x", &[]), ["s3c%40ret", "s3c@ret"]);
    assert_eq!(forms("host=db password='s3c ret'", &[]), ["s3c ret"]);
    assert_eq!(forms("postgres://db/x?password=s3c%20ret", &[]), ["s3c ret"]);
    assert_eq!(forms("postgres://db/x", &[("PGPASSWORD", "s3cret")]), ["s3cret"]);
    // A word that is no secret stays one.
    assert_eq!(forms("postgres://ana:ana@db/x", &[]), [""; 0]);
    assert_eq!(forms("postgres://ana:app@db/app", &[]), [""; 0]);
    // Also that of a URL which is wrong.
    assert_eq!(forms("postgres://ana:s3cret@db:x/x", &[]), ["s3cret"]);
}

#[test]
fn the_password_file_is_read_for_each_host_unless_others_can_read_it() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join(".pgpass");
    fs::write(&file, "a:5432:x:ana:for-a\nb:*:*:*:for-b\nlocalhost:5432:x:ana:local\n").expect("a file");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("its mode");
    let at_home = Surroundings { home: Some(dir.path().to_owned()), ..around(&[]) };
    let text = "postgres://ana@a,b,c/x";
    assert_eq!(hosts(&resolved(text, &at_home)), ["a:5432 for-a", "b:5432 for-b", "c:5432 -"]);
    let socket = resolved("host=/tmp user=ana dbname=x", &at_home);
    assert_eq!(hosts(&socket), ["/tmp/.s.PGSQL.5432 local"]);
    assert_eq!(hosts(&resolved("postgres://ana:own@a/x", &at_home)), ["a:5432 own"]);
    let secrets = read(text, &at_home).secrets;
    assert_eq!(secrets.iter().map(Secret::reveal).collect::<Vec<_>>(), ["for-a", "for-b"]);

    let named = around(&[("PGPASSFILE", file.to_str().expect("a plain path"))]);
    assert_eq!(hosts(&resolved("postgres://ana@a/x", &named)), ["a:5432 for-a"]);

    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("its mode");
    let Read { database, warnings, .. } = read(text, &at_home);
    assert_eq!(hosts(&database.expect("good settings"))[0], "a:5432 -");
    let message = format!("password file {} can be read by others; it is passed over", file.display());
    assert_eq!((&warnings[0].message, warnings[0].harmless), (&message, true));

    let nowhere = around(&[("PGPASSFILE", "/nowhere/pgpass")]);
    assert_eq!(hosts(&resolved("postgres://ana@a/x", &nowhere)), ["a:5432 -"]);
    let strange = around(&[("PGPASSFILE", dir.path().to_str().expect("a plain path"))]);
    assert!(
        read("postgres://ana@a/x", &strange).warnings[0]
            .message
            .ends_with("is not a plain file; it is passed over")
    );
}

#[test]
fn the_files_of_libpq_are_found_at_home() {
    let dir = TempDir::new().expect("a directory");
    let home = Surroundings { home: Some(dir.path().to_owned()), ..around(&[]) };
    let folder = dir.path().join(".postgresql");
    fs::create_dir(&folder).expect("a directory");
    for name in ["root.crt", "postgresql.crt", "postgresql.key"] {
        fs::write(folder.join(name), "").expect("a file");
    }
    let found = resolved("postgres://db/x?sslmode=require", &home).encryption;
    assert_eq!((found.proof, found.roots), (Proof::Authority, Roots::File(folder.join("root.crt"))));
    assert_eq!(found.identity, Some((folder.join("postgresql.crt"), folder.join("postgresql.key"))));
    let found = resolved("postgres://db/x?sslrootcert=system&sslcertmode=disable", &home).encryption;
    assert_eq!((found.proof, found.identity), (Proof::Name, None));
}

proptest! {
    #[test]
    fn no_text_is_too_strange(
        text in "\\PC*",
        url in "postgres://[a-z0-9%@:/?&=,\\[\\]é.]*",
        query in "postgres://db/x\\?(host|port|sslmode|hostaddr|connect_timeout|keepalives_count)=[a-z0-9,.:-]*",
    ) {
        for text in [text, url, query] {
            let Read { database, .. } = read(&text, &around(&[]));
            prop_assert!(database.is_err() || !database.expect("checked").hosts.is_empty());
        }
    }
}
