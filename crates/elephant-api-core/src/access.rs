//! Who may use the server: everyone who reaches it, unless a token is set, but no web page of another origin.
//!
//! A browser sends requests for any page to any address, those of its own machine included. It says in `Origin` which
//! page asks and in `Host` which name led to the server. A page of another origin is refused by the first. The second
//! tells when a page had its own name resolve to this server's address (DNS rebinding), to pass for the server's own.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use crate::ApiError;

/// An option about access that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A header could not carry it, or clients would disagree on where it ends. The token itself is not shown.
    #[error("the token must be visible ASCII without blanks and line breaks, as `openssl rand -hex 32` makes it")]
    Token,
    /// Not `scheme://host[:port]`.
    #[error("{0:?} is not an origin of web pages; write it without a path, like https://lab.example.org")]
    Origin(String),
    /// Neither a name nor an address.
    #[error("{0:?} is not the name of a host; write the name alone, like labserver.example.org")]
    Host(String),
}

/// The bearer token, if one is required, the web pages that may call the server, and the names that lead to it.
#[derive(Clone)]
pub struct Access {
    token: Option<String>,
    origins: Vec<HeaderValue>,
    hosts: Vec<String>,
    /// Whether the server is reached from this machine only.
    loopback: bool,
}

impl Access {
    /// Access to a server that listens on `address`. `token` is required from every request but those for health, when
    /// there is one. Pages of `origins` may call it, and `hosts` are names of the server beside those of its machine.
    /// Empty texts count as not given.
    ///
    /// # Errors
    /// When one of these cannot be what it is given as.
    pub fn new(
        address: IpAddr,
        token: Option<&str>,
        origins: &[String],
        hosts: &[String],
    ) -> Result<Self, AccessError> {
        let given = |texts: &[String]| -> Vec<String> {
            texts.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
        };
        let token = token.filter(|token| !token.is_empty());
        if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(AccessError::Token);
        }
        let origins = given(origins).into_iter().map(|text| origin(&text).ok_or(AccessError::Origin(text)));
        let hosts = given(hosts).into_iter().map(|text| match authority(text.as_bytes()) {
            Some(host) if typed(host.as_str()).is_some() => Ok(name(&host)),
            _ => Err(AccessError::Host(text)),
        });
        let loopback = address.to_canonical().is_loopback();
        let mut hosts = hosts.collect::<Result<Vec<_>, _>>()?;
        if !loopback {
            hosts.extend(names_of_this_machine());
        }
        Ok(Self { token: token.map(str::to_owned), origins: origins.collect::<Result<_, _>>()?, hosts, loopback })
    }

    pub(crate) fn origins(&self) -> &[HeaderValue] {
        &self.origins
    }

    /// Refuses what may come from a foreign web page.
    fn check_page(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut named = headers.get_all(header::HOST).iter();
        let host = named.next().map(|host| authority(host.as_bytes()).ok_or_else(malformed_host)).transpose()?;
        if named.next().is_some() {
            return Err(malformed_host());
        }
        if let Some(unknown) = uri.authority().into_iter().chain(&host).find(|host| !self.knows(host)) {
            return Err(unknown_host(unknown));
        }
        let is_own = |origin: &str| {
            let host_of_page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            host_of_page.zip(host.as_ref()).is_some_and(|(page, host)| host.as_str().eq_ignore_ascii_case(page))
        };
        let may_call = |origin: &HeaderValue| self.origins.contains(origin) || origin.to_str().is_ok_and(is_own);
        if let Some(foreign) = headers.get_all(header::ORIGIN).iter().find(|origin| !may_call(origin)) {
            return Err(foreign_page(foreign));
        }
        // A page's images and scripts come without an origin. Links that a user follows are allowed.
        let says = |name: &str, values: &[&str]| {
            headers.get(name).is_some_and(|value| values.iter().any(|expected| value.as_bytes() == expected.as_bytes()))
        };
        let is_foreign = says("sec-fetch-site", &["cross-site", "same-site"]);
        if is_foreign && !headers.contains_key(header::ORIGIN) && !says("sec-fetch-mode", &["navigate"]) {
            let message = "web pages of other origins may not load parts of this server";
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
        Ok(())
    }

    /// Whether no foreign page can have come by this name of the server. Such a page knows no token, so that every name
    /// will do where one is required.
    fn knows(&self, host: &Authority) -> bool {
        let name = name(host);
        let is_address = |address: IpAddr| !self.loopback || address.to_canonical().is_loopback();
        self.token.is_some()
            || name == "localhost"
            || name.trim_matches(['[', ']']).parse().is_ok_and(is_address)
            || self.hosts.contains(&name)
    }

    fn has_token(&self, request: &Request) -> bool {
        let Some(token) = &self.token else { return true };
        if request.uri().path().starts_with("/health/") {
            return true;
        }
        let given =
            request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| given.ct_eq(token.as_bytes()).into())
    }
}

