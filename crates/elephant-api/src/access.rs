//! Who may use the server: everyone who reaches it, unless a token is set.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::problem::Problem;

/// The bearer token, if one is required, and the web pages that may call the server.
#[derive(Clone, Default)]
pub struct Access {
    token: Option<String>,
    origins: Vec<HeaderValue>,
}

impl Access {
    /// Requires `token` from every request but those for health, when it is given; lets pages of `origins` in.
    pub fn new(token: Option<String>, origins: Vec<HeaderValue>) -> Self {
        Self { token, origins }
    }

    pub(crate) fn origins(&self) -> &[HeaderValue] {
        &self.origins
    }

    fn allows(&self, request: &Request) -> bool {
        let Some(token) = &self.token else { return true };
        if request.uri().path().starts_with("/health/") {
            return true;
        }
        let given =
            request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| equal_in_constant_time(given, token.as_bytes()))
    }
}

/// Whether a browser's page of another host, which is not let in, opens a WebSocket: the rules of CORS do not hold there.
fn is_foreign_socket(access: &Access, request: &Request) -> bool {
    let header = |name| request.headers().get(name);
    let (Some(_), Some(origin)) = (header(header::UPGRADE), header(header::ORIGIN)) else { return false };
    let is_own = |origin: &str| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some() && host == header(header::HOST).and_then(|host| host.to_str().ok())
    };
    !access.origins.contains(origin) && !origin.to_str().is_ok_and(is_own)
}

/// Takes as long for a wrong first byte as for a wrong last one.
fn equal_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

pub(crate) async fn check_access(State(access): State<Access>, request: Request, next: Next) -> Response {
    if is_foreign_socket(&access, &request) {
        let message = "web pages of this origin may not call the server; let them in with --cors-origin";
        return Problem::new(StatusCode::FORBIDDEN, message).into_response();
    }
    if access.allows(&request) {
        return next.run(request).await;
    }
    Problem::new(StatusCode::UNAUTHORIZED, "this server requires a token; send it as Authorization: Bearer TOKEN")
        .into_response()
}
