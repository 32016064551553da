//! `serve`: what it answers, to whom, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Run, Sandbox, wait_for};

/// A server of this test's own, which ends with it.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    said: Arc<Mutex<String>>,
}

impl Server {
    #[track_caller]
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        Self::of(sandbox.cmd(["serve", "--listen", "127.0.0.1:0"]))
    }

    #[track_caller]
    pub(crate) fn of(run: Run<'_>) -> Self {
        let mut child = run.spawn();
        let lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let hears = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                hears.lock().expect("no panic").push_str(&(line + "\n"));
            }
        });
        let address = wait_for("the server to listen", || {
            let said = said.lock().expect("no panic");
            let (_, rest) = said.split_once("listening on http://")?;
            Some(rest.split_once('\n')?.0.to_owned())
        });
        Self { child, address, said }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        stream
    }

    /// What is answered to these bytes, up to the end of the connection.
    #[track_caller]
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The answer to a request with these further headers.
    #[track_caller]
    pub(crate) fn ask(&self, line: &str, headers: &str) -> Reply {
        let request =
            format!("{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", self.address);
        Reply::of(&self.raw(request.as_bytes()))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), "")
    }

    /// What it has written to its standard error.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("it runs");
    }

    /// Ends it as a service is ended, and waits for that.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.end(), Some(0));
    }

    /// Its exit code.
    fn end(&mut self) -> Option<i32> {
        let child = &mut self.child;
        wait_for("the server's end", || child.try_wait().expect("its state")).code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    #[track_caller]
    pub(crate) fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {head}"));
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }
}

fn fleet() -> Sandbox {
    let sandbox = Sandbox::new();
    let emit = |line: &str| sandbox.shell(&format!("$BIN emit -q --no-post {line}")).run().success();
    emit("-a busy -p 50 --artifact PR=https://example.com/1 'Step'");
    emit("-a busy --artifact a.txt --artifact b.txt 'Next step'");
    emit("-a done -s complete");
    emit("-a broken -s error --error 'exit code 1'");
    sandbox
}

#[test]
fn lists_and_totals_are_those_of_the_command_line() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
    for (path, args) in [
        ("/tasks", &["tasks", "--json"][..]),
        ("/tasks?status=running&limit=50", &["tasks", "--json", "--state", "running"]),
        ("/tasks?state=failed", &["tasks", "--json", "--state", "failed"]),
        ("/tasks?limit=2", &["tasks", "--json", "--limit", "2"]),
        ("/tasks?limit=0", &["tasks", "--json", "--limit", "0"]),
        ("/metrics", &["metrics", "--json"]),
        ("/metrics?days=2", &["metrics", "--json", "--days", "2"]),
    ] {
        let reply = server.get(path);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{path}");
        assert_eq!(reply.json(), sandbox.cmd(args).run().success().json(), "{path}");
    }
    let busy = &sandbox.cmd(["tasks", "--json", "--state", "running"]).run().json()[0];
    let expected = json!({ "task": busy, "checkpoints": 2, "artifacts": 3 });
    assert_eq!(server.get("/tasks/busy").json(), expected);
    let id = busy["task_id"].as_str().expect("an id");
    assert_eq!(server.get(&format!("/tasks/{id}")).json(), expected);
}

#[test]
fn an_agent_of_any_name_is_found() {
    let sandbox = Sandbox::new();
    for id in ["github/acme/rocket/42.1/test", "ana@laptop:rocket", "a b+c%2F", "🚀", "..", "tasks?x#y"] {
        sandbox.cmd(["emit", "-q", "--no-post", "-a", id]).run().success();
    }
    let server = Server::start(&sandbox);
    for (path, id) in [
        ("github/acme/rocket/42.1/test", "github/acme/rocket/42.1/test"),
        ("github%2facme%2Frocket/42.1/test", "github/acme/rocket/42.1/test"),
        ("ana@laptop:rocket", "ana@laptop:rocket"),
        ("a%20b+c%252F", "a b+c%2F"),
        ("%F0%9F%9A%80", "🚀"),
        ("..", ".."),
        ("tasks%3Fx%23y", "tasks?x#y"),
    ] {
        assert_eq!(server.get(&format!("/tasks/{path}")).json()["task"]["agent_id"], id, "{path}");
    }
    for (path, status) in
        [("nobody", 404), ("'%20OR%201=1%20--", 404), ("%00", 400), ("%zz", 400), ("%ff", 400), ("", 404)]
    {
        let reply = server.get(&format!("/tasks/{path}"));
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.json()["hint"].is_string(), "{reply:?}");
    }
    assert_eq!(
        server.get("/tasks/a%0Ab").json(),
        json!({ "error": "no agent or task 'a\\nb'", "hint": "GET /tasks lists them" })
    );
}