/// A host and its port, without a user's name.
fn authority(text: &[u8]) -> Option<Authority> {
    Authority::try_from(text).ok().filter(|_| !text.contains(&b'@'))
}

/// The host without its port, in lower case, without the dot that may end it.
fn name(host: &Authority) -> String {
    let name = host.host().to_ascii_lowercase();
    name.strip_suffix('.').unwrap_or(&name).to_owned()
}

/// `scheme://host[:port]` as browsers write it.
fn origin(text: &str) -> Option<HeaderValue> {
    let text = typed(text)?.to_ascii_lowercase();
    let (scheme, host) = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty())?;
    let host = authority(host.strip_suffix('/').unwrap_or(host).as_bytes())?;
    let host = match (scheme, host.port_u16()) {
        ("http", Some(80)) | ("https", Some(443)) => host.host(),
        _ => host.as_str(),
    };
    format!("{scheme}://{host}").parse().ok()
}

/// How other machines of a network call this one; no foreign name resolves to it by these.
fn names_of_this_machine() -> Vec<String> {
    let Ok(name) = sysinfo::System::host_name() else { return Vec::new() };
    let name = name.to_ascii_lowercase();
    let short = name.split('.').next().unwrap_or(&name).to_owned();
    vec![format!("{short}.local"), short, name]
}

fn malformed_host() -> ApiError {
    ApiError::bad_request("the request must name one host, like Host: localhost:8080")
}

fn unknown_host(host: &Authority) -> ApiError {
    let name = name(host);
    let name = typed(&name).unwrap_or("NAME");
    let message = format!("start the server with --allowed-host {name}, as this request calls it by that name");
    ApiError::new(StatusCode::FORBIDDEN, message)
}

fn foreign_page(page: &HeaderValue) -> ApiError {
    let message = match page.to_str().ok().filter(|page| origin(page).is_some()) {
        Some(page) => format!("start the server with --cors-origin {page}, to let this web page in"),
        None => "a web page that does not say where it comes from is not let in".into(),
    };
    ApiError::new(StatusCode::FORBIDDEN, message)
}

/// `text`, if it can be typed into a shell as it is.
fn typed(text: &str) -> Option<&str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:.-_[]".contains(c);
    Some(text).filter(|text| text.len() <= 100 && text.chars().all(is_plain))
}

