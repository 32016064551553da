//! Finding out what listens where a PostgreSQL server should: a driver only waits for more of what it cannot read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Trouble;
use crate::config::database::{Database, Host, Place};

/// The question whether a server speaks TLS, which every PostgreSQL server answers with one letter.
const ASKS_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The end of a line, and of an HTTP request: what many others wait for.
const LINES: &[u8] = b"\r\n\r\n";

/// How many steps are taken at a host: its name is looked up, and it is connected to and heard twice.
pub(crate) const STEPS: u32 = 4;

/// What is wrong where the server at one of the hosts is none of PostgreSQL's; `None` where nothing says so. Each step takes
/// at most this long, and none is taken after the deadline.
pub(crate) fn stranger(database: &Database, patience: Duration, deadline: Instant) -> Option<Trouble> {
    // Without any time left each of them fails at once.
    let left = || patience.min(deadline.saturating_duration_since(Instant::now()));
    database.hosts.iter().find_map(|host| {
        let said = said(address(host, left())?, left)?;
        (!is_postgres(&said)).then(|| Trouble::stranger(&host.to_string(), kind(&said)))
    })
}

fn address(host: &Host, patience: Duration) -> Option<SocketAddr> {
    match &host.place {
        Place::Socket(_) => None,
        Place::Tcp { address: Some(address), .. } => Some(SocketAddr::new(*address, host.port)),
        Place::Tcp { name, .. } => {
            // The system may take its time: it is not waited for.
            let (place, (found, address)) = ((name.clone(), host.port), mpsc::channel());
            let look = move || {
                let _ = found.send(place.to_socket_addrs().ok().and_then(|mut all| all.next()));
            };
            thread::Builder::new().name("lookup".to_owned()).spawn(look).ok()?;
            address.recv_timeout(patience).ok()?
        }
    }
}

/// The first that it says; `None` if it says nothing.
fn said(address: SocketAddr, left: impl Fn() -> Duration) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, left()).ok()?;
    for words in [&ASKS_FOR_TLS, LINES] {
        stream.set_read_timeout(Some(left())).ok()?;
        stream.set_write_timeout(Some(left())).ok()?;
        stream.write_all(words).ok()?;
        let mut said = vec![0; 64];
        if let Ok(length @ 1..) = stream.read(&mut said) {
            said.truncate(length);
            return Some(said);
        }
    }
    None
}

/// Whether a PostgreSQL server may say this: yes, no, or a message about our coming in, of a length within all proportion.
fn is_postgres(said: &[u8]) -> bool {
    matches!(said, b"S" | b"N" | [b'E' | b'R'] | [b'E' | b'R', 0, ..])
}

fn kind(said: &[u8]) -> &'static str {
    match said {
        [b'H', b'T', b'T', b'P', ..] => "it answers like an HTTP server",
        [b'S', b'S', b'H', b'-', ..] => "it answers like an SSH server",
        _ => "it answers with something else",
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn many_servers_that_say_nothing_take_no_longer_than_there_is_time() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = silent.local_addr().expect("its address").to_string();
        let database = Database::of(&format!("postgres://u@{}/d", vec![host; 50].join(",")));
        let began = Instant::now();
        assert!(
            stranger(&database, Duration::from_millis(100), began + Duration::from_millis(300)).is_none()
        );
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }

    #[test]
    fn a_postgres_server_is_told_from_others_by_its_first_word() {
        for (said, is_one) in [
            (&b"S"[..], true),
            (b"N", true),
            (b"E\0\0\0\x54SFATAL\0", true),
            (b"SSH-2.0-OpenSSH", false),
            (b"HTTP/1.1 400 Bad Request", false),
            (b"-ERR unknown command", false),
            (b"\x4a\0\0\0\x0a8.0.36", false),
        ] {
            assert_eq!(is_postgres(said), is_one, "{said:?}");
        }
    }
}
