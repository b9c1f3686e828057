//! The page itself, the login, and what machines ask for.

use std::time::Instant;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::App;
use crate::metrics::{self, Counters};
use crate::problem::Problem;
use crate::security::{Guard, LoginForm, NotAdmitted};

/// Every page: the shell, which looks at its own address.
pub async fn shell(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Response {
    app.assets.shell(uri.path(), StatusCode::OK, &headers)
}

/// One file of the page.
pub async fn asset(
    State(app): State<App>,
    Path((version, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let file = app.assets.file(&version, &path, &headers);
    file.unwrap_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "There is no such file; reload the page.").into_response()
    })
}

/// Lets in who knows the token.
pub async fn login(
    State(app): State<App>,
    axum::Extension(guard): axum::Extension<Guard>,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Response {
    let Some(login) = &guard.login else {
        return Redirect::to("/").into_response();
    };
    let Ok(Form(form)) = form else {
        return Problem::new(StatusCode::BAD_REQUEST, "The form must have the field `token`.")
            .into_response();
    };
    match login.open(&form.token, Instant::now()) {
        Ok(cookie) => {
            let mut response = Redirect::to("/").into_response();
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(why) => {
            Counters::add(&app.counters.wrong_logins);
            tracing::warn!(?why, "somebody was not let in");
            let why = match why {
                NotAdmitted::Wrong => "wrong",
                NotAdmitted::TooMany => "many",
            };
            Redirect::to(&format!("/login?{why}")).into_response()
        }
    }
}

/// What this program counts.
pub async fn metrics(State(app): State<App>) -> Response {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([kind], metrics::render(&app.feed, &app.counters)).into_response()
}

/// Whether this program is well. It is also without mesh-health: that it can say so is what it is there for.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// A path that there is not: for people a page that says so, for programs a problem document.
pub async fn unknown(State(app): State<App>, request: Request) -> Response {
    let path = request.uri().path();
    let accepts = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let is_person = accepts.is_some_and(|accepts| accepts.contains("text/html"));
    if is_person && !path.starts_with("/api/") {
        return app.assets.shell(path, StatusCode::NOT_FOUND, request.headers());
    }
    Problem::new(StatusCode::NOT_FOUND, format!("There is nothing at {path}.")).into_response()
}

/// A method that a path does not take.
pub async fn unknown_method(request: Request) -> Response {
    let detail = format!("{} is not taken at {}.", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).into_response()
}
