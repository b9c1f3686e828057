//! Who was connected where: one row a session, kept from what brokers and the balancer log.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use crate::error::{StoreError, While};
use crate::insert::{Forms, Insert, Statement};
use crate::reader::Reader;

/// The rows of one statement; SQLite takes 32,766 values.
const CHUNK: usize = 1000;

const SESSION: Statement<'static> = Statement {
    into: "INSERT OR FAIL INTO client_session (id, client_id, broker, username, protocol, keep_alive, clean_start, \
           connected_at, disconnected_at, reason, remote_addr, broker_addr)",
    columns: 12,
    forms: Forms::Filled(&[2048, 1024, 256, 32, 4, 1]),
    then: "ON CONFLICT (id) DO UPDATE SET disconnected_at = excluded.disconnected_at, reason = excluded.reason, \
           remote_addr = excluded.remote_addr",
};

/// One session of a client on a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Its number.
    pub id: i64,
    /// The client. Hostile input.
    pub client_id: String,
    /// The broker.
    pub broker: String,
    /// The user. Hostile input.
    pub username: Option<String>,
    /// `3.1`, `3.1.1` or `5`.
    pub protocol: Option<String>,
    /// The keepalive in seconds.
    pub keep_alive: Option<i64>,
    /// Whether the client began afresh.
    pub clean_start: Option<bool>,
    /// When it began, in nanoseconds since 1970.
    #[serde(serialize_with = "timestamp")]
    pub connected_at: i64,
    /// When it ended; `None` while it lasts.
    #[serde(serialize_with = "optional_timestamp")]
    pub disconnected_at: Option<i64>,
    /// Why it ended.
    pub reason: Option<String>,
    /// The client's real address, once it is known.
    pub remote_addr: Option<String>,
    /// The address that the broker saw.
    pub broker_addr: Option<String>,
}

fn timestamp<S: Serializer>(time_ns: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Timestamp::from_nanosecond((*time_ns).into()).unwrap_or_default())
}

fn optional_timestamp<S: Serializer>(time_ns: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    match time_ns {
        Some(time_ns) => timestamp(time_ns, serializer),
        None => serializer.serialize_none(),
    }
}

/// A connection through the balancer that no session is known for yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxiedConnection {
    /// The source of Nginx's lines.
    pub source: i64,
    /// Nginx's number of it.
    pub number: i64,
    /// The client's address.
    pub remote_addr: String,
    /// The balancer's address towards the broker.
    pub broker_addr: Option<String>,
    /// The broker's address.
    pub upstream: Option<String>,
    /// When it was seen, in nanoseconds since 1970.
    pub time_ns: i64,
}

/// What changed.
#[derive(Debug, Clone, Default)]
pub struct SessionChanges {
    /// Sessions that are new or have changed, whole.
    pub sessions: Vec<Session>,
    /// Connections that are new or have changed, whole.
    pub proxied: Vec<ProxiedConnection>,
    /// Connections whose session is known by now, or that are over: source and number.
    pub gone: Vec<(i64, i64)>,
}

impl SessionChanges {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.proxied.is_empty() && self.gone.is_empty()
    }

    /// Inserts sessions, or what has changed of them.
    pub(crate) fn inserts(&self) -> impl Iterator<Item = Insert> + '_ {
        SESSION.of(&self.sessions, |insert, session| {
            insert
                .bind(session.id)
                .bind(session.client_id.clone())
                .bind(session.broker.clone())
                .bind(session.username.clone())
                .bind(session.protocol.clone())
                .bind(session.keep_alive)
                .bind(session.clean_start)
                .bind(session.connected_at)
                .bind(session.disconnected_at)
                .bind(session.reason.clone())
                .bind(session.remote_addr.clone())
                .bind(session.broker_addr.clone())
        })
    }

    /// Stores what changed of the connections that wait for a session.
    pub(crate) async fn save_connections(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        for chunk in self.proxied.chunks(CHUNK) {
            let mut query = QueryBuilder::new(
                "INSERT OR REPLACE INTO proxied_connection (source, number, remote_addr, broker_addr, upstream, time_ns) ",
            );
            query.push_values(chunk, |mut row, proxied| {
                row.push_bind(proxied.source)
                    .push_bind(proxied.number)
                    .push_bind(proxied.remote_addr.as_str())
                    .push_bind(proxied.broker_addr.as_deref())
                    .push_bind(proxied.upstream.as_deref())
                    .push_bind(proxied.time_ns);
            });
            query
                .build()
                .persistent(false)
                .execute(&mut *connection)
                .await
                .during("store connections")?;
        }
        for chunk in self.gone.chunks(CHUNK) {
            let mut query = QueryBuilder::new("DELETE FROM proxied_connection WHERE (source, number) IN ");
            query.push_tuples(chunk, |mut row, (source, number)| {
                row.push_bind(*source).push_bind(*number);
            });
            query
                .build()
                .persistent(false)
                .execute(&mut *connection)
                .await
                .during("forget connections")?;
        }
        Ok(())
    }
}

