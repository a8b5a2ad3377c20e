//! Connections: how many there may be, and how long one may keep its place without using it.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    serve::Listener,
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What connections may take.
#[derive(Clone, Copy)]
struct Limits {
    /// Connections at once. Each is an open file, of which a process often may have 1024.
    connections: u32,
    /// How long a connection may be without a request, and how long the head of a request may take.
    head: Duration,
    /// How long a client may be out of reach, or take nothing of a reply that it asked for.
    absence: Duration,
}

const LIMITS: Limits = Limits { connections: 512, head: Duration::from_mins(1), absence: Duration::from_mins(5) };

/// How long what is left of a reply may take to go out over a connection that is closed to make room.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Serves `router` until `closing` is cancelled and the requests that run then have ended.
pub async fn serve(listener: TcpListener, router: Router, closing: CancellationToken) {
    serve_within(LIMITS, listener, router, closing).await;
}

async fn serve_within(limits: Limits, mut listener: TcpListener, router: Router, closing: CancellationToken) {
    let connections = Arc::new(Connections::new(limits.connections));
    loop {
        let next = async {
            let (stream, _) = Listener::accept(&mut listener).await;
            (stream, connections.place().await)
        };
        let (stream, place) = tokio::select! {
            next = next => next,
            () = closing.cancelled() => break,
        };
        notice_absence(&stream, limits.absence);
        let connection = Connection::new(connections.clone(), place);
        tokio::spawn(serve_connection(limits, stream, connection, router.clone(), closing.clone()));
    }
    drop(listener);
    // All places are free again when the last connection has ended; the semaphore is never closed.
    let _ = connections.places.acquire_many(limits.connections).await;
}

/// Has the system end a connection whose client has gone without a word, or reads nothing.
fn notice_absence(stream: &TcpStream, absence: Duration) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(absence / 5).with_interval(absence / 5);
    // Connections work without.
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(absence));
}

