//! Finding out what listens where a PostgreSQL server should: a driver only waits for more of what it cannot read.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout_at;

use super::Trouble;
use crate::config::database::{Database, Host, Place};

/// The question whether a server speaks TLS, which every PostgreSQL server answers with one letter.
const ASKS_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The end of a line, and of an HTTP request: what many others wait for.
const LINES: &[u8] = b"\r\n\r\n";

/// How many steps are taken at a host: its name is looked up, and it is connected to and heard twice.
pub(super) const STEPS: u32 = 4;

/// How long a step may take of this time.
pub(super) fn patience(left: Duration) -> Duration {
    (left / 8).min(Duration::from_millis(300))
}

/// What is wrong where the server at one of the hosts is none of PostgreSQL's; `None` where nothing says so. Each step takes
/// at most this long, and none is taken after the deadline.
pub(super) async fn stranger(database: &Database, patience: Duration, deadline: Instant) -> Option<Trouble> {
    let limit = || deadline.min(Instant::now() + patience);
    for host in &database.hosts {
        let Some(address) = address(host, limit()).await else { continue };
        let Some(said) = said(address, limit).await else { continue };
        if !is_postgres(&said) {
            return Some(Trouble::stranger(&host.to_string(), kind(&said)));
        }
    }
    None
}

async fn address(host: &Host, limit: Instant) -> Option<SocketAddr> {
    match &host.place {
        Place::Socket(_) => None,
        Place::Tcp { address: Some(address), .. } => Some(SocketAddr::new(*address, host.port)),
        Place::Tcp { name, .. } => {
            let lookup = lookup_host((name.as_str(), host.port));
            timeout_at(limit.into(), lookup).await.ok()?.ok()?.next()
        }
    }
}

/// The first that it says; `None` if it says nothing.
async fn said(address: SocketAddr, limit: impl Fn() -> Instant) -> Option<Vec<u8>> {
    let mut stream = timeout_at(limit().into(), TcpStream::connect(address)).await.ok()?.ok()?;
    for words in [&ASKS_FOR_TLS, LINES] {
        let mut said = vec![0; 64];
        let exchange = async {
            stream.write_all(words).await.ok()?;
            stream.read(&mut said).await.ok()
        };
        if let Ok(Some(length @ 1..)) = timeout_at(limit().into(), exchange).await {
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

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn many_servers_that_say_nothing_take_no_longer_than_there_is_time() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = silent.local_addr().expect("its address").to_string();
        let database = Database::of(&format!("postgres://u@{}/d", vec![host; 50].join(",")));
        let began = Instant::now();
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime");
        let deadline = began + Duration::from_millis(300);
        assert!(runtime.block_on(stranger(&database, Duration::from_millis(100), deadline)).is_none());
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
