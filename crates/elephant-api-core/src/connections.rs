//! Connections: how many there may be, and how long one may keep its place without using it.

mod waiting;

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, serve::Listener};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use self::waiting::{Connection, Connections, ReplyBody, Socket, begin};

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

/// How long a connection that is closed to make room may take to end, or its request to come after all.
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
            let (head, body) = request.into_parts();
            let (body, busy) = begin(&connection, body);
            let response = router.clone().oneshot(hyper::Request::from_parts(head, Body::new(body)));
            async move { Ok::<_, Infallible>(response.await?.map(|body| Body::new(ReplyBody { body, _busy: busy }))) }
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let socket = Socket::new(stream, &connection);
    let mut http = pin!(builder.serve_connection(TokioIo::new(socket), service).with_upgrades());
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

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Mutex};

    use axum::{
        body::Bytes,
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
    async fn a_reply_that_is_being_written_stays_whole() {
        // More than the buffers of two sockets hold.
        const BYTES: usize = 64 << 20;
        let large = get(async || [&vec![b'x'; BYTES - 4][..], b"done"].concat());
        let server = Server::start(few(2), Router::new().route("/", get("done")).route("/large", large)).await;
        let mut slow = server.connect().await;
        slow.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let head = read_to(&mut slow, b"\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let mut kept = Vec::new();
        for _ in 0..5 {
            let mut stream = server.connect().await;
            ask(&mut stream).await;
            kept.push(stream);
        }
        // Longer than a connection has that makes room.
        tokio::time::sleep(3 * LAST_WORDS).await;
        let mut body = vec![0; BYTES];
        timeout(DEADLINE, slow.read_exact(&mut body)).await.unwrap().expect("the whole reply comes");
        assert!(body.ends_with(b"done"));
        for _ in 0..2 {
            let mut stream = server.connect().await;
            ask(&mut stream).await;
            kept.push(stream);
        }
        assert_eq!(read_to(&mut slow, b"never").await, "", "it makes room when it has its reply");
        server.stop().await;
    }

    #[tokio::test]
    async fn requests_whose_body_does_not_begin_make_room() {
        let begun = Arc::new(Notify::new());
        let read = post({
            let begun = begun.clone();
            async move |body: Body| {
                let mut chunks = body.into_data_stream();
                while chunks.next().await.is_some_and(|chunk| chunk.is_ok()) {
                    begun.notify_one();
                }
                "done"
            }
        });
        let server = Server::start(few(4), Router::new().route("/", get("done")).route("/read", read)).await;
        let head = b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n";
        let mut sending = server.connect().await;
        sending.write_all(&[&head[..], b"x"].concat()).await.unwrap();
        begun.notified().await;
        let mut silent = Vec::new();
        for _ in 0..6 {
            let mut stream = server.connect().await;
            stream.write_all(head).await.unwrap();
            silent.push(stream);
        }
        for _ in 0..5 {
            ask(&mut server.connect().await).await;
        }
        assert_eq!(read_to(&mut silent[0], b"never").await, "", "closed");
        sending.write_all(b"x").await.unwrap();
        assert!(read_to(&mut sending, b"done").await.ends_with("done"), "it has been sending");
        // The server would wait for their bodies.
        drop(silent);
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
