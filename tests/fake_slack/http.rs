//! As much HTTP/1.1 as a Slack client speaks: keep-alive, `Content-Length` and chunked bodies, form and query decoding.
//!
//! The last byte of a body is looked at but left in the socket until the answer goes out. Closing a socket that still
//! holds unread bytes makes the kernel send a reset, which is how the reset faults are real ones.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 16 * 1024 * 1024;

/// A request as it came over the wire.
pub(crate) struct Raw {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) query: String,
    /// Names in lower case, in the order sent.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the client lets the connection live on.
    pub(crate) keep_alive: bool,
}

/// Why no request could be read.
pub(crate) enum Unreadable {
    /// The connection broke, or the fake is stopping.
    Gone,
    /// The bytes are not the HTTP we take: this status, then the end of the connection.
    Refused(u16),
}

impl From<io::Error> for Unreadable {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// One client's connection.
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    unread: bool,
}

impl Wire {
    pub(crate) fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream, unread: false }
    }

    /// The same connection, for whoever takes it over.
    pub(crate) fn socket(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// The next request, or `None` when the client has closed between two.
    pub(crate) fn read(&mut self) -> Result<Option<Raw>, Unreadable> {
        let Some(head) = self.read_head()? else {
            return Ok(None);
        };
        let mut raw = parse_head(&head).ok_or(Unreadable::Refused(400))?;
        let chunked = match header(&raw.headers, "transfer-encoding") {
            None => false,
            Some(value) if value.eq_ignore_ascii_case("chunked") => true,
            Some(_) => return Err(Unreadable::Refused(501)),
        };
        let length = match header(&raw.headers, "content-length") {
            None => 0,
            Some(_) if chunked => return Err(Unreadable::Refused(400)),
            Some(value) => value.parse::<usize>().map_err(|_| Unreadable::Refused(400))?,
        };
        if length > MAX_BODY {
            return Err(Unreadable::Refused(413));
        }
        let waits = header(&raw.headers, "expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue"));
        if waits && (chunked || length > 0) {
            (&*self.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if chunked {
            raw.body = self.read_chunks()?;
        } else if length > 0 {
            raw.body = vec![0; length];
            (&*self.stream).read_exact(&mut raw.body[..length - 1])?;
            raw.body[length - 1] = self.look()?;
        }
        Ok(Some(raw))
    }

    fn read_head(&self) -> Result<Option<Vec<u8>>, Unreadable> {
        let mut head = Vec::new();
        let mut seen = [0; 16 * 1024];
        loop {
            let count = match self.stream.peek(&mut seen) {
                Ok(0) if head.is_empty() => return Ok(None),
                Ok(0) => return Err(Unreadable::Gone),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let before = head.len();
            head.extend_from_slice(&seen[..count]);
            let from = before.saturating_sub(3);
            let end = head[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
            let taken = end.map_or(count, |end| end - before);
            (&*self.stream).read_exact(&mut seen[..taken])?;
            if let Some(end) = end {
                head.truncate(end);
                return Ok(Some(head));
            }
            if head.len() > MAX_HEAD {
                return Err(Unreadable::Refused(431));
            }
        }
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>, Unreadable> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).map_err(|_| Unreadable::Refused(400))?;
            if size == 0 {
                break;
            }
            if size > MAX_BODY - body.len() {
                return Err(Unreadable::Refused(413));
            }
            let start = body.len();
            body.resize(start + size, 0);
            (&*self.stream).read_exact(&mut body[start..])?;
            if !self.read_line()?.is_empty() {
                return Err(Unreadable::Refused(400));
            }
        }
        // Trailers, up to the line that is empty: its line feed stays unread.
        loop {
            let first = self.take()?;
            if first == b'\r' {
                self.look()?;
                return Ok(body);
            }
            self.read_line()?;
        }
    }

    fn read_line(&self) -> Result<String, Unreadable> {
        let mut line = Vec::new();
        loop {
            match self.take()? {
                b'\n' => break,
                byte => line.push(byte),
            }
            if line.len() > MAX_HEAD {
                return Err(Unreadable::Refused(431));
            }
        }
        if line.pop() != Some(b'\r') {
            return Err(Unreadable::Refused(400));
        }
        String::from_utf8(line).map_err(|_| Unreadable::Refused(400))
    }

    fn take(&self) -> io::Result<u8> {
        let mut byte = [0];
        (&*self.stream).read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn look(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        loop {
            match self.stream.peek(&mut byte) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unread = true;
        Ok(byte[0])
    }

    /// Sends bytes, after taking what was left unread of the request.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.unread {
            self.take()?;
            self.unread = false;
        }
        (&*self.stream).write_all(bytes)
    }

    /// Whether the client has closed its end meanwhile. A byte left unread would hide that, so it is taken now.
    pub(crate) fn abandoned(&mut self) -> bool {
        if self.unread && self.take().is_err() {
            return true;
        }
        self.unread = false;
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let closed = match self.stream.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false).is_err() || closed
    }

    /// Ends the connection in an orderly way after a refusal, so that the client can still read it.
    pub(crate) fn linger(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(500)));
        let mut sink = [0; 4096];
        for _ in 0..1024 {
            match (&*self.stream).read(&mut sink) {
                Ok(count) if count > 0 => {}
                _ => break,
            }
        }
    }
}

fn parse_head(head: &[u8]) -> Option<Raw> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target, version) = (first.next()?, first.next()?, first.next()?);
    if first.next().is_some() || method.is_empty() || !target.starts_with('/') {
        return None;
    }
    let mut headers = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return None;
        }
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let wish = header(&headers, "connection").unwrap_or_default();
    let keep_alive = match version {
        "HTTP/1.1" => header(&headers, "host").is_some().then(|| !wish.eq_ignore_ascii_case("close"))?,
        "HTTP/1.0" => wish.eq_ignore_ascii_case("keep-alive"),
        _ => return None,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(Raw {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
        keep_alive,
    })
}

/// The first header of that (lower-case) name.
pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// An answer to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A JSON answer with status 200, as the Web API gives for success and failure alike.
    pub(crate) fn json(value: &Value) -> Self {
        Self {
            status: 200,
            content_type: "application/json; charset=utf-8",
            headers: Vec::new(),
            body: value.to_string().into_bytes(),
        }
    }

    /// A plain-text answer, as webhooks give.
    pub(crate) fn text(status: u16, body: &str) -> Self {
        let content_type = "text/html; charset=utf-8";
        Self { status, content_type, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    /// The head for this answer. `date` is the server's clock in seconds since the epoch.
    pub(crate) fn head(&self, date: i64, keep_alive: bool) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let _ = write!(head, "Date: {}\r\n", http_date(date));
        if !self.body.is_empty() {
            let _ = write!(head, "Content-Type: {}\r\n", self.content_type);
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
        head.push_str(if keep_alive {
            "Connection: keep-alive\r\n\r\n"
        } else {
            "Connection: close\r\n\r\n"
        });
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

/// The form of time HTTP wants: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin in March here, so that the leap day comes last.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    // Both remainders are small and not negative.
    let pick = |number: i64| usize::try_from(number).unwrap_or_default();
    let (name, month_name) = (DAYS[pick(day.rem_euclid(7))], MONTHS[pick(month)]);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{name}, {date:02} {month_name} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Decodes `a=1&b=2`, as it stands in a query or a form.
pub(crate) fn form(text: &str) -> Option<Map<String, Value>> {
    let mut args = Map::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        args.insert(decode(name)?, Value::String(decode(value)?));
    }
    Some(args)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