fn read(row: &SqliteRow) -> Result<Session, sqlx::Error> {
    Ok(Session {
        id: row.try_get("id")?,
        client_id: row.try_get("client_id")?,
        broker: row.try_get("broker")?,
        username: row.try_get("username")?,
        protocol: row.try_get("protocol")?,
        keep_alive: row.try_get("keep_alive")?,
        clean_start: row.try_get("clean_start")?,
        connected_at: row.try_get("connected_at")?,
        disconnected_at: row.try_get("disconnected_at")?,
        reason: row.try_get("reason")?,
        remote_addr: row.try_get("remote_addr")?,
        broker_addr: row.try_get("broker_addr")?,
    })
}

fn read_all(rows: &[SqliteRow]) -> Result<Vec<Session>, StoreError> {
    rows.iter()
        .map(read)
        .collect::<Result<_, _>>()
        .during("read sessions")
}

/// The open sessions, the waiting connections, and the next free number of a session.
pub(crate) async fn load(
    connection: &mut SqliteConnection,
) -> Result<(Vec<Session>, Vec<ProxiedConnection>, i64), StoreError> {
    let what = "read sessions";
    let rows = sqlx::query("SELECT * FROM client_session WHERE disconnected_at IS NULL")
        .fetch_all(&mut *connection)
        .await
        .during(what)?;
    let sessions = read_all(&rows)?;
    let rows = sqlx::query("SELECT * FROM proxied_connection")
        .fetch_all(&mut *connection)
        .await
        .during(what)?;
    let proxied = |row: &SqliteRow| {
        Ok(ProxiedConnection {
            source: row.try_get("source")?,
            number: row.try_get("number")?,
            remote_addr: row.try_get("remote_addr")?,
            broker_addr: row.try_get("broker_addr")?,
            upstream: row.try_get("upstream")?,
            time_ns: row.try_get("time_ns")?,
        })
    };
    let waiting: Result<_, sqlx::Error> = rows.iter().map(proxied).collect();
    let row = sqlx::query("SELECT coalesce(max(id), 0) + 1 AS next FROM client_session")
        .fetch_one(&mut *connection)
        .await
        .during(what)?;
    Ok((sessions, waiting.during(what)?, row.try_get("next").during(what)?))
}

/// Which sessions are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionFilter<'a> {
    /// Of this client only.
    pub client_id: Option<&'a str>,
    /// On this broker only.
    pub broker: Option<&'a str>,
    /// Those that have not ended only.
    pub open: bool,
    /// Begun before that of this number: for the next page.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// What was before a session of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// How many sessions it had before.
    pub sessions: u64,
    /// Why the last of them ended.
    pub last_reason: Option<String>,
}

/// What became of one client: its sessions in the order of time.
#[derive(Debug, Clone, Serialize)]
pub struct ClientPath {
    /// The client. Hostile input.
    pub client_id: String,
    /// How often it came back.
    pub reconnects: u64,
    /// The brokers that it is connected to now; more than one is a conflict.
    pub live_on: Vec<String>,
    /// Its sessions, oldest first; each further one is a step on its way from broker to broker.
    pub sessions: Vec<Session>,
}

