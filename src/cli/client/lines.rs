//! A response of any length, as whole lines.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{RequestBuilder, Response};
use tokio::time::timeout;

use super::{Client, ClientError, retry_after};

/// The longest time until the head of the response: the service reads the first users before.
const HEAD_TIMEOUT: Duration = Duration::from_mins(10);
/// The longest time between two parts of the response. The service sends a blank line every five seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout of the whole response, which is not to be reached.
const WHOLE_TIMEOUT: Duration = Duration::from_hours(24 * 7);
/// The maximum number of bytes of a line, far above any that the service sends.
const MAX_LINE: usize = 64 * 1024;

/// The lines of a response.
pub(in crate::cli) struct Lines<'a> {
    client: &'a Client,
    response: Response,
    /// A line without its end.
    rest: BytesMut,
}

impl<'a> Lines<'a> {
    pub(super) async fn of(
        client: &'a Client,
        request: RequestBuilder,
    ) -> Result<Self, ClientError> {
        let sent = timeout(HEAD_TIMEOUT, request.timeout(WHOLE_TIMEOUT).send()).await;
        let response = sent
            .map_err(|_| no_response(client, "timeout"))?
            .map_err(|error| client.send_error(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Self {
                client,
                response,
                rest: BytesMut::new(),
            });
        }
        let (wait, headers) = (retry_after(&response), response.headers().clone());
        let body = client.body(response).await?;
        Err(client.refused(status, wait, &headers, &body))
    }

    /// Whole lines; `None` at the proper end of the response.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let received = timeout(IDLE_TIMEOUT, self.response.chunk()).await;
            let part = received
                .map_err(|_| no_response(self.client, "timeout"))?
                .map_err(|error| self.client.send_error(&error))?;
            let Some(part) = part else {
                return match self.rest.is_empty() {
                    true => Ok(None),
                    false => Err(no_response(self.client, "the response ended within a line")),
                };
            };
            self.rest.extend_from_slice(&part);
            if let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') {
                return Ok(Some(self.rest.split_to(end + 1).freeze()));
            }
            if self.rest.len() > MAX_LINE {
                return Err(self.client.unexpected(&"a line that does not end"));
            }
        }
    }
}

fn no_response(client: &Client, reason: &str) -> ClientError {
    ClientError::NoResponse {
        base: client.base().to_owned(),
        reason: reason.to_owned(),
    }
}
