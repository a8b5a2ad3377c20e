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

/// Takes as long for a wrong first byte as for a wrong last one.
fn equal_in_constant_time(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

pub(crate) async fn require_token(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.allows(&request) {
        return next.run(request).await;
    }
    Problem::new(StatusCode::UNAUTHORIZED, "this server requires a token; send it as Authorization: Bearer TOKEN")
        .into_response()
}