/// Refuses requests of foreign web pages, the questions of their browsers included.
pub(crate) async fn check_page(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.check_page(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Refuses requests without the token, where one is required.
pub(crate) async fn check_token(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.has_token(&request) {
        return next.run(request).await;
    }
    ApiError::new(StatusCode::UNAUTHORIZED, "this server requires a token; send it as Authorization: Bearer TOKEN")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(address: &str, token: Option<&str>) -> Access {
        let origins = ["https://UI.lab.example.org/".into(), "http://localhost:3000".into(), String::new()];
        let hosts = [" LabServer.example.org.".into(), String::new()];
        Access::new(address.parse().unwrap(), token, &origins, &hosts).unwrap()
    }

    /// The status with which a request with these headers is refused; 200 when it is not.
    fn status(access: &Access, uri: &str, headers: &[(header::HeaderName, &str)]) -> u16 {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| map.try_append(name, value).map(drop).unwrap());
        match access.check_page(&uri.parse().unwrap(), &map) {
            Ok(()) => 200,
            Err(error) => error.into_response().status().as_u16(),
        }
    }

    #[test]
    fn the_server_answers_to_names_that_no_one_else_can_give_it() {
        let local = access("127.0.0.1", None);
        let open = access("0.0.0.0", None);
        let own = names_of_this_machine().pop().unwrap();
        for (host, by_local, by_open) in [
            ("localhost", 200, 200),
            ("localhost:8080", 200, 200),
            ("LOCALHOST.:1", 200, 200),
            ("127.0.0.1:8080", 200, 200),
            ("127.8.9.1", 200, 200),
            ("[::1]:8080", 200, 200),
            ("[::ffff:127.0.0.1]", 200, 200),
            ("labserver.example.org:8080", 200, 200),
            ("192.168.1.5:8080", 403, 200),
            ("[fe80::1]:8080", 403, 200),
            ("0.0.0.0:8080", 403, 200),
            (own.as_str(), 403, 200),
            ("evil.example", 403, 403),
            ("labserver.example.org.evil.example", 403, 403),
            ("evil.example:8080", 403, 403),
            ("localhost.evil.example", 403, 403),
            ("127.0.0.1.evil.example", 403, 403),
            ("2130706433", 403, 403),
            ("127.1", 403, 403),
            ("localhost@evil.example", 400, 400),
            ("evil.example@localhost", 400, 400),
            ("localhost/evil.example", 400, 400),
            ("localhost, evil.example", 400, 400),
            ("", 400, 400),
        ] {
            assert_eq!(status(&local, "/", &[(header::HOST, host)]), by_local, "{host} on loopback");
            assert_eq!(status(&open, "/", &[(header::HOST, host)]), by_open, "{host} on all addresses");
        }
        // A page that came by another name knows no token.
        assert_eq!(status(&access("0.0.0.0", Some("secret")), "/", &[(header::HOST, "evil.example")]), 200);
        // Programs need not name a host; browsers always do.
        assert_eq!(status(&local, "/", &[]), 200);
        assert_eq!(status(&local, "/", &[(header::HOST, "localhost"), (header::HOST, "localhost")]), 400);
        // Every name in a request counts.
        assert_eq!(status(&local, "http://localhost:8080/state", &[(header::HOST, "localhost:8080")]), 200);
        assert_eq!(status(&local, "http://evil.example/state", &[(header::HOST, "localhost:8080")]), 403);
        assert_eq!(status(&local, "http://localhost:8080/state", &[(header::HOST, "evil.example")]), 403);
    }

    #[test]
    fn only_the_servers_own_and_allowed_pages_are_let_in() {
        let access = access("127.0.0.1", None);
        for (host, page, expected) in [
            ("localhost:8080", "http://localhost:8080", 200),
            ("localhost:8080", "HTTP://LOCALHOST:8080", 403),
            ("labserver.example.org", "https://labserver.example.org", 200),
            ("localhost:8080", "http://localhost:3000", 200),
            ("localhost:8080", "https://ui.lab.example.org", 200),
            ("localhost:8080", "http://ui.lab.example.org", 403),
            ("localhost:8080", "https://ui.lab.example.org:8443", 403),
            ("localhost:8080", "https://ui.lab.example.org.evil.example", 403),
            ("localhost:8080", "http://localhost", 403),
            ("localhost:8080", "http://localhost:8081", 403),
            ("localhost:8080", "http://127.0.0.1:8080", 403),
            ("localhost:8080", "https://evil.example", 403),
            ("localhost:8080", "http://localhost:8080.evil.example", 403),
            ("localhost:8080", "http://evil.example/?http://localhost:8080", 403),
            ("localhost:8080", "ftp://localhost:8080", 403),
            ("localhost:8080", "localhost:8080", 403),
            ("localhost:8080", "null", 403),
            ("localhost:8080", "", 403),
        ] {
            assert_eq!(status(&access, "/", &[(header::HOST, host), (header::ORIGIN, page)]), expected, "{page}");
        }
        assert_eq!(status(&access, "/", &[(header::ORIGIN, "http://localhost:8080")]), 403, "no host to be its own");
        let two = [(header::HOST, "localhost"), (header::ORIGIN, "http://localhost"), (header::ORIGIN, "https://evil")];
        assert_eq!(status(&access, "/", &two), 403);
    }

    #[test]
    fn refusals_say_what_to_do_and_nothing_that_a_shell_would_run() {
        let access = access("127.0.0.1", None);
        let text = |name: header::HeaderName, value: &str| {
            let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
            access.check_page(&Uri::from_static("/"), &headers).unwrap_err().message().to_owned()
        };
        assert!(text(header::HOST, "Labserver:8080").starts_with("start the server with --allowed-host labserver,"));
        assert!(text(header::HOST, "$(id).example").contains("--allowed-host NAME,"));
        assert!(text(header::HOST, &"x".repeat(101)).contains("--allowed-host NAME,"));
        assert!(text(header::ORIGIN, "https://a.example:1").contains("with --cors-origin https://a.example:1, to"));
        for page in ["null", "https://$(id)"] {
            assert!(text(header::ORIGIN, page).contains("does not say where it comes from"));
        }
    }

    #[test]
    fn unusable_options_are_named_and_no_token_is_shown() {
        let new = |token: Option<&str>, origin: &str, host: &str| {
            let access = Access::new([127, 0, 0, 1].into(), token, &[origin.into()], &[host.into()]);
            access.map(|access| access.token).map_err(|error| error.to_string())
        };
        assert_eq!(new(Some(""), "", ""), Ok(None));
        assert_eq!(new(Some("s3cret-._~+/="), "", ""), Ok(Some("s3cret-._~+/=".into())));
        for token in [" ", "s3cret ", "s3cret\n", "s3\tcret", "s3crét", "s3cret\0"] {
            let error = new(Some(token), "", "").unwrap_err();
            assert!(error.starts_with("the token must") && !error.contains("s3c"), "{error}");
        }
        for origin in [
            "*",
            "null",
            "lab.example.org",
            "https://lab.example.org/ui",
            "https://*.example.org",
            "https://",
            "https://a b",
            "://a",
        ] {
            assert!(new(None, origin, "").unwrap_err().contains("not an origin"), "{origin}");
        }
        for host in ["http://labserver", "labserver/ui", "a b", "user@labserver", "*"] {
            assert!(new(None, "", host).unwrap_err().contains("not the name of a host"), "{host}");
        }
    }
}
