//! A safe wrapper of the `influxdb2` driver: it adds timeouts, and converts a panic of the driver to an error.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use influxdb2::{Client, ClientBuilder, RequestError};
use reqwest_for_influxdb2::ClientBuilder as HttpBuilder;
use reqwest_for_influxdb2::redirect::Policy;

use super::error::{Error, ErrorResponse, root_cause};
use super::options::InfluxOptions;
use super::server::{base_url, is_loopback};
use domain::store::StoreError;

/// The timeout of one driver request.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Creates a driver for the server of `options`.
pub(super) fn connect(options: &InfluxOptions) -> Result<Client, StoreError> {
    // The driver panics on a bad URL, and drops the path of a URL.
    let url = base_url(&options.url)?;
    if !matches!(url.path(), "" | "/") {
        return Err(StoreError::Rejected(
            "influx_url has a path, which setup does not support: use the server's own address"
                .into(),
        ));
    }
    // The driver has no default timeout.
    let mut http = HttpBuilder::new()
        .connect_timeout(options.connect_timeout)
        .timeout(TIMEOUT)
        .redirect(Policy::none())
        // The driver's HTTP/2 implementation is of a version that is no longer maintained.
        .http1_only();
    if is_loopback(&url) {
        http = http.no_proxy();
    }
    ClientBuilder::with_builder(http, url.as_str(), &options.org, &options.token)
        .build()
        .map_err(|error| {
            StoreError::Unavailable(format!(
                "can't create an HTTP client: {}",
                root_cause(&error)
            ))
        })
}

/// Awaits a driver call, and converts its error or panic.
pub(super) async fn call<T>(
    call: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, Error> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(convert(error)),
        Err(_) => Err(Error::Panicked),
    }
}

fn convert(error: RequestError) -> Error {
    match error {
        RequestError::Http { status, text } => Error::Status(Box::new(ErrorResponse::of_body(
            status.as_u16(),
            text.as_bytes(),
            None,
        ))),
        RequestError::ReqwestProcessing { source } if source.is_timeout() => {
            Error::TimedOut(TIMEOUT)
        }
        RequestError::ReqwestProcessing { source } if source.is_decode() => {
            Error::InvalidResponse(root_cause(&source))
        }
        RequestError::ReqwestProcessing { source } => Error::Transport(root_cause(&source)),
        RequestError::Serializing { source } => Error::InvalidResponse(source.to_string()),
        RequestError::Deserializing { .. } => {
            Error::InvalidResponse("the driver can't deserialize it".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_the_driver_is_an_error() {
        let result = call::<()>(async { panic!("as the driver does") }).await;
        assert!(matches!(result, Err(Error::Panicked)));
    }

    #[test]
    fn a_url_that_the_driver_would_mangle_is_refused() {
        let options = |url: &str| InfluxOptions {
            url: url.into(),
            ..InfluxOptions::for_tests()
        };
        assert!(connect(&options("http://h:1/below")).is_err());
        assert!(connect(&options("no url")).is_err());
        assert!(connect(&options("http://h:1")).is_ok());
    }
}
