//! The HTTP client of the thread that sends spans.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::Url;

/// The default of OTLP exporters.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client with a runtime of its own, so that spans are sent whatever the runtime of the service does, and also after it ended.
pub(super) struct Client {
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub(super) fn new(endpoint: &Url) -> Result<Self, HttpError> {
        let mut http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            // Headers may hold a token, which must not reach another host.
            .redirect(reqwest::redirect::Policy::none())
            // A connection would only be served while a batch is sent.
            .pool_max_idle_per_host(0);
        if is_loopback(endpoint) {
            // A proxy can't reach this machine.
            http = http.no_proxy();
        }
        Ok(Self {
            http: http.build()?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
        self.runtime.block_on(async {
            let response = self.http.execute(request.try_into()?).await?;
            let status = response.status();
            let retry_after = response.headers().get("retry-after").cloned();
            // The body of a success only counts refused spans. That of a failure is not read: it may be long.
            let mut answer = Response::new(Bytes::new());
            *answer.status_mut() = status;
            if let Some(retry_after) = retry_after {
                answer.headers_mut().insert("retry-after", retry_after);
            }
            Ok(answer)
        })
    }
}

#[async_trait]
impl HttpClient for Client {
    /// Blocks: the only caller is a thread that does nothing else.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        Ok(self.send(request)?)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: IpAddr| address.is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}
