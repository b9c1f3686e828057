//! Who is connected where, since when, and where it has been.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use mesh_store::Session;
use mesh_store::sessions::{Past, SessionFilter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{App, Asked, Named, bounded, fresh};
use crate::problem::Problem;

/// Sessions a page if nobody asks for another number, and at most.
const USUAL: u32 = 500;
const MOST: u32 = 5_000;

/// One session of one client. Every text is hostile input.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionLine {
    /// Its number; rises with time.
    id: i64,
    /// The client.
    client_id: String,
    /// The broker that it is or was connected to.
    broker: String,
    /// Whom it logged in as.
    username: Option<String>,
    /// The version of MQTT: 3.1, 3.1.1 or 5.
    protocol: Option<String>,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    connected_at: Timestamp,
    /// Until when; `null` while it is connected.
    #[schema(value_type = Option<String>, format = DateTime)]
    disconnected_at: Option<Timestamp>,
    /// Why it ended.
    reason: Option<String>,
    /// The client's real address.
    remote_addr: Option<String>,
}

impl From<Session> for SessionLine {
    fn from(session: Session) -> Self {
        let time = |nanos: i64| Timestamp::from_nanosecond(nanos.into()).unwrap_or_default();
        Self {
            id: session.id,
            client_id: session.client_id,
            broker: session.broker,
            username: session.username,
            protocol: session.protocol,
            connected_at: time(session.connected_at),
            disconnected_at: session.disconnected_at.map(time),
            reason: session.reason,
            remote_addr: session.remote_addr,
        }
    }
}

/// One session, and what was before it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ListedSession {
    #[serde(flatten)]
    session: SessionLine,
    /// How many sessions the client had before this one.
    reconnects: u64,
    /// Why the one before it ended; `null` if there was none, or if that is not known.
    last_reason: Option<String>,
}

/// One page of sessions, the latest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionPage {
    /// The sessions.
    sessions: Vec<ListedSession>,
    /// Give this as `before` for the next page; `null` at the end.
    next: Option<i64>,
}

/// Which sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SessionsQuery {
    /// On this broker only.
    broker: Option<String>,
    /// `true` for those that are connected now only.
    #[serde(default)]
    open: bool,
    /// The `next` of the page before.
    before: Option<i64>,
    /// How many, 1 to 5000; 500 if not given.
    #[param(minimum = 1, maximum = 5000)]
    limit: Option<u32>,
}

/// Sessions of clients, the latest first
#[utoipa::path(get, path = "/api/v1/clients", tag = "clients", params(SessionsQuery), responses(
    (status = 200, description = "One page", body = SessionPage),
    (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "There is no database", body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(State(app): State<App>, Asked(asked): Asked<SessionsQuery>) -> Result<Response, Problem> {
    let limit = bounded(asked.limit, USUAL, MOST)?;
    let filter = SessionFilter {
        client_id: None,
        broker: asked.broker.as_deref(),
        open: asked.open,
        before: asked.before,
        limit,
    };
    let sessions = app
        .archive
        .read(async |reader| reader.sessions_with_past(filter).await)
        .await?;
    let is_full = sessions.len() == limit as usize;
    let next = sessions.last().filter(|_| is_full).map(|(session, _)| session.id);
    let listed = |(session, past): (Session, Past)| ListedSession {
        session: session.into(),
        reconnects: past.sessions,
        last_reason: past.last_reason,
    };
    let sessions = sessions.into_iter().map(listed).collect();
    Ok(fresh(&SessionPage { sessions, next }))
}

/// What became of one client.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClientJourney {
    /// The client. Hostile input.
    client_id: String,
    /// How often it came back.
    reconnects: u64,
    /// The brokers that it is connected to now; more than one is a conflict.
    live_on: Vec<String>,
    /// Its sessions, at most the last 1,000, the oldest first.
    sessions: Vec<SessionLine>,
}

/// One client's way from broker to broker
#[utoipa::path(get, path = "/api/v1/clients/{id}", tag = "clients",
    params(("id" = String, Path, description = "The client id, with every special character encoded")),
    responses(
        (status = 200, description = "Its way", body = ClientJourney),
        (status = 400, description = "The id is no text", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such client is known", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no database", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn one(State(app): State<App>, Named(id): Named) -> Result<Response, Problem> {
    let path = app.archive.read(async |reader| reader.client(&id).await).await?;
    let path =
        path.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("No client {id:?} is known.")))?;
    Ok(fresh(&ClientJourney {
        client_id: path.client_id,
        reconnects: path.reconnects,
        live_on: path.live_on,
        sessions: path.sessions.into_iter().map(SessionLine::from).collect(),
    }))
}