#[test]
fn a_scraper_gets_the_text_of_prometheus() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    let text = server.ask("GET /metrics?days=1", "Accept: text/plain\r\n");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.body.contains("\nagent_checkpoint_tasks{state=\"running\"} 1\n"), "{text:?}");
    assert!(text.body.contains("\nagent_checkpoint_tasks{state=\"completed\"} 1\n"), "{text:?}");
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n";
    let open = server.ask("GET /metrics?days=1", accept);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((open.header("content-type"), open.header("vary")), (Some(kind), Some("accept")));
    assert_eq!(open.body, text.body + "# EOF\n");
}

#[test]
fn what_is_wrong_with_a_request_is_told_with_a_hint() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    for (line, status, error) in [
        ("GET /", 404, "there is nothing at /"),
        ("GET /tasks?status=working", 400, "status: 'working' is not a task state"),
        ("GET /tasks?limit=many", 400, "limit: 'many' is not a whole number"),
        ("GET /tasks?limit=1001", 400, "limit: '1001' is too many"),
        ("GET /tasks?colour=red", 400, "unknown parameter 'colour'"),
        ("GET /metrics?days=0", 400, "days: '0' is not a number of days"),
        ("POST /tasks", 405, "POST is not answered here"),
        ("DELETE /tasks/busy", 405, "DELETE is not answered here"),
        ("OPTIONS *", 404, "there is nothing at *"),
    ] {
        let reply = server.ask(line, "");
        assert_eq!((reply.status, &reply.json()["error"]), (status, &json!(error)), "{line}");
        assert!(reply.json()["hint"].is_string(), "{line}: {reply:?}");
        assert_eq!(reply.header("allow"), (status == 405).then_some("get,head"), "{line}");
    }
}

#[test]
fn http_is_spoken_as_callers_of_all_kinds_speak_it() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    let head = server.ask("HEAD /tasks", "");
    let length = head.header("content-length").expect("a length").to_owned();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(server.get("/tasks").header("content-length"), Some(length.as_str()));

    let old = server.raw(b"GET /tasks?limit=1 HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "{old}");
    let absolute = format!("GET http://{}/health", server.address);
    assert_eq!(server.ask(&absolute, "").status, 200);

    // One write with three requests, whose sender has nothing more to say.
    let mut stream = server.connect();
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let many = one("/health") + &one("/tasks/busy") + &one("/nothing");
    stream.write_all(many.as_bytes()).expect("a request");
    stream.shutdown(Shutdown::Write).expect("an end");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers");
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "200", "404"], "{answers}");
}

#[test]
fn what_is_no_http_is_refused_and_harms_nobody() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /he\x01alth HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = server.raw(bytes);
        let shown = String::from_utf8_lossy(bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{shown}: {answer}");
    }
    let long = format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert!(server.raw(long.as_bytes()).starts_with("HTTP/1.1 431 "));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000));
    let answer = server.raw(long.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 "), "{answer}");
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_body_that_is_too_large_is_refused_in_words_that_arrive() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    for line in ["GET /tasks", "POST /health"] {
        let mut request =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n").into_bytes();
        request.resize(request.len() + 10_000_000, b'x');
        let reply = Reply::of(&server.raw(&request));
        assert_eq!((reply.status, reply.header("connection")), (413, Some("close")), "{line}");
        assert_eq!(reply.json()["error"], "the body is too large");
    }
    // One that does not say how long it is, and never ends.
    let mut stream = server.connect();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .expect("a head");
    let chunk = [b"2000\r\n".to_vec(), vec![b'x'; 0x2000], b"\r\n".to_vec()].concat();
    let since = Instant::now();
    while stream.write_all(&chunk).is_ok() {
        assert!(since.elapsed() < Duration::from_secs(20), "it is read for ever");
    }
}

