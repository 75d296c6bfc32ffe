//! Accepts HTTP connections, few of them, and none for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::Source;
use super::events::SUBSCRIBERS_MAX;
use super::routes::router;

/// Limits of the HTTP side; what is not here is said where it is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections at a time; a scraper, a dashboard and a few people need one or two each, and half of them may be
    /// streams of events. Others wait in the backlog of the kernel.
    pub(super) connections_max: usize,
    /// Time for the head of a request, from the moment one could be sent: also ends idle connections, which
    /// clients of HTTP open again by themselves.
    pub(super) head_timeout: Duration,
    /// Time in which a client must take some bytes of the answer.
    pub(super) write_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 2 * SUBSCRIBERS_MAX,
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// Bytes of the head of a request.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for answers under way when the server is told to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves the HTTP side until `shutdown`, then lets answers under way finish for up to two seconds.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn Source>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_within(Bounds::default(), listener, source, shutdown).await;
    Ok(())
}

pub(super) async fn serve_within(
    bounds: Bounds,
    listener: TcpListener,
    source: Arc<dyn Source>,
    shutdown: CancellationToken,
) {
    let router = router(source, shutdown.clone());
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(converse(bounds, stream, slot, service, shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, finished).await.is_err() {
        tracing::debug!("admin connections were cut off");
    }
}

/// Takes a slot first: what waits in the backlog costs us nothing.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// Answers the requests of one connection. The slot is held until its end.
async fn converse(
    bounds: Bounds,
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
    service: TowerToHyperService<axum::Router>,
    stop: CancellationToken,
) {
    let stream = TokioIo::new(Impatient::new(stream, bounds.write_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

/// A stream whose writes fail when the peer takes nothing for a while.
struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits for the peer.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Impatient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            deadline: None,
        }
    }

    fn poll_in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = poll(Pin::new(&mut self.stream), context) {
            self.deadline = None;
            return Poll::Ready(result);
        }
        let patience = self.patience;
        self.deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)))
            .as_mut()
            .poll(context)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_in_time(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_in_time(context, |stream, context| {
            stream.poll_write_vectored(context, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_in_time(context, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_in_time(context, AsyncWrite::poll_shutdown)
    }
}
