//! Connections to the lookup: accepted, bounded in number, cut when they are slow. HTTP itself is hyper's.
//!
//! Every wait has an end: for the head of a request and between two requests, for a body (`http`), and for the peer to take an answer. Who comes
//! when there are enough is told so in one write and closed.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tower_service::Service as _;

use crate::limits;

/// Which of this machine's addresses the asker has reached. Stands among the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached(pub(super) IpAddr);

/// What is said to one too many.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-type: application/json\r\n\
content-length: 49\r\nconnection: close\r\n\r\n{\"error\":\"too many connections\",\"retry_after\": 5}";

/// Accepts until the runtime ends.
pub(super) async fn accept(listener: TcpListener, router: Router, held: Arc<AtomicUsize>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No file or no memory for another connection, or it is gone already. Whoever waits is accepted a little later.
            sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MILLIS)).await;
            continue;
        };
        if held.load(Ordering::Relaxed) >= limits::LOOKUP_CONNECTIONS {
            // The buffer of a new socket takes it; if not, the close says as much.
            let _ = stream.try_write(FULL);
            continue;
        }
        let place = Place::take(&held);
        let router = router.clone();
        tokio::spawn(async move {
            serve(stream, router).await;
            drop(place);
        });
    }
}

/// One of the connections that there may be.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(held))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(stream: TcpStream, router: Router) {
    // It has gone already, or it answers a little later: neither is worth a word.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let reached = Reached(local.ip().to_canonical());
    let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(reached);
        router.clone().call(request)
    });
    // An error is the peer's: it broke HTTP, was slow, or went. It has been answered where HTTP has an answer.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::LOOKUP_HEAD_TIME)
        .max_headers(limits::LOOKUP_HEADERS)
        .max_buf_size(limits::LOOKUP_HEAD_BYTES)
        .serve_connection(TokioIo::new(Taken::new(stream)), answer)
        .await;
}

/// A connection whose peer has to take what is written.
struct Taken {
    stream: TcpStream,
    /// Since when it doesn't, as a deadline.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Taken {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            deadline: None,
        }
    }

    /// A write that waits has a deadline, and one that does not has none.
    fn by_deadline<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(limits::LOOKUP_WRITE_TIME)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Taken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.by_deadline(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.by_deadline(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::FULL;

    #[test]
    fn the_fixed_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
