//! The text of `DATABASE_URL`: a URL or `key=value` pairs, read as libpq reads them.
//!
//! No error quotes the text: any part of it may belong to a password.

use std::collections::BTreeMap;

use crate::checkpoint::parse::Invalid;

/// Connection parameters by libpq's names. Several hosts, addresses or ports are one value, separated by commas.
pub(super) type Parameters = BTreeMap<String, String>;

/// How a URL is written. Without a password in it, which would be masked like any other.
pub(super) const SHAPE: &str =
    "write postgres://USER@HOST:5432/DATABASE, with :PASSWORD behind USER if there is one";
const ENCODE: &str =
    "write what has a meaning of its own in a URL as %XX: @ as %40, : as %3A, / as %2F, ? as %3F, % as %25";

pub(super) fn parse(text: &str) -> Result<Parameters, Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new("has a NUL byte in it", SHAPE));
    }
    let scheme =
        text.split_once("://").map(|(scheme, rest)| (scheme.split('+').next().unwrap_or(scheme), rest));
    match scheme {
        // `postgresql+asyncpg://` is how some libraries name their driver too.
        Some(("postgres" | "postgresql", rest)) => url(rest),
        Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            Err(Invalid::new("is not a Postgres URL", SHAPE))
        }
        _ => pairs(text),
    }
}

/// What comes after `postgres://`. A password may hold a raw `?` or `:`, as libpq allows.
fn url(rest: &str) -> Result<Parameters, Invalid> {
    let mut found = Parameters::new();
    let rest = match rest.find(['@', '/']) {
        Some(end) if rest[end..].starts_with('@') => {
            let (credentials, rest) = (&rest[..end], &rest[end + 1..]);
            let (user, password) = match credentials.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (credentials, None),
            };
            store(&mut found, "user", &decode(user)?);
            store(&mut found, "password", &decode(password.unwrap_or_default())?);
            rest
        }
        _ => rest,
    };
    let (places, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (hosts, ports) = places_of(places)?;
    store(&mut found, "host", &hosts);
    store(&mut found, "port", &ports);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A password with a raw slash: its pieces would be taken for host and database, and be named in errors.
    if path.contains('@') {
        return Err(Invalid::new("has an @ behind the / that ends its host", ENCODE));
    }
    store(&mut found, "dbname", &decode(path.strip_prefix('/').unwrap_or(path))?);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| Invalid::new("has a parameter without a value", ENCODE))?;
        match (decode(name)?.as_str(), decode(value)?) {
            // The spelling of other drivers, which libpq takes too.
            ("ssl", value) => store(&mut found, "sslmode", if value == "true" { "require" } else { "" }),
            (name, value) => store(&mut found, name, &value),
        }
    }
    Ok(found)
}

/// Hosts and ports, both separated by commas; no ports at all where none is named.
fn places_of(text: &str) -> Result<(String, String), Invalid> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in text.split(',') {
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let wrong = || Invalid::new("has an IPv6 address without its end", "write it as [::1]:5432");
                let (host, port) = bracketed.split_once(']').ok_or_else(wrong)?;
                (host, if port.is_empty() { "" } else { port.strip_prefix(':').ok_or_else(wrong)? })
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        if host.contains('@') {
            return Err(Invalid::new("has more than one @ before its host", ENCODE));
        }
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
    }
    let named = ports.iter().any(|port| !port.is_empty());
    Ok((hosts.join(","), if named { ports.join(",") } else { String::new() }))
}

/// An empty value says nothing.
fn store(found: &mut Parameters, name: &str, value: &str) {
    if !value.is_empty() {
        found.insert(name.to_owned(), value.to_owned());
    }
}

fn decode(text: &str) -> Result<String, Invalid> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let decoded = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|(h, l)| (h * 16 + l, after)),
            (b'%', _) => None,
            _ => Some((*byte, tail)),
        };
        let (value, after) = decoded
            .filter(|(value, _)| *value != 0)
            .ok_or_else(|| Invalid::new("has a % that is no percent-encoding", ENCODE))?;
        bytes.push(value);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| Invalid::new("is not valid UTF-8 once it is decoded", ENCODE))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// `host=db user='a b'`: a backslash takes the next character as it is.