#[test]
fn a_caller_who_takes_for_ever_holds_nobody_up_and_is_dropped() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    let since = Instant::now();
    let mut slow: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    let mut head = b"GET /health HTTP/1.1\r\nHost: a\r\n".iter().copied().chain(std::iter::repeat(b'x'));
    let mut is_open = true;
    while is_open {
        let byte = [head.next().expect("there is always another")];
        // The first write after the end is taken, and answered by a reset.
        is_open = slow.iter_mut().fold(false, |open, stream| stream.write_all(&byte).is_ok() | open);
        let asked = Instant::now();
        assert_eq!(server.get("/health").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "others wait");
        assert!(since.elapsed() < Duration::from_secs(20), "a head may take for ever");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(since.elapsed() > Duration::from_secs(4), "it was dropped too early");
}

#[test]
fn five_hundred_callers_at_once_are_answered_and_one_too_many_is_told() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    let room = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let more =
        rustix::process::Rlimit { current: room.maximum.map(|max| max.min(65_536)).or(Some(65_536)), ..room };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, more).expect("more open files");
    let mut all: Vec<TcpStream> = (0..512).map(|_| server.connect()).collect();
    let refused = server.get("/health");
    assert_eq!((refused.status, &refused.json()["error"]), (503, &json!("too many connections")));
    for stream in &mut all[..500] {
        stream.write_all(b"GET /tasks HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    }
    for stream in &mut all[..500] {
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    }
    drop(all);
    wait_for("room", || (server.get("/health").status == 200).then_some(()));
}

#[test]
fn where_others_can_reach_it_readers_need_the_token() {
    let sandbox = fleet();
    let open = || sandbox.cmd(["serve", "--listen", "0.0.0.0:0"]);
    open().run().code(78).stdout_is("").stderr_is(
        "agent-checkpoint: 0.0.0.0:0 can be reached from other machines, and there is no token for readers\n\
         hint: set AGENT_CHECKPOINT_SERVE_TOKEN, for example to what openssl rand -hex 32 prints\n",
    );
    let file = sandbox.write("token", "correct-horse-battery\n");
    sandbox.env("AGENT_CHECKPOINT_SERVE_TOKEN", format!("file:{}", file.display()));
    for mut server in [Server::of(open()), Server::start(&sandbox)] {
        server.address = server.address.replace("0.0.0.0", "127.0.0.1");
        assert_eq!(server.get("/health").status, 200);
        for path in ["/tasks", "/tasks/busy", "/metrics"] {
            let none = server.get(path);
            assert_eq!(
                (none.status, none.header("www-authenticate")),
                (401, Some("bearer realm=\"agent-checkpoint\""))
            );
            assert_eq!(server.ask(&format!("GET {path}"), "Authorization: Bearer wrong\r\n").status, 401);
            let right = "Authorization: Bearer correct-horse-battery\r\n";
            assert_eq!(server.ask(&format!("GET {path}"), right).status, 200);
        }
        assert!(!server.said.lock().expect("no panic").contains("correct-horse"), "the token is shown");
    }
}

#[test]
fn without_a_token_neither_web_pages_nor_proxies_read() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    let request = |host: &str, more: &str| {
        Reply::of(&server.raw(
            format!("GET /tasks HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n").as_bytes(),
        ))
    };
    assert_eq!(request("localhost:3001", "").status, 200);
    assert_eq!(request("rebound.example:3001", "").status, 403);
    let forwarded = request("localhost", "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(forwarded.status, 403);
    assert!(
        forwarded.json()["hint"].as_str().is_some_and(|hint| hint.contains("AGENT_CHECKPOINT_SERVE_TOKEN"))
    );
}

#[test]
fn wrong_settings_are_named_before_anything_is_answered() {
    let sandbox = Sandbox::new();
    let serve = || sandbox.cmd(["serve"]);
    serve().env("AGENT_CHECKPOINT_LISTEN", "here").run().code(78).stderr_has(
        "AGENT_CHECKPOINT_LISTEN: 'here' is not an address with a port; using the default\n\
         hint: give one such as 127.0.0.1:3001 or [::1]:3001",
    );
    sandbox.cmd(["serve", "--listen", "1.2.3.4:99999"]).run().code(64).stderr_has("'1.2.3.4:99999'");
    let missing = "file:/nowhere/token";
    let wrong = "AGENT_CHECKPOINT_SERVE_TOKEN: the value names the file '/nowhere/token', which could not be read: \
                 No such file or directory";
    serve()
        .env("AGENT_CHECKPOINT_SERVE_TOKEN", missing)
        .run()
        .code(78)
        .stderr_has(&format!("agent-checkpoint: {wrong}\nhint: make the file readable\n"));
    serve()
        .env("AGENT_CHECKPOINT_SERVE_TOKEN", "two words")
        .run()
        .code(78)
        .stderr_has("is not a token")
        .lacks("two words");
    serve().env("SLACK_BOT_TOKEN", "xapp-1").run().code(78);
    // Nobody else is stopped by it.
    let emit =
        sandbox.cmd(["emit", "--strict", "--no-post", "x"]).env("AGENT_CHECKPOINT_SERVE_TOKEN", missing);
    emit.run().success().stderr_has("only serve uses it");
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let serve = |address: &str| sandbox.cmd(["serve", "--listen", address]).run();
    serve(&address).code(1).stderr_is(&format!(
        "agent-checkpoint: could not listen on {address}: Address already in use\n\
         hint: another program listens there: end it, or give another port with --listen\n"
    ));
    serve("no-such-host.invalid:80")
        .code(78)
        .stderr_has("could not find the address of 'no-such-host.invalid:80'");
}

#[test]
fn a_cache_that_cannot_be_used_is_told_at_once_or_to_whoever_asks() {
    let sandbox = fleet();
    sandbox.cmd(["serve", "--cache", "/proc/none/cache.db"]).run().code(1).stderr_has("could not use cache");
    let server = Server::start(&sandbox);
    assert_eq!(server.get("/tasks").json().as_array().map(Vec::len), Some(3));
    let state = sandbox.cache_path().parent().expect("a directory").to_owned();
    let aside = state.with_extension("aside");
    std::fs::rename(&state, &aside).expect("another name");
    std::fs::write(&state, "no directory").expect("a file");
    let reply = server.get("/tasks");
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(
        reply.json()["error"].as_str().is_some_and(|error| error.contains("could not use cache")),
        "{reply:?}"
    );
    std::fs::remove_file(&state).expect("no file");
    std::fs::rename(&aside, &state).expect("its name");
    assert_eq!(server.get("/tasks").json().as_array().map(Vec::len), Some(3));
    // Another cache in its place is read at once.
    std::fs::remove_dir_all(&state).expect("no cache");
    sandbox.cmd(["emit", "-q", "--no-post", "-a", "fresh"]).run().success();
    let tasks = server.get("/tasks").json();
    assert_eq!((tasks.as_array().map(Vec::len), &tasks[0]["agent_id"]), (Some(1), &json!("fresh")));
}

#[test]
fn what_was_recorded_is_answered_at_once_while_others_write() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    thread::scope(|scope| {
        for writer in ["w1", "w2", "w3"] {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let line = format!(
                    "for i in 1 2 3 4 5 6 7 8 9 10; do $BIN emit -q --no-post -a {writer} -p $((i * 5)) || exit; done"
                );
                sandbox.shell(&line).run().success();
            });
        }
        for step in 1..=10 {
            let action = format!("Step {step}");
            sandbox.cmd(["emit", "-q", "--no-post", "-a", "mine", &action]).run().success();
            let reply = server.get("/tasks?status=running").json();
            let tasks = reply.as_array().expect("an array");
            let mine = tasks.iter().find(|task| task["agent_id"] == "mine").expect("mine");
            assert_eq!((&mine["action"], &mine["checkpoint_count"]), (&json!(action), &json!(step)));
        }
    });
    let tasks = sandbox.cmd(["tasks", "--json", "--state", "running"]).run().json();
    assert_eq!(server.get("/tasks?status=running").json(), tasks);
}

