//! Who may have the page, and what it may do in a browser.
//!
//! Four walls, from outside in: answers carry headers that forbid the browser everything the page does not need; a
//! request by a foreign name is refused (a name that an attacker makes lead here would else let his page read ours); who
//! has no session logs in, if there is a token; what changes something must come from this very page.

mod login;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use mesh_runtime::config::Dashboard;

use crate::problem::Problem;
pub use login::{Login, LoginForm, NotAdmitted, TokenError};

/// Set by the page's own scripts on everything that changes something. Other pages cannot set it: that would need a
/// permission (CORS) which is never given.
pub const ACTION_HEADER: &str = "x-mesh-action";

/// What the browser may do: nothing but the page's own files and this server. No inline script or style runs, and no
/// text becomes markup (trusted types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The first one is for everything, the others for documents and data.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Decides on every request.
#[derive(Debug, Clone)]
pub struct Guard {
    hosts: Arc<Vec<String>>,
    /// Where people log in, if they must.
    pub login: Option<Arc<Login>>,
}

impl Guard {
    /// The guard that `dashboard` describes.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if the token cannot be read or is too short.
    pub fn load(dashboard: &Dashboard) -> Result<Self, TokenError> {
        let mut hosts = dashboard.hosts.clone();
        let ip = dashboard.listen.ip();
        hosts.push(match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        if ip.is_loopback() || ip.is_unspecified() {
            hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        }
        let login = dashboard.token_file.as_deref().map(Login::load).transpose()?;
        Ok(Self {
            hosts: Arc::new(hosts),
            login: login.map(Arc::new),
        })
    }

    fn knows(&self, host: &str) -> bool {
        let name = name_of(host).to_ascii_lowercase();
        self.hosts.contains(&name)
    }
}

/// The host without its port.
fn name_of(host: &str) -> &str {
    match host.rfind(':') {
        // Inside brackets it belongs to the address.
        Some(colon) if host[colon + 1..].bytes().all(|b| b.is_ascii_digit()) => &host[..colon],
        _ => host,
    }
}

fn text(headers: &HeaderMap, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Adds the headers to every answer, and refuses what may not be.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_part = path.starts_with("/assets/") && (path.ends_with(".js") || path.ends_with(".css"));
    let mut response = match check(&guard, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => *refused,
    };
    let headers = response.headers_mut();
    // Scripts and style sheets are governed by the document that loads them.
    let wanted = if is_part { &HEADERS[..1] } else { &HEADERS[..] };
    for (name, value) in wanted {
        headers.insert(name, value.clone());
    }
    response
}

fn check(guard: &Guard, request: &Request) -> Result<(), Box<Response>> {
    let refuse = |status, detail: String| Err(Box::new(Problem::new(status, detail).into_response()));
    let headers = request.headers();
    let host = text(headers, header::HOST).or_else(|| request.uri().host());
    let Some(host) = host.filter(|host| guard.knows(host)) else {
        let host = host.unwrap_or_default();
        return refuse(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "This page is not called {host:?}. If it shall be, add the name to dashboard.hosts in mesh.toml."
            ),
        );
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) && !is_from_here(headers, host, request.uri())
    {
        return refuse(
            StatusCode::FORBIDDEN,
            format!(
                "This can be done from the page itself only, or by a program that sets the header {ACTION_HEADER}."
            ),
        );
    }
    let Some(login) = &guard.login else { return Ok(()) };
    if is_open(request.uri().path()) || login.admits(headers) {
        return Ok(());
    }
    if request.uri().path().starts_with("/api/") || request.uri().path() == "/metrics" {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "Log in first, or give the token as \"Authorization: Bearer TOKEN\".".to_owned(),
        );
    }
    Err(Box::new(Redirect::to("/login").into_response()))
}

/// What is there without a login: the login itself, the files of the page, and whether this program is well.
fn is_open(path: &str) -> bool {
    path == "/login" || path == "/healthz" || path.starts_with("/assets/")
}

/// Whether a request that changes something comes from this page: browsers say where it comes from, and the header
/// could not be set from elsewhere. A login has no header, since it is a plain form.
fn is_from_here(headers: &HeaderMap, host: &str, uri: &Uri) -> bool {
    let site = text(headers, "sec-fetch-site").is_none_or(|site| site == "same-origin");
    let origin = text(headers, header::ORIGIN).is_none_or(|origin| {
        let origin = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        origin == Some(host)
    });
    site && origin && (uri.path() == "/login" || headers.contains_key(ACTION_HEADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_told_from_an_address() {
        for (host, name) in [
            ("localhost:3000", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:3000", "[::1]"),
            ("[::1]", "[::1]"),
            ("evil.example:80:3000", "evil.example:80"),
        ] {
            assert_eq!(name_of(host), name);
        }
    }

    #[test]
    fn only_this_page_may_change_something() {
        let uri = Uri::from_static("/api/v1/failback");
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect()
        };
        let action = (ACTION_HEADER, "1");
        let may = |pairs: &[(&'static str, &'static str)]| is_from_here(&headers(pairs), "mesh:3000", &uri);
        assert!(may(&[action]));
        assert!(may(&[
            action,
            ("origin", "http://mesh:3000"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(!may(&[]));
        assert!(!may(&[action, ("origin", "http://evil.example")]));
        assert!(!may(&[action, ("origin", "null")]));
        assert!(!may(&[action, ("sec-fetch-site", "cross-site")]));
        assert!(!may(&[action, ("sec-fetch-site", "same-site")]));
    }
}
