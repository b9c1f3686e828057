//! Asking mesh-health over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use mesh_runtime::{Config, secrets};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The body of `GET path`.
///
/// # Errors
///
/// If mesh-health does not answer, or what it says is wrong, in its own words.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let url = format!("http://{address}{path}");
    tokio::task::spawn_blocking(move || blocking(&url, |agent| agent.get(&url).call())).await?
}

/// The body of the answer of the network's mesh-health to `POST path`.
///
/// # Errors
///
/// As [`get`], and if it asks who wants that and the answer is not for this user to read.
pub async fn post(config: &Config, path: &str) -> anyhow::Result<String> {
    let security = &config.security;
    let operator = security
        .operators_only
        .then(|| secrets::operator(&security.secrets_dir));
    let operator = operator
        .transpose()
        .context("only operators may ask for that, as root")?;
    let url = format!("http://{}{path}", config.health.listen);
    let call = move || {
        blocking(&url, |agent| {
            let request = agent.post(&url);
            match &operator {
                Some(operator) => request.header("authorization", format!("Bearer {operator}")),
                None => request,
            }
            .send_empty()
        })
    };
    tokio::task::spawn_blocking(call).await?
}

fn blocking(
    url: &str,
    send: impl FnOnce(&ureq::Agent) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> anyhow::Result<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .build()
        .into();
    let call = || {
        let mut response = send(&agent)?;
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