#[test]
fn asking_finds_out_that_a_wrapped_command_is_lost() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let mut run = sandbox.cmd(["run", "-q", "-a", "lost", "--", "sleep", "60"]).spawn();
    wait_for("the task", || {
        let state = server.get("/tasks/lost");
        (state.status == 200 && state.json()["task"]["state"] == "running").then_some(())
    });
    assert_eq!(server.get("/tasks").json()[0]["state"], "running");
    run.kill().expect("it runs");
    run.wait().expect("its end");
    wait_for("the loss", || (server.get("/tasks").json()[0]["state"] == "failed").then_some(()));
}

#[test]
fn a_signal_ends_it_once_what_was_asked_is_answered() {
    let sandbox = Sandbox::new();
    // More than the sockets on both sides hold.
    let lines: String = (0..1000)
        .map(|i| {
            format!(
                "{{\"agent_id\":\"agent-{i}\",\"action\":\"{}\",\"task_name\":\"{}\"}}\n",
                "x".repeat(200),
                "y".repeat(6000)
            )
        })
        .collect();
    sandbox.cmd(["stream", "-q", "--no-post"]).stdin(lines).run().success();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(&sandbox);
        let idle = server.connect();
        let mut stream = server.connect();
        stream.write_all(b"GET /tasks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut first = [0; 15];
        stream.read_exact(&mut first).expect("the beginning of the answer");
        server.signal(signal);
        let address = server.address.clone();
        wait_for("nobody to be let in", || TcpStream::connect(&address).is_err().then_some(()));
        assert_eq!(server.child.try_wait().expect("its state"), None, "it did not wait");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("the rest");
        let (_, body) = rest.split_once("\r\n\r\n").expect("a body");
        assert_eq!(serde_json::from_str::<Value>(body).expect("whole").as_array().map(Vec::len), Some(1000));
        assert_eq!(server.end(), Some(0));
        drop(idle);
    }
    // Nobody is waited for for ever.
    let mut server = Server::start(&sandbox);
    let mut stream = server.connect();
    stream.write_all(b"GET /tasks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    stream.read_exact(&mut [0; 15]).expect("the beginning of the answer");
    let since = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
}

#[test]
fn a_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("notify");
    let mut sockets = vec![(path.display().to_string(), UnixDatagram::bind(&path).expect("a socket"))];
    #[cfg(target_os = "linux")]
    {
        let name = format!("agent-checkpoint-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        sockets.push((format!("@{name}"), UnixDatagram::bind_addr(&address).expect("a socket")));
    }
    for (name, socket) in sockets {
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let heard = || {
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).expect("a message");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let run = sandbox.cmd(["serve", "--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", name);
        let mut server = Server::of(run);
        assert_eq!(heard(), "READY=1");
        server.signal(Signal::SIGTERM);
        assert_eq!(heard(), "STOPPING=1");
        assert_eq!(server.end(), Some(0));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_unit_is_one_that_systemd_takes() {
    let sandbox = Sandbox::new();
    let odd = sandbox.work().join("a $b 100%/cache.db");
    for cache in [sandbox.cache_path(), odd] {
        let printed = sandbox.cmd(
            ["serve", "--unit", "--cache"].map(std::ffi::OsStr::new).into_iter().chain([cache.as_os_str()]),
        );
        let unit = printed.run().success().stderr_is("").stdout;
        for line in ["Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="] {
            assert!(unit.lines().any(|l| l == line), "{line}: {unit}");
        }
        // The caller's secrets are not in it, so it says which belong into the file that it names.
        for name in
            ["SERVE_TOKEN=", "DATABASE_URL=", "SLACK_BOT_TOKEN=", "SLACK_APP_TOKEN=", "SLACK_SIGNING_SECRET="]
        {
            assert!(unit.lines().any(|l| l.starts_with('#') && l.contains(name)), "{name}: {unit}");
        }
        let file = sandbox.write("agent-checkpoint.service", &unit);
        let line = format!(
            "command -v systemd-analyze >/dev/null || exit 99; systemd-analyze verify --man=no '{}'",
            file.display()
        );
        let output = sandbox.shell(&line).run();
        assert_ne!(output.code, Some(99), "systemd-analyze is missing: tests/run installs it");
        output.success().lacks("agent-checkpoint.service:");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_unit_keeps_the_settings_of_the_environment_but_no_secret() {
    let sandbox = Sandbox::new();
    let unit = sandbox
        .cmd(["serve", "--unit"])
        .env("AGENT_CHECKPOINT_APPROVERS", "U0123456789,U9876543210")
        .env("AGENT_CHECKPOINT_LAUNCH", r#"claude -p "100% \$x""#)
        // What the agents go by that it starts.
        .env("AGENT_CHECKPOINT_REPO", "acme/rocket")
        .env("AGENT_CHECKPOINT_KILL_AFTER", "1m")
        .env("AGENT_CHECKPOINT_TAIL", "5")
        .env("AGENT_CHECKPOINT_PROGRESS_REGEX", r"(?P<percent>\d+)%")
        .env("AGENT_CHECKPOINT_SERVE_TOKEN", "for-readers-alone")
        .env("SLACK_SIGNING_SECRET", "for-slack-alone")
        .run()
        .success()
        .stdout;
    for line in [
        r#"Environment="AGENT_CHECKPOINT_APPROVERS=U0123456789,U9876543210""#,
        r#"Environment="AGENT_CHECKPOINT_LAUNCH=claude -p \"100%% \\$x\"""#,
        r#"Environment="AGENT_CHECKPOINT_REPO=acme/rocket""#,
        r#"Environment="AGENT_CHECKPOINT_KILL_AFTER=1m""#,
        r#"Environment="AGENT_CHECKPOINT_TAIL=5""#,
        r#"Environment="AGENT_CHECKPOINT_PROGRESS_REGEX=(?P<percent>\\d+)%%""#,
    ] {
        assert!(unit.lines().any(|l| l == line), "{line}: {unit}");
    }
    assert!(!unit.contains("for-"), "{unit}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_unit_reaches_slack_by_the_way_that_its_caller_does() {
    let sandbox = Sandbox::new();
    let unit = |proxy: &str| {
        sandbox
            .cmd(["serve", "--unit"])
            .env("https_proxy", proxy)
            .env("NO_PROXY", "localhost,.corp")
            .env("SSL_CERT_FILE", "/etc/ssl/corp.pem")
            .env("SSL_CERT_DIR", "/etc/ssl/a:/etc/ssl/b")
            .run()
            .success()
            .stdout
    };
    let plain = unit("http://proxy.corp:3128");
    for line in [
        r#"Environment="HTTPS_PROXY=http://proxy.corp:3128""#,
        r#"Environment="NO_PROXY=localhost,.corp""#,
        r#"Environment="SSL_CERT_FILE=/etc/ssl/corp.pem""#,
        r#"Environment="SSL_CERT_DIR=/etc/ssl/a:/etc/ssl/b""#,
    ] {
        assert!(plain.lines().any(|l| l == line), "{line}: {plain}");
    }
    let secret = unit("http://ana:for-the-proxy@proxy.corp:3128");
    assert!(!secret.contains("proxy.corp"), "{secret}");
    assert!(secret.lines().any(|l| l.starts_with('#') && l.contains("HTTPS_PROXY=")), "{secret}");
}

#[cfg(target_os = "linux")]
#[test]
fn many_requests_take_no_more_memory_than_few() {
    let sandbox = fleet();
    let server = Server::start(&sandbox);
    let memory = || {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("its state");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    let burst = |rounds: usize| {
        let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let batch: String = (0..25)
            .flat_map(|i| {
                [one("/health"), one(&format!("/tasks?limit={i}")), one("/tasks/busy"), one("/nothing")]
            })
            .collect();
        let mut stream = server.connect();
        let mut reader = stream.try_clone().expect("the same");
        let reading = thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        for _ in 0..rounds {
            stream.write_all(batch.as_bytes()).expect("requests");
        }
        stream.shutdown(Shutdown::Write).expect("an end");
        reading.join().expect("no panic").expect("answers");
    };
    burst(40);
    let before = memory();
    burst(120);
    let after = memory();
    assert!(after < before + 2048, "{before} KiB, then {after} KiB");
}
