//! Reads request bodies: streamed, bounded in bytes, in time, and in what all of them hold together.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use tokio::time::{Instant, timeout_at};
use warp::http::StatusCode;
use warp::http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};

use super::problem::Problem;

/// All bodies under way may hold this many of the largest size: 256 MiB at the default of 8 MiB.
const LARGEST_AT_ONCE: u64 = 32;
/// A body that is too large is read on to at most this many times the limit before the answer: a client that
/// only writes until it is done would otherwise see a broken connection instead of the reason.
const DISCARD_TIMES: u64 = 4;
/// A body may take this many times as long as a single piece of it, and longer only while it comes at least at
/// the slowest rate: a client on a poor line is served, one that trickles to hold a connection is not.
const TOTAL_TIMES: u32 = 6;
/// Bytes a second.
const SLOWEST_RATE: u64 = 16 * 1024;
/// Bytes per permit of the common budget.
const UNIT: u64 = 1024;
/// What a client is told to wait when other bodies hold all the room.
const RETRY_ROOM: Duration = Duration::from_secs(1);

/// What bodies may hold and take.
#[derive(Debug)]
pub(super) struct Limits {
    /// Most bytes of one body.
    pub(super) max_body: u64,
    /// Longest silence within a body.
    idle: Duration,
    room: Arc<Semaphore>,
}

/// A whole body. What it holds of the common budget is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    _room: Room,
}

/// When a body must have come.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    /// The deadline once `bytes` came.
    fn after(self, bytes: u64) -> Instant {
        self.0 + Duration::from_secs(bytes / SLOWEST_RATE)
    }
}

#[derive(Debug)]
struct Room {
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
            room: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Reads `body` to its end.
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
            // One who asked first whether to send has not sent: the answer is no.
            && !headers.contains_key(EXPECT)
        {
            self.discard(body, deadline).await;
        }
        result
    }

    async fn gather<B: Buf, E>(
        &self,
        declared: Option<u64>,
        mut body: Pin<&mut impl Stream<Item = Result<B, E>>>,
        deadline: Deadline,
    ) -> Result<Received, Problem> {
        let mut room = Room {
            budget: Arc::clone(&self.room),
            held: None,
            units: 0,
        };
        let mut first = Bytes::new();
        // Most bodies are one piece, which needs no copy.
        let mut joined: Option<BytesMut> = None;
        let mut length = 0;
        while let Some(mut piece) = self.next(body.as_mut(), deadline.after(length)).await? {
            length += piece.remaining() as u64;
            if length > self.max_body {
                return Err(Problem::too_large(self.max_body));
            }
            room.grow_to(length)?;
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
            _room: room,
        })
    }

    async fn next<B, E>(
        &self,
        mut body: Pin<&mut impl Stream<Item = Result<B, E>>>,
        deadline: Instant,
    ) -> Result<Option<B>, Problem> {
        let by = deadline.min(Instant::now() + self.idle);
        // Unconstrained, since a client that sends without a pause uses up the budget of its task for reading the socket,
        // whatever that amounts to (endless zeros of a chunk's length are no piece), and then no timer would fire.
        match unconstrained(timeout_at(by, body.next())).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(_))) => Err(Problem::bad_request(
                "malformed",
                "the body was cut off, or its chunks are not as HTTP wants them",
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

impl Room {
    fn grow_to(&mut self, bytes: u64) -> Result<(), Problem> {
        let missing = bytes.div_ceil(UNIT).saturating_sub(self.units);
        if missing == 0 {
            return Ok(());
        }
        let permits = u32::try_from(missing).unwrap_or(u32::MAX);
        let full = |_| Problem::busy("too many bodies are under way", RETRY_ROOM);
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
        // Declared, asked for, and so never read.
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
