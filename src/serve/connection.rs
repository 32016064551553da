//! One connection: how much a caller may send, and how long it may take.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Log;
use super::reply::Refusal;
use super::steady::Steady;

/// How long a request's head may take, and how long a connection may rest between two.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a request may take from its head to the answer, its body included.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// The longest head, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// The longest body, in bytes.
pub(super) const BODY_MAX: usize = 1024 * 1024;
/// For how long a connection is still listened to after we have said all.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// What one caller too many is told.
pub(super) const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\ncontent-length: 69\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"error\":\"too many connections\",\"hint\":\"try again in a few seconds\"}\n";

/// Answers the requests of a connection until either side wants no more; what is left of it is to be closed.
pub(super) async fn attend(
    stream: TcpStream,
    router: Router,
    log: Option<Log>,
    mut ending: watch::Receiver<()>,
) -> TcpStream {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let service = service.clone();
        let log = log.clone();
        // Boxed, so that the connection can be taken apart at its end.
        Box::pin(async move {
            let begun = Instant::now();
            let line = log.is_some().then(|| format!("{} {}", request.method(), request.uri()));
            let response = answer(&service, request).await;
            if let (Some(log), Some(line)) = (log, line) {
                log(&format!("{line}: {} after {:.1?}", response.status().as_u16(), begun.elapsed()));
            }
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(HEAD_MAX)
        .max_buf_size(HEAD_MAX)
        // Whoever has said all may still listen.
        .half_close(true)
        .serve_connection(TokioIo::new(Steady::new(stream)), service);
    let mut end = pin!(ending.changed());
    let mut is_ending = false;
    // What failed is between the caller and its network; hyper has told it what can be told.
    let _ = poll_fn(|cx| {
        if !is_ending && end.as_mut().poll(cx).is_ready() {
            is_ending = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    connection.into_parts().io.into_inner().into_inner()
}

async fn answer(service: &TowerToHyperService<Router>, request: hyper::Request<Incoming>) -> Response {
    if is_too_large(request.headers()) {
        return Refusal::too_large(BODY_MAX).closing();
    }
    match timeout(REQUEST_TIME, service.call(request.map(Body::new))).await {
        Ok(Ok(response)) => response,
        Err(_) => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("there was no answer within {} s", REQUEST_TIME.as_secs()),
            "try again later",
        )
        .until(Duration::from_secs(1))
        .closing(),
    }
}

fn is_too_large(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    length.is_some_and(|length| length > BODY_MAX)
}

/// Closes a connection. If something was still coming in, the system would otherwise tell the caller that the
/// connection was broken, and our last words would be lost.
pub(super) async fn part(mut stream: TcpStream) {
    let mut rubbish = [0; 16 * 1024];
    let listening = async {
        poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await?;
        loop {
            stream.readable().await?;
            match stream.try_read(&mut rubbish) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    };
    let _ = timeout(FAREWELL_TIME, listening).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_too_many_gets_a_whole_answer() {
        let text = String::from_utf8_lossy(TOO_MANY);
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    }
}