fn pairs(text: &str) -> Result<Parameters, Invalid> {
    let mut found = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let wrong = || Invalid::new("is neither a Postgres URL nor key=value pairs", SHAPE);
        let (name, after) = rest.split_once('=').ok_or_else(wrong)?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let (value, after) = value_of(after.trim_start())
            .ok_or_else(|| Invalid::new("has a quote without its end", "write \\' for a quote in a value"))?;
        store(&mut found, name, &value);
        rest = after.trim_start();
    }
    if found.is_empty() { Err(Invalid::new("says nothing", SHAPE)) } else { Ok(found) }
}

/// The value at the beginning of a text, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('\'');
    let text = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted.is_some() => return Some((value, &text[at + 1..])),
            c if c.is_whitespace() && quoted.is_none() => return Some((value, &text[at..])),
            c => value.push(c),
        }
    }
    quoted.is_none().then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        parse(text).map(|found| found.into_iter().collect()).map_err(|invalid| invalid.reason)
    }

    #[test]
    fn both_forms_mean_what_they_mean_to_libpq() {
        for (text, expected) in [
            ("postgres://", ""),
            ("postgresql://db", "host=db"),
            ("postgres://ana:s3cret@db:5433/app", "dbname=app host=db password=s3cret port=5433 user=ana"),
            ("postgresql+asyncpg://ana@db/app", "dbname=app host=db user=ana"),
            ("postgres://ana:p%40s%2Fs%3F%25@db/a%20b", "dbname=a b host=db password=p@s/s?% user=ana"),
            ("postgres://ana:a?b:c@db", "host=db password=a?b:c user=ana"),
            ("postgres://a,[::1]:1,c:2/x", "dbname=x host=a,::1,c port=,1,2"),
            ("postgres://a,b/x", "dbname=x host=a,b"),
            ("postgres://%2Frun%2Fpg:5433/x", "dbname=x host=/run/pg port=5433"),
            ("postgres:///x?host=/run/pg&port=1", "dbname=x host=/run/pg port=1"),
            ("postgres://db?dbname=x&user=ana&password=s", "dbname=x host=db password=s user=ana"),
            ("postgres://db/x?sslmode=require&", "dbname=x host=db sslmode=require"),
            ("postgres://db/x?ssl=true", "dbname=x host=db sslmode=require"),
            ("postgres://db/x?options=-c%20a%3Db", "dbname=x host=db options=-c a=b"),
            ("host=db user=ana", "host=db user=ana"),
            (" host = 'db'\tpassword = 'it\\'s \\\\' ", "host=db password=it's \\"),
            ("password=a\\ b user=''", "password=a b"),
            ("password=postgres://x", "password=postgres://x"),
        ] {
            let words = read(text).map(|found| {
                found.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(words.as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_a_word_of_it() {
        for (text, reason) in [
            ("mysql://ana:s3cret@db/x", "is not a Postgres URL"),
            ("db.s3cret", "is neither a Postgres URL nor key=value pairs"),
            ("host=db s3cret", "is neither a Postgres URL nor key=value pairs"),
            ("password='s3cret", "has a quote without its end"),
            ("   ", "says nothing"),
            ("postgres://ana:s3%cret@db", "has a % that is no percent-encoding"),
            ("postgres://ana:s3%00cret@db", "has a % that is no percent-encoding"),
            ("postgres://ana:s3%ffcret@db", "is not valid UTF-8 once it is decoded"),
            ("postgres://ana:s3@cret@db", "has more than one @ before its host"),
            ("postgres://ana:12/s3cret@db/x", "has an @ behind the / that ends its host"),
            ("postgres://ana:s3@cret/s3@db/x", "has an @ behind the / that ends its host"),
            ("postgres://[::1/x", "has an IPv6 address without its end"),
            ("postgres://[::1]s3cret/x", "has an IPv6 address without its end"),
            ("postgres://db/x?s3cret", "has a parameter without a value"),
            ("host=s3\0cret", "has a NUL byte in it"),
        ] {
            assert_eq!(read(text), Err(reason.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC*", url in "postgres://[a-z%0-9@:/?&=,\\[\\]é]*", pairs in "[a= '\\\\é]*") {
            for text in [text, url, pairs] {
                let _ = parse(&text);
            }
        }

        #[test]
        fn what_was_encoded_is_decoded(user in "\\PC{1,9}", password in "\\PC{1,9}", database in "\\PC{1,9}") {
            let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            let url = format!("postgres://{}:{}@db/{}", encode(&user), encode(&password), encode(&database));
            let found = parse(&url).expect("a good URL");
            prop_assert_eq!([&found["user"], &found["password"], &found["dbname"]], [&user, &password, &database]);
        }
    }
}
