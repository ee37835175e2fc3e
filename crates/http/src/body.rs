//! Reads request bodies as streams, with limits on the size and duration of one body and on the memory of all bodies.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};
use warp::http::StatusCode;
use warp::http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};

use super::encoding::Encoding;
use super::media::Format;
use super::problem::Problem;

/// The budget of all bodies in flight, as a number of bodies of the largest size: 256 MiB at the default of 8 MiB.
const LARGEST_AT_ONCE: u64 = 32;
/// Up to this many times the limit is read of a body that is too large, and discarded, before the response is sent: a
/// client that does not read while it writes would otherwise see a broken connection instead of the 413.
const DISCARD_TIMES: u64 = 4;
/// A body may take this many times the timeout of a single chunk, and longer only at [`SLOWEST_RATE`] or faster: a client
/// on a slow line is served, a client that trickles bytes to hold a connection is not.
const TOTAL_TIMES: u32 = 6;
/// The least rate of a long body, in bytes a second.
const SLOWEST_RATE: u64 = 16 * 1024;
/// Bytes per permit of the budget.
const UNIT: u64 = 1024;
/// `Retry-After` while other bodies use the whole budget.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// The limits of request bodies.
#[derive(Debug)]
pub(super) struct Limits {
    /// Most bytes of one body.
    pub(super) max_body: u64,
    /// The timeout of a single chunk.
    idle: Duration,
    budget: Arc<Semaphore>,
}

/// A complete body. Its part of the budget is released when it is dropped.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    _reservation: Reservation,
}

/// When a body must be complete.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    /// The deadline after `bytes` were received.
    fn after(self, bytes: u64) -> Instant {
        self.0 + Duration::from_secs(bytes / SLOWEST_RATE)
    }
}

#[derive(Debug)]
struct Reservation {
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    units: u64,
}

impl Limits {
    pub(super) fn new(max_body: u64, idle: Duration) -> Self {
        let units = (max_body * LARGEST_AT_ONCE).div_ceil(UNIT);
        let units = usize::try_from(units).unwrap_or(usize::MAX);
        Self {
            max_body,
            idle,
            budget: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Reads `body` to its end. 408 after a timeout, 413 above `max_body`, 429 while the budget is used up.
    pub(super) async fn read<B: Buf, E>(
        &self,
        headers: &HeaderMap,
        body: impl Stream<Item = Result<B, E>>,
    ) -> Result<Received, Problem> {
        let mut body = pin!(body);
        let deadline = Deadline(Instant::now() + self.idle * TOTAL_TIMES);
        let declared = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let result = match declared {
            Some(length) if length > self.max_body => Err(Problem::too_large(self.max_body)),
            _ => self.gather(declared, body.as_mut(), deadline).await,
        };
        if let Err(problem) = &result
            && problem.is_about_size()
            // A client that sent `Expect: 100-continue` has not sent the body: it only needs the response.
            && !headers.contains_key(EXPECT)
        {
            self.discard(body, deadline).await;
        }
        result
    }

    /// Reads a JSON object. Its members have at most `max_body` bytes after decompression, too.
    pub(super) async fn read_object<T: DeserializeOwned, B: Buf, E>(
        &self,
        headers: &HeaderMap,
        body: impl Stream<Item = Result<B, E>>,
    ) -> Result<T, Problem> {
        let (format, encoding) = (Format::of(headers), Encoding::of(headers));
        let body = self.read(headers, body).await?;
        if format? != Format::Json {
            let detail = "content-type must be application/json";
            return Err(Problem::unsupported(detail));
        }
        let bytes = match encoding? {
            Encoding::Identity => body.bytes.clone(),
            encoding => Bytes::from(encoding.decode(&body.bytes, self.max_body)?),
        };
        let malformed = |problem: String| Problem::bad_request("malformed", problem);
        // An array of the members in order would be read as well.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(malformed("the body must be a JSON object".to_owned()));
        }
        serde_json::from_slice(&bytes).map_err(|error| malformed(format!("the body: {error}")))
    }

    async fn gather<B: Buf, E>(
        &self,
        declared: Option<u64>,
        mut body: Pin<&mut impl Stream<Item = Result<B, E>>>,
        deadline: Deadline,
    ) -> Result<Received, Problem> {
        let mut reservation = Reservation {
            budget: Arc::clone(&self.budget),
            held: None,
            units: 0,
        };
        let mut first = Bytes::new();
        // Most bodies are one chunk, which needs no copy.
        let mut joined: Option<BytesMut> = None;
        let mut length = 0;
        while let Some(mut piece) = self.next(body.as_mut(), deadline.after(length)).await? {
            length += piece.remaining() as u64;
            if length > self.max_body {
                return Err(Problem::too_large(self.max_body));
            }
            reservation.grow_to(length)?;
            if let Some(joined) = &mut joined {
                joined.put_all(piece);
            } else if first.is_empty() {
                first = piece.copy_to_bytes(piece.remaining());
            } else {
                let expected = declared.unwrap_or(0).max(length);
                let mut buffer = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0));
                buffer.extend_from_slice(&std::mem::take(&mut first));
                buffer.put_all(piece);
                joined = Some(buffer);
            }
        }
        Ok(Received {
            bytes: joined.map_or(first, BytesMut::freeze),
            _reservation: reservation,
        })
    }

    async fn next<B, E>(
        &self,
        mut body: Pin<&mut impl Stream<Item = Result<B, E>>>,
        deadline: Instant,
    ) -> Result<Option<B>, Problem> {
        let by = deadline.min(Instant::now() + self.idle);
        // Unconstrained: a client that sends without a pause uses up tokio's cooperative budget of the task on socket
        // reads, even if they yield no chunk (such as endless zeros of a chunk's length), and then no timer would fire.
        match unconstrained(timeout_at(by, body.next())).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(_))) => Err(Problem::bad_request(
                "malformed",
                "the body was cut off, or its chunked encoding is invalid",
            )),
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the body did not arrive in time",
            )),
        }
    }

    async fn discard<B: Buf, E>(
        &self,
        mut body: Pin<&mut impl Stream<Item = Result<B, E>>>,
        deadline: Deadline,
    ) {
        let mut left = self.max_body.saturating_mul(DISCARD_TIMES);
        while let Ok(Some(piece)) = self.next(body.as_mut(), deadline.after(0)).await {
            left = left.saturating_sub(piece.remaining() as u64);
            if left == 0 {
                return;
            }
        }
    }
}

