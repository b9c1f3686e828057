//! `[announce]`: who is told.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;

use super::{HOUR, MINUTE, MS, SECOND};
use crate::config::reader::Reader;

/// `[announce]`: who is told of what matters, beside those who read logs and metrics.
#[derive(Debug, Clone)]
pub struct Announce {
    /// A program that is run for each announcement.
    pub command: Option<PathBuf>,
    /// Where each announcement is posted to.
    pub webhook: Option<Uri>,
    /// PEM certificates by which an https webhook is trusted, beside those that the machine trusts.
    pub webhook_ca: Option<PathBuf>,
    /// For how long the same is not announced again.
    pub repeat_after: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// The pause before the second attempt.
    pub retry_interval: Duration,
    /// How long an announcement is tried.
    pub give_up_after: Duration,
}

pub(super) fn read(reader: &mut Reader) -> Announce {
    let mut s = reader.section("announce");
    Announce {
        command: s.optional_path(
            "command",
            "a program run for each announcement, without a shell: the event as JSON on standard input, its fields \
             also as MESH_EVENT, MESH_BROKER, MESH_FROM, MESH_TO, MESH_REASON, …",
        ),
        webhook: s.optional_parsed::<Webhook>(
            "webhook",
            "URL, e.g. \"http://127.0.0.1:9000/mesh\"",
            "where each announcement is posted to as JSON, by http or https",
        )
        .map(|webhook| webhook.0),
        webhook_ca: s.optional_path(
            "webhook_ca",
            "PEM file of certificates that an https webhook is trusted by, beside those that the machine trusts",
        ),
        repeat_after: s.duration(
            "repeat_after",
            "10m",
            MS..=24 * HOUR,
            "for how long the same event of the same broker and incident is not announced again",
        ),
        timeout: s.duration(
            "timeout",
            "10s",
            10 * MS..=10 * MINUTE,
            "how long one attempt may take",
        ),
        retry_interval: s.duration(
            "retry_interval",
            "1s",
            10 * MS..=10 * MINUTE,
            "pause before the second attempt; doubled before each further one, up to 5 minutes",
        ),
        give_up_after: s.duration(
            "give_up_after",
            "1h",
            SECOND..=7 * 24 * HOUR,
            "how long one announcement is tried before the next has its turn",
        ),
    }
}

/// A URL that can be posted to.
struct Webhook(Uri);

impl FromStr for Webhook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(Self(uri)),
            _ => Err(format!(
                "{text:?} is not a URL with http:// or https:// and a host"
            )),
        }
    }
}
