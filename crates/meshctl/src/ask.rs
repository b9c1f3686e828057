//! Asking mesh-health over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The body of `GET path`.
///
/// # Errors
///
/// If mesh-health does not answer, or what it says is wrong, in its own words.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    ask(address, path, false).await
}

/// The body of the answer to `POST path`.
///
/// # Errors
///
/// As [`get`].
pub async fn post(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    ask(address, path, true).await
}

async fn ask(address: SocketAddr, path: &str, post: bool) -> anyhow::Result<String> {
    let url = format!("http://{address}{path}");
    tokio::task::spawn_blocking(move || blocking(&url, post)).await?
}

fn blocking(url: &str, post: bool) -> anyhow::Result<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .build()
        .into();
    let call = || {
        let mut response = match post {
            true => agent.post(url).send_empty()?,
            false => agent.get(url).call()?,
        };
        let body = response.body_mut().read_to_string()?;
        Ok::<_, ureq::Error>((response.status(), body))
    };
    let (status, body) =
        call().with_context(|| format!("mesh-health does not answer at {url}; is it running?"))?;
    if status.is_success() {
        return Ok(body);
    }
    let problem: Option<serde_json::Value> = serde_json::from_str(&body).ok();
    match problem.as_ref().and_then(|problem| problem["detail"].as_str()) {
        Some(detail) => bail!("{detail}"),
        None => bail!("mesh-health answers {status} at {url}"),
    }
}