impl Reservation {
    fn grow_to(&mut self, bytes: u64) -> Result<(), Problem> {
        let missing = bytes.div_ceil(UNIT).saturating_sub(self.units);
        if missing == 0 {
            return Ok(());
        }
        let permits = u32::try_from(missing).unwrap_or(u32::MAX);
        let full = |_| Problem::busy("too many request bodies are in flight", BUSY_RETRY);
        let more = Arc::clone(&self.budget)
            .try_acquire_many_owned(permits)
            .map_err(full)?;
        self.units += missing;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

trait PutAll {
    fn put_all(&mut self, piece: impl Buf);
}

impl PutAll for BytesMut {
    fn put_all(&mut self, mut piece: impl Buf) {
        while piece.has_remaining() {
            let chunk = piece.chunk();
            let length = chunk.len();
            self.extend_from_slice(chunk);
            piece.advance(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::convert::Infallible;

    const SECOND: Duration = Duration::from_secs(1);

    fn pieces(pieces: &[&'static str]) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|text| Ok(Bytes::from_static(text.as_bytes())))
            .collect();
        stream::iter(pieces)
    }

    async fn read(
        limits: &Limits,
        body: impl Stream<Item = Result<Bytes, Infallible>>,
    ) -> Result<Received, (u16, &'static str)> {
        let read = limits.read(&HeaderMap::new(), body).await;
        read.map_err(|problem| problem.summary())
    }

    #[tokio::test]
    async fn pieces_are_joined() {
        let limits = Limits::new(8, SECOND);
        for (given, joined) in [
            (&[][..], ""),
            (&["abc"], "abc"),
            (&["", "ab", "", "c", "defgh"], "abcdefgh"),
        ] {
            assert_eq!(read(&limits, pieces(given)).await.unwrap().bytes, joined);
        }
    }

    #[tokio::test]
    async fn too_many_bytes_are_refused_however_they_come() {
        let limits = Limits::new(8, SECOND);
        let too_large = (413, "too_large");
        let many = pieces(&["abcd", "efgh", "i"]);
        assert_eq!(read(&limits, many).await.unwrap_err(), too_large);
        assert_eq!(
            read(&limits, pieces(&["abcdefghi"])).await.unwrap_err(),
            too_large
        );
        // Declared and expected (100-continue), and so never read.
        let headers = HeaderMap::from_iter([
            (CONTENT_LENGTH, "9".parse().unwrap()),
            (EXPECT, "100-continue".parse().unwrap()),
        ]);
        let never = stream::pending::<Result<Bytes, Infallible>>();
        let refused = limits.read(&headers, never).await.unwrap_err();
        assert_eq!(refused.summary(), too_large);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_trickles_end() {
        let limits = Limits::new(1000, SECOND);
        let silence = pieces(&["a"]).chain(stream::pending());
        assert_eq!(read(&limits, silence).await.unwrap_err(), (408, "timeout"));
        let started = Instant::now();
        let trickle = stream::repeat(()).then(|()| async {
            tokio::time::sleep(SECOND / 2).await;
            Ok(Bytes::from_static(b"a"))
        });
        assert_eq!(read(&limits, trickle).await.unwrap_err(), (408, "timeout"));
        assert!(started.elapsed() <= SECOND * 7, "{:?}", started.elapsed());
        // 32 KiB/s for 20 seconds.
        let slow = stream::iter(0..40).then(|_| async {
            tokio::time::sleep(SECOND / 2).await;
            Ok(Bytes::from_static(&[0; 16 * 1024]))
        });
        let large = Limits::new(1 << 20, SECOND);
        assert_eq!(
            read(&large, slow).await.unwrap().bytes.len(),
            40 * 16 * 1024
        );
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let limits = Limits::new(UNIT, SECOND);
        let mut held = Vec::new();
        for _ in 0..LARGEST_AT_ONCE {
            held.push(read(&limits, pieces(&["a"])).await.unwrap());
        }
        assert_eq!(
            read(&limits, pieces(&["a"])).await.unwrap_err(),
            (429, "busy")
        );
        held.pop();
        read(&limits, pieces(&["a"])).await.unwrap();
    }
}
