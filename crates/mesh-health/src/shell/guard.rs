//! Keeps browsers out. mesh-health has no page, so a browser that asks for something was sent here by somebody else's.
//!
//! What changes something is refused to all of them: they name where a request comes from. And where mesh-health answers
//! on this machine only, it is called by an address or `localhost`: another name was made to lead here, so that a page of
//! that name may read the answers. Where other people may log in to the machine, what changes something is for those who
//! show that they are operators.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::api::problem;

/// Decides on every request.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Where the daemon listens.
    pub listen: SocketAddr,
    /// What an operator shows; `None` if everybody is one.
    pub operator: Option<Arc<str>>,
}

/// Passes on what may be asked.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match refusal(&guard, &request) {
        Some((status, reason)) => problem(status, reason),
        None => next.run(request).await,
    }
}

fn refusal(guard: &Guard, request: &Request) -> Option<(StatusCode, &'static str)> {
    let headers = request.headers();
    if guard.listen.ip().is_loopback() && !is_local_name(headers) {
        let reason =
            "Ask by an IP address or as localhost: a name could have been made to lead here by anybody.";
        return Some((StatusCode::MISDIRECTED_REQUEST, reason));
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && is_from_browser(headers) {
        let reason = "This cannot be asked for by a browser; use the page of mesh-dashboard, or meshctl.";
        return Some((StatusCode::FORBIDDEN, reason));
    }
    let is_operator = |operator: &str| shown(headers).is_some_and(|shown| is_same(shown, operator));
    if changes && !guard.operator.as_deref().is_none_or(is_operator) {
        let reason = "This is for operators: ask by meshctl as root, or by the page after a login (dashboard.token_file).";
        return Some((StatusCode::FORBIDDEN, reason));
    }
    None
}

/// What comes after `Authorization: Bearer`.
fn shown(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

/// Looks at all of it, so that the time that it takes tells nothing of where the two differ.
fn is_same(shown: &str, wanted: &str) -> bool {
    let differences = shown
        .bytes()
        .zip(wanted.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    shown.len() == wanted.len() && differences == 0
}

/// Only a request of HTTP/1.0 has no host, and no browser sends one.
fn is_local_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        return true;
    };
    let authority: Option<Authority> = host.to_str().ok().and_then(|host| host.parse().ok());
    authority.is_some_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

/// Browsers have sent the one with every POST for many years, and the other with everything since 2023.
fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn status(listen: &str, method: Method, pairs: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri("/v1/failback");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let listen = listen.parse().unwrap();
        let operator = pairs
            .iter()
            .any(|(name, _)| *name == "asks")
            .then(|| "0123456789abcdef".into());
        refusal(&Guard { listen, operator }, &request).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn where_it_asks_for_operators_only_they_change_something() {
        let with = |method, shown| {
            status(
                "127.0.0.1:3001",
                method,
                &[("host", "localhost"), ("asks", ""), ("authorization", shown)],
            )
        };
        assert_eq!(with(Method::POST, "Bearer 0123456789abcdef"), None);
        assert_eq!(with(Method::GET, ""), None);
        for shown in [
            "",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeg",
            "0123456789abcdef",
        ] {
            assert_eq!(with(Method::POST, shown), Some(403), "{shown:?}");
        }
    }

    #[test]
    fn programs_may_ask_and_browsers_may_change_nothing() {
        let local = "127.0.0.1:3001";
        let host = ("host", "127.0.0.1:3001");
        assert_eq!(status(local, Method::POST, &[host]), None);
        assert_eq!(status(local, Method::GET, &[host, ("origin", "http://a")]), None);
        for proof in [
            ("origin", "http://127.0.0.1:3001"),
            ("origin", "null"),
            ("sec-fetch-site", "none"),
        ] {
            assert_eq!(
                status(local, Method::POST, &[host, proof]),
                Some(403),
                "{proof:?}"
            );
        }
    }

    #[test]
    fn on_loopback_no_foreign_name_leads_here() {
        let get = |listen, host| status(listen, Method::GET, &[("host", host)]);
        for host in [
            "127.0.0.1:3001",
            "localhost",
            "LOCALHOST:3001",
            "[::1]:3001",
            "10.0.0.1",
        ] {
            assert_eq!(get("127.0.0.1:3001", host), None, "{host}");
        }
        for host in [
            "evil.example:3001",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert_eq!(get("[::1]:3001", host), Some(421), "{host}");
        }
        assert_eq!(get("0.0.0.0:3001", "prometheus-finds-it-by.this.name"), None);
        assert_eq!(status("127.0.0.1:3001", Method::GET, &[]), None);
    }
}
