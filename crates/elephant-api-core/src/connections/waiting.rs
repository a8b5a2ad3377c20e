//! Which connections wait for their clients, so that one of them can be closed when there are too many.
//!
//! A connection waits while it has no request, and while the body that its request announces has not begun. It does not
//! wait from then until the last byte of the reply has been written to the socket.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// All connections, to find one that can be closed when there are too many.
pub(super) struct Connections {
    pub(super) places: Arc<Semaphore>,
    /// Those that wait for their clients, in the order in which they began to.
    waiting: Mutex<BTreeMap<u64, CancellationToken>>,
    next_turn: AtomicU64,
}

impl Connections {
    pub(super) fn new(places: u32) -> Self {
        let places = Arc::new(Semaphore::new(places as usize));
        Self { places, waiting: Mutex::default(), next_turn: AtomicU64::new(REPLIED + 1) }
    }

    /// No step under this lock leaves the map half changed.
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. When all are taken, the connection that has waited longest is closed; where none
    /// waits, one that comes to that, or whose place becomes free.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return place;
        }
        loop {
            if let Some((_, unwanted)) = self.waiting().pop_first() {
                unwanted.cancel();
            }
            if let Ok(place) = timeout(2 * super::LAST_WORDS, self.places.clone().acquire_owned()).await {
                return place.expect("the semaphore is never closed");
            }
        }
    }
}

/// The turn of a connection whose request is being answered.
const BUSY: u64 = 0;
/// The turn of one whose reply is complete but not written to the socket yet.
const REPLIED: u64 = 1;

pub(super) struct Connection {
    all: Arc<Connections>,
    turn: AtomicU64,
    pub(super) unwanted: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    pub(super) fn new(all: Arc<Connections>, place: OwnedSemaphorePermit) -> Arc<Self> {
        let connection = Self { all, turn: AtomicU64::new(BUSY), unwanted: CancellationToken::new(), _place: place };
        connection.wait();
        metrics::gauge!("elephant_http_connections").increment(1.0);
        Arc::new(connection)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.turn.load(Ordering::Relaxed) > REPLIED
    }

    /// Begins to wait, behind all others, and returns its turn.
    fn wait(&self) -> u64 {
        let turn = self.all.next_turn.fetch_add(1, Ordering::Relaxed);
        self.change_turn(turn);
        if !self.unwanted.is_cancelled() {
            self.all.waiting().insert(turn, self.unwanted.clone());
        }
        turn
    }

    fn change_turn(&self, turn: u64) {
        let before = self.turn.swap(turn, Ordering::Relaxed);
        self.all.waiting().remove(&before);
    }

    /// Stops waiting, if it still waits in `turn`.
    fn stop_waiting(&self, turn: u64) {
        if self.turn.compare_exchange(turn, BUSY, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.all.waiting().remove(&turn);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.change_turn(BUSY);
        metrics::gauge!("elephant_http_connections").decrement(1.0);
    }
}

/// Begins a request of `connection`: its body, and what belongs into the [`ReplyBody`].
pub(super) fn begin(connection: &Arc<Connection>, body: Incoming) -> (RequestBody, Busy) {
    let awaited = if body.is_end_stream() {
        connection.change_turn(BUSY);
        None
    } else {
        Some((Arc::downgrade(connection), connection.wait()))
    };
    (RequestBody { body, awaited }, Busy(connection.clone()))
}

/// While this lives, its connection has a request.
pub(super) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change_turn(REPLIED);
    }
}

/// The body of a request, for whose beginning its connection waits.
pub(super) struct RequestBody {
    body: Incoming,
    /// The connection and its turn, until the body begins.
    awaited: Option<(Weak<Connection>, u64)>,
}

impl RequestBody {
    fn stop_waiting(&mut self) {
        if let Some((connection, turn)) = self.awaited.take()
            && let Some(connection) = connection.upgrade()
        {
            connection.stop_waiting(turn);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.stop_waiting();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    /// A request that is answered without its body.
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

/// The body of a reply.
pub(super) struct ReplyBody {
    pub(super) body: Body,
    pub(super) _busy: Busy,
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket of a connection, which waits for the next request when a reply is complete and written. hyper flushes the
/// socket whenever it has written all that it holds.
pub(super) struct Socket {
    stream: TcpStream,
    /// Gone when the socket has become a WebSocket.
    connection: Weak<Connection>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, connection: &Arc<Connection>) -> Self {
        Self { stream, connection: Arc::downgrade(connection) }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(connection) = self.connection.upgrade()
            && connection.turn.load(Ordering::Relaxed) == REPLIED
        {
            connection.wait();
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