/// The sessions of the same client before the session `s`.
const EARLIER: &str = "FROM client_session e WHERE e.client_id = s.client_id AND \
     (e.connected_at, e.id) < (s.connected_at, s.id)";

fn filtered(columns: &str, filter: SessionFilter<'_>) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(format!("SELECT {columns} FROM client_session s WHERE 1"));
    if let Some(client) = filter.client_id {
        query.push(" AND s.client_id = ").push_bind(client.to_owned());
    }
    if let Some(broker) = filter.broker {
        query.push(" AND s.broker = ").push_bind(broker.to_owned());
    }
    if filter.open {
        query.push(" AND s.disconnected_at IS NULL");
    }
    if let Some(before) = filter.before {
        query.push(" AND s.id < ").push_bind(before);
    }
    query
        .push(" ORDER BY s.id DESC LIMIT ")
        .push_bind(i64::from(filter.limit));
    query
}

impl Reader {
    /// Sessions, the latest first.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn sessions(&self, filter: SessionFilter<'_>) -> Result<Vec<Session>, StoreError> {
        let mut query = filtered("s.*", filter);
        let rows = query
            .build()
            .fetch_all(self.pool())
            .await
            .during("read sessions")?;
        read_all(&rows)
    }

    /// Sessions, the latest first, each with what was before it.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn sessions_with_past(
        &self,
        filter: SessionFilter<'_>,
    ) -> Result<Vec<(Session, Past)>, StoreError> {
        let what = "read sessions";
        let columns = format!(
            "s.*, (SELECT count(*) {EARLIER}) AS earlier, \
             (SELECT e.reason {EARLIER} ORDER BY e.connected_at DESC, e.id DESC LIMIT 1) AS last_reason"
        );
        let rows = filtered(&columns, filter).build().fetch_all(self.pool()).await;
        let with_past = |row: &SqliteRow| {
            let past = Past {
                sessions: row.try_get::<i64, _>("earlier")?.unsigned_abs(),
                last_reason: row.try_get("last_reason")?,
            };
            Ok((read(row)?, past))
        };
        let rows = rows.during(what)?;
        rows.iter()
            .map(with_past)
            .collect::<Result<_, sqlx::Error>>()
            .during(what)
    }

    /// The way of one client, at most its last 1,000 sessions; `None` if none is known.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn client(&self, client_id: &str) -> Result<Option<ClientPath>, StoreError> {
        let filter = SessionFilter {
            client_id: Some(client_id),
            limit: 1000,
            ..SessionFilter::default()
        };
        let mut sessions = self.sessions(filter).await?;
        sessions.sort_by_key(|session| (session.connected_at, session.id));
        let row = sqlx::query("SELECT count(*) AS count FROM client_session WHERE client_id = ?")
            .bind(client_id)
            .fetch_one(self.pool())
            .await
            .during("count sessions")?;
        let count: i64 = row.try_get("count").during("count sessions")?;
        let open = sessions
            .iter()
            .filter(|session| session.disconnected_at.is_none());
        let live_on = open.map(|session| session.broker.clone()).collect();
        Ok((count > 0).then(|| ClientPath {
            client_id: client_id.to_owned(),
            reconnects: (count - 1).unsigned_abs(),
            live_on,
            sessions,
        }))
    }

    /// Clients that are connected to more than one broker at a time, with those brokers; at most 1,000.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn duplicates(&self) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        let what = "look for clients that are connected twice";
        let rows = sqlx::query(
            "SELECT client_id, group_concat(broker, ' ') AS brokers FROM (SELECT DISTINCT client_id, broker FROM client_session \
             WHERE disconnected_at IS NULL ORDER BY broker) GROUP BY client_id HAVING count(*) > 1 LIMIT 1000",
        )
        .fetch_all(self.pool())
        .await
        .during(what)?;
        let pair = |row: &SqliteRow| {
            let brokers: String = row.try_get("brokers")?;
            Ok((
                row.try_get("client_id")?,
                brokers.split(' ').map(str::to_owned).collect(),
            ))
        };
        rows.iter()
            .map(pair)
            .collect::<Result<_, sqlx::Error>>()
            .during(what)
    }
}
