//! Posting to a URL, by http or https.
//!
//! Guarantees: over https nothing is told to a server that cannot prove its name to somebody whom this machine, or
//! `announce.webhook_ca`, trusts.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_runtime::config::Announce;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::channel::ChannelError;

/// Why a webhook cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The file of certificates is of no use.
    #[error("cannot read certificates from announce.webhook_ca, {}", .path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// A certificate in it is of no use.
    #[error("announce.webhook_ca, {}, holds no certificate that can be trusted", .path.display())]
    Untrustworthy {
        /// The file.
        path: PathBuf,
    },
    /// The machine trusts nobody.
    #[error(
        "this machine has no certificates of authorities, so no https webhook can be trusted; install them \
         (ca-certificates) or name a file in announce.webhook_ca"
    )]
    NobodyTrusted,
    /// The library has no safe way to talk.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Where announcements are posted to.
#[derive(Debug, Clone)]
pub struct Webhook {
    uri: Uri,
    tls: Option<Arc<ClientConfig>>,
}

/// For log lines, which must not show what a webhook's path may hold: such URLs are often secrets.
impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or("http");
        write!(f, "{scheme}://{}", self.uri.host().unwrap_or_default())
    }
}

impl Webhook {
    /// The one that `rules` name, if they do.
    ///
    /// # Errors
    ///
    /// [`WebhookError`] if it is to be reached by https and nobody is there to be trusted.
    pub fn of(rules: &Announce) -> Result<Option<Self>, WebhookError> {
        let Some(uri) = rules.webhook.clone() else {
            return Ok(None);
        };
        let is_safe = uri.scheme_str() == Some("https");
        let tls = is_safe
            .then(|| trusting(rules.webhook_ca.as_deref()))
            .transpose()?;
        Ok(Some(Self { uri, tls }))
    }

    /// Posts `event` once.
    pub(super) async fn post(&self, event: &Value) -> Result<(), ChannelError> {
        // An IPv6 address stands in brackets in a URL, and without them elsewhere.
        let host = self.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let default_port = if self.tls.is_some() { 443 } else { 80 };
        let port = self.uri.port_u16().unwrap_or(default_port);
        let stream = TcpStream::connect((host, port)).await;
        let stream = stream.map_err(ChannelError::Connect)?;
        let Some(tls) = &self.tls else {
            return self.post_on(stream, host, event).await;
        };
        let not_a_name = |error| ChannelError::Tls(io::Error::other(error));
        let name = ServerName::try_from(host.to_owned()).map_err(not_a_name)?;
        let connected = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        let stream = connected.map_err(ChannelError::Tls)?;
        self.post_on(stream, host, event).await
    }

    async fn post_on(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        host: &str,
        event: &Value,
    ) -> Result<(), ChannelError> {
        let authority = self.uri.authority().map_or(host, |authority| authority.as_str());
        // A user name and password are not for the Host header.
        let named = authority.rsplit('@').next().unwrap_or(authority);
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str());
        let request = Request::post(target)
            .header(header::HOST, named)
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::USER_AGENT,
                concat!("mesh-health/", env!("CARGO_PKG_VERSION")),
            )
            .body(Body::from(event.to_string()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The connection may be closed together with the answer, which then still counts.
        let drive = async {
            connection.await.ok();
            std::future::pending::<()>().await;
        };
        let answer = tokio::select! {
            answer = sender.send_request(request) => answer?,
            () = drive => unreachable!("it never completes"),
        };
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(ChannelError::Answer(answer.status()))
        }
    }
}

/// Trusts whom this machine trusts, and who is in the file `ca`.
fn trusting(ca: Option<&Path>) -> Result<Arc<ClientConfig>, WebhookError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "cannot read some of the certificates that this machine trusts");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca {
        let failed = |source| WebhookError::Ca {
            path: path.to_owned(),
            source,
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(failed)?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            let path = path.to_owned();
            return Err(WebhookError::Untrustworthy { path });
        }
    }
    if roots.is_empty() {
        return Err(WebhookError::NobodyTrusted);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
