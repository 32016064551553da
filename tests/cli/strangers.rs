//! Where a PostgreSQL server should listen, something else does: every command says so in the same words.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::scene::side_by_side;
use crate::support::{Output, Sandbox};

/// How a server that is none of PostgreSQL's meets whoever comes.
#[derive(Debug, Clone, Copy)]
enum Manners {
    /// It answers the first bytes, and hangs up, as nginx does.
    AnswersAndCloses,
    /// It answers the first bytes, and stays.
    Answers,
    /// It waits for the end of a line, whatever comes before it.
    WaitsForALine,
    /// It speaks first, as an SSH server does.
    SpeaksFirst,
}

impl Manners {
    fn meet(self, mut stream: TcpStream) {
        let http = b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html>400 Bad Request</html>\r\n";
        if matches!(self, Self::SpeaksFirst) {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
        }
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|length| length > 0) {
            // What asks for TLS ends like this, and so does the length of the first message.
            let is_time = match self {
                Self::AnswersAndCloses | Self::Answers => byte != [0],
                Self::WaitsForALine => byte == *b"\n",
                Self::SpeaksFirst => false,
            };
            if is_time {
                let _ = stream.write_all(http);
            }
            if is_time && matches!(self, Self::AnswersAndCloses) {
                return;
            }
        }
    }

    fn server(self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || self.meet(stream));
            }
        });
        port
    }
}

#[test]
fn every_command_names_what_is_no_postgres_server() {
    let kinds = [Manners::AnswersAndCloses, Manners::Answers, Manners::WaitsForALine, Manners::SpeaksFirst];
    let rows = kinds.into_iter().flat_map(|kind| ["disable", "prefer", "require"].map(|mode| (kind, mode)));
    side_by_side(rows.collect::<Vec<_>>(), |(kind, mode)| {
        let (port, sandbox) = (kind.server(), Sandbox::new());
        let who = if matches!(kind, Manners::SpeaksFirst) { "SSH" } else { "HTTP" };
        sandbox.env("DATABASE_URL", format!("postgres://ana@127.0.0.1:{port}/x?sslmode={mode}"));
        let run = |args: &[&str]| -> Output {
            let output = sandbox.cmd([args, &["--deadline", "3s"]].concat()).run();
            output.within(Duration::from_secs(8))
        };
        let said = format!("127.0.0.1:{port} does not speak PostgreSQL: it answers like an {who} server");
        let hint = "hint: check host and port in DATABASE_URL";
        run(&["doctor"]).code(78).stdout_has(&said);
        run(&["emit", "-a", "bot", "One"]).success().stderr_has(&said).stderr_has(hint);
        run(&["flush"]).code(78).stderr_has(&said).stderr_has(hint);
        run(&["db", "migrate"]).code(1).stderr_has(&said).stderr_has(hint);
        run(&["tasks", "--fleet"]).code(1).stderr_has(&said).stderr_has(hint);
    });
}