async fn serve_connection(
    limits: Limits,
    stream: TcpStream,
    connection: Arc<Connection>,
    router: Router,
    closing: CancellationToken,
) {
    let service = service_fn({
        let connection = connection.clone();
        move |request: hyper::Request<Incoming>| {
            let busy = Busy::new(connection.clone());
            let response = router.clone().oneshot(request.map(Body::new));
            async move { Ok::<_, Infallible>(response.await?.map(|body| Body::new(ReplyBody { body, _busy: busy }))) }
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let mut http = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut ending = false;
    loop {
        tokio::select! {
            // An error means that the client has gone or does not speak HTTP.
            _ = http.as_mut() => return,
            () = connection.unwanted.cancelled(), if !ending => {
                http.as_mut().graceful_shutdown();
                let ended = timeout(LAST_WORDS, http.as_mut()).await.is_ok();
                if ended || connection.is_waiting() {
                    return;
                }
            }
            () = closing.cancelled(), if !ending => http.as_mut().graceful_shutdown(),
        }
        ending = true;
    }
}

/// All connections, to find one that can be closed when there are too many.
struct Connections {
    places: Arc<Semaphore>,
    /// Those without a request, in the order in which they began to wait for one.
    waiting: Mutex<BTreeMap<u64, CancellationToken>>,
    next_turn: AtomicU64,
}

impl Connections {
    fn new(places: u32) -> Self {
        let places = Arc::new(Semaphore::new(places as usize));
        Self { places, waiting: Mutex::default(), next_turn: AtomicU64::new(BUSY + 1) }
    }

    /// No step under this lock leaves the map half changed.
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. When all are taken, the connection that has waited longest is closed; where none
    /// waits, one that comes to that, or whose place becomes free.
    async fn place(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return place;
        }
        loop {
            if let Some((_, unwanted)) = self.waiting().pop_first() {
                unwanted.cancel();
            }
            if let Ok(place) = timeout(2 * LAST_WORDS, self.places.clone().acquire_owned()).await {
                return place.expect("the semaphore is never closed");
            }
        }
    }
}

/// The turn of a connection that does not wait.
const BUSY: u64 = 0;

struct Connection {
    all: Arc<Connections>,
    turn: AtomicU64,
    unwanted: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(all: Arc<Connections>, place: OwnedSemaphorePermit) -> Arc<Self> {
        let connection = Self { all, turn: AtomicU64::new(BUSY), unwanted: CancellationToken::new(), _place: place };
        connection.wait();
        metrics::gauge!("elephant_http_connections").increment(1.0);
        Arc::new(connection)
    }

    fn is_waiting(&self) -> bool {
        self.turn.load(Ordering::Relaxed) != BUSY
    }

    fn wait(&self) {
        let turn = self.all.next_turn.fetch_add(1, Ordering::Relaxed);
        self.turn.store(turn, Ordering::Relaxed);
        if !self.unwanted.is_cancelled() {
            self.all.waiting().insert(turn, self.unwanted.clone());
        }
    }

    fn stop_waiting(&self) {
        let turn = self.turn.swap(BUSY, Ordering::Relaxed);
        self.all.waiting().remove(&turn);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop_waiting();
        metrics::gauge!("elephant_http_connections").decrement(1.0);
    }
}

/// While this lives, its connection has a request.
struct Busy(Arc<Connection>);

impl Busy {
    fn new(connection: Arc<Connection>) -> Self {
        connection.stop_waiting();
        Self(connection)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// The body of a reply, at whose end the connection waits for the next request.
struct ReplyBody {
    body: Body,
    _busy: Busy,
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{
        middleware,
        routing::{get, post},
    };
    use futures_util::{StreamExt, stream};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::Notify,
        task::JoinHandle,
    };

    use super::*;

    /// How long anything may take on a busy machine.
    const DEADLINE: Duration = Duration::from_mins(1);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    struct Server {
        address: SocketAddr,
        closing: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Server {
        async fn start(limits: Limits, router: Router) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let closing = CancellationToken::new();
            let task = tokio::spawn(serve_within(limits, listener, router, closing.clone()));
            Self { address, closing, task }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn stop(self) {
            self.closing.cancel();
            timeout(DEADLINE, self.task).await.expect("the server ends").unwrap();
        }
    }

    /// What comes next, at most until `end`; empty when the connection was closed.
    async fn read_to(stream: &mut TcpStream, end: &[u8]) -> String {
        let mut reply = Vec::new();
        let mut byte = [0];
        while !reply.ends_with(end)
            && timeout(DEADLINE, stream.read(&mut byte)).await.unwrap().is_ok_and(|read| read > 0)
        {
            reply.extend_from_slice(&byte);
        }
        String::from_utf8(reply).unwrap()
    }

    async fn ask(stream: &mut TcpStream) {
        stream.write_all(GET).await.unwrap();
        let reply = read_to(stream, b"done").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.ends_with("done"), "{reply:?}");
    }

    fn few(connections: u32) -> Limits {
        Limits { connections, ..LIMITS }
    }

    #[tokio::test]
    async fn connections_that_wait_make_room_and_those_at_work_stay() {
        let go_on = Arc::new(Notify::new());
        let slow = get({
            let go_on = go_on.clone();
            async move || {
                go_on.notified().await;
                "done"
            }
        });
        let server = Server::start(few(4), Router::new().route("/", get("done")).route("/slow", slow)).await;
        let mut silent = server.connect().await;
        let mut half = server.connect().await;
        half.write_all(b"GET / HTTP/1.1\r\nHost: lo").await.unwrap();
        let mut busy = server.connect().await;
        busy.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut others = Vec::new();
        for _ in 0..20 {
            let mut stream = server.connect().await;
            ask(&mut stream).await;
            others.push(stream);
        }
        assert_eq!(read_to(&mut silent, b"never").await, "", "closed");
        assert_eq!(read_to(&mut half, b"never").await, "", "closed");
        assert_eq!(read_to(&mut others[0], b"never").await, "", "closed");
        ask(others.last_mut().unwrap()).await;
        go_on.notify_one();
        assert!(read_to(&mut busy, b"done").await.ends_with("done"));
        server.stop().await;
    }

    #[tokio::test]
    async fn a_connection_that_sends_no_request_is_closed() {
        let limits = Limits { head: Duration::from_millis(300), ..LIMITS };
        let server = Server::start(limits, Router::new().route("/", get("done"))).await;
        for beginning in [b"" as &[u8], b"GET / HTTP/1.1\r\nHost: lo"] {
            let mut stream = server.connect().await;
            stream.write_all(beginning).await.unwrap();
            assert_eq!(read_to(&mut stream, b"never").await, "");
        }
        let mut stream = server.connect().await;
        ask(&mut stream).await;
        ask(&mut stream).await;
        assert_eq!(read_to(&mut stream, b"never").await, "");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_reply_is_left() {
        let (held, released) = tokio::sync::oneshot::channel::<()>();
        let held = Arc::new(Mutex::new(Some(held)));
        let endless = get(async move || {
            let held = held.lock().unwrap().take();
            let chunks = stream::repeat(Bytes::from(vec![0; 1 << 20])).map(move |chunk| {
                let _until_the_end = &held;
                Ok::<_, Infallible>(chunk)
            });
            Body::from_stream(chunks)
        });
        let limits = Limits { absence: Duration::from_secs(1), ..LIMITS };
        let server = Server::start(limits, Router::new().route("/", endless)).await;
        let mut stream = server.connect().await;
        stream.write_all(GET).await.unwrap();
        assert!(timeout(DEADLINE, released).await.expect("the reply is given up").is_err());
        server.stop().await;
    }

    #[tokio::test]
    async fn what_runs_ends_before_the_server() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = get({
            let (begun, go_on) = (begun.clone(), go_on.clone());
            async move || {
                begun.notify_one();
                go_on.notified().await;
                "done"
            }
        });
        let server = Server::start(LIMITS, Router::new().route("/", slow)).await;
        let _idle = server.connect().await;
        let mut busy = server.connect().await;
        busy.write_all(GET).await.unwrap();
        begun.notified().await;
        server.closing.cancel();
        go_on.notify_one();
        assert!(read_to(&mut busy, b"done").await.ends_with("done"));
        server.stop().await;
    }

    /// As Java's client: the whole request first, then the reply.
    async fn send_all(stream: &mut TcpStream, head: &str, bytes: usize) -> String {
        stream.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..bytes / piece.len() {
            timeout(DEADLINE, stream.write_all(&piece)).await.unwrap().expect("the server goes on reading");
        }
        read_to(stream, b"done").await
    }

    #[tokio::test]
    async fn a_refusal_reaches_a_client_that_is_still_sending() {
        const BYTES: usize = 32 << 20;
        let refuse = post(async || (axum::http::StatusCode::FORBIDDEN, "done"));
        let router = Router::new().route("/", refuse).layer(middleware::from_fn(crate::body::watch_body));
        let server = Server::start(LIMITS, router).await;
        for options in ["", "Connection: close\r\n"] {
            let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{options}Content-Length: {BYTES}\r\n\r\n");
            let mut stream = server.connect().await;
            // The connection serves further requests, unless the client does not want that.
            for _ in 0..if options.is_empty() { 3 } else { 1 } {
                let reply = send_all(&mut stream, &head, BYTES).await;
                assert!(reply.starts_with("HTTP/1.1 403 Forbidden") && reply.ends_with("done"), "{reply:?}");
            }
        }
        // Who asks first is not asked to send.
        let mut stream = server.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let reply = read_to(&mut stream, b"done").await;
        assert!(reply.starts_with("HTTP/1.1 403 Forbidden") && reply.ends_with("done"), "{reply:?}");
        server.stop().await;
    }
}
