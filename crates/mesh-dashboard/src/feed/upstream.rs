//! Asking mesh-health.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most bytes of an answer.
const LIMIT: usize = 16 << 20;

/// Why mesh-health gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing came in time.
    #[error("mesh-health at {0} did not answer within {PATIENCE:?}")]
    Late(SocketAddr),
    /// It cannot be reached.
    #[error("mesh-health at {address} cannot be reached: {cause}")]
    Unreachable {
        /// Where it should be.
        address: SocketAddr,
        /// What the operating system says.
        cause: String,
    },
    /// It answered what is not understood.
    #[error("mesh-health at {address} answered what is not understood: {cause}")]
    Strange {
        /// Where it is.
        address: SocketAddr,
        /// What is wrong with it.
        cause: String,
    },
}

/// A way to mesh-health, over connections that are kept.
#[derive(Debug, Clone)]
pub struct Upstream {
    address: SocketAddr,
    /// What is shown with each question, where operators must.
    operator: Option<HeaderValue>,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Upstream {
    /// The way to the mesh-health that listens on `address`, for `operator` if that is given.
    pub fn new(address: SocketAddr, operator: Option<HeaderValue>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(PATIENCE));
        connector.set_nodelay(true);
        // A daemon that listens on all addresses is asked on loopback.
        let address = mesh_runtime::http::reachable(address);
        Self {
            address,
            operator,
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// The answer to `GET path`, if it is one of `T`.
    ///
    /// # Errors
    ///
    /// [`AskError`].
    pub async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        let (status, body) = self.ask(Method::GET, path).await?;
        if status != StatusCode::OK {
            return Err(self.strange(format!("{status} for {path}")));
        }
        serde_json::from_slice(&body).map_err(|error| self.strange(format!("{path}: {error}")))
    }

    /// The status and body of the answer to a request without a body.
    ///
    /// # Errors
    ///
    /// [`AskError`], but not for a status that tells of an error.
    pub async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), AskError> {
        let exchange = async {
            let response = self.send(method, path, None).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LIMIT).collect().await;
            let body = body.map_err(|error| self.strange(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        answer.unwrap_or(Err(AskError::Late(self.address)))
    }

    /// The event stream, once its head is there, from after the event with the id `last`.
    ///
    /// # Errors
    ///
    /// [`AskError`].
    pub async fn events(&self, last: Option<&str>) -> Result<Incoming, AskError> {
        let sending = self.send(Method::GET, "/v1/events", last);
        let sent = tokio::time::timeout(PATIENCE, sending).await;
        let response = sent.unwrap_or(Err(AskError::Late(self.address)))?;
        if response.status() != StatusCode::OK {
            return Err(self.strange(format!("{} for /v1/events", response.status())));
        }
        Ok(response.into_body())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        last_id: Option<&str>,
    ) -> Result<hyper::Response<Incoming>, AskError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header(header::ACCEPT, "*/*");
        let request = match last_id {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let request = match &self.operator {
            Some(operator) => request.header(header::AUTHORIZATION, operator),
            None => request,
        };
        let request = request
            .body(Empty::new())
            .map_err(|error| self.strange(error.to_string()))?;
        self.client.request(request).await.map_err(|error| {
            // The client's own words are only that it failed; the cause below says why.
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            AskError::Unreachable {
                address: self.address,
                cause: cause.to_string(),
            }
        })
    }

    fn strange(&self, cause: String) -> AskError {
        AskError::Strange {
            address: self.address,
            cause,
        }
    }
}
