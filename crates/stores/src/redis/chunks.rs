//! Splits requests into chunks: the size of a chunk is bounded, and its timeout grows with its size.
//!
//! Redis executes one command at a time. Requests for 1,000 segments at once would delay all other clients, and would
//! exceed a timeout that suits one of them.

use std::time::Duration;

use super::Request;

/// The limits of a chunk: its size, its timeout, and how many are in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkLimits {
    /// Arguments of all requests of a chunk; a request with more forms a chunk of its own.
    pub(crate) max_arguments: usize,
    /// The timeout of the smallest request.
    pub(crate) base_timeout: Duration,
    /// What each argument adds to the timeout.
    pub(crate) timeout_per_argument: Duration,
    /// Chunks in flight at a time, small ones not included. The others wait in this process, where the wait does not
    /// count against their timeout.
    pub(crate) max_in_flight: usize,
}

/// A chunk with up to this many arguments waits for no permit: it costs the server some tens of microseconds.
const SMALL: usize = 64;

impl ChunkLimits {
    /// Splits the requests, in order, into chunks of at most `max_arguments`. A request is never split.
    pub(super) fn split<'a, 'r>(&self, requests: &'a [Request<'r>]) -> Vec<&'a [Request<'r>]> {
        let mut chunks = Vec::new();
        let (mut start, mut size) = (0, 0);
        for (index, request) in requests.iter().enumerate() {
            let more = request.arguments();
            if index > start && size + more > self.max_arguments {
                chunks.push(&requests[start..index]);
                (start, size) = (index, 0);
            }
            size += more;
        }
        if start < requests.len() {
            chunks.push(&requests[start..]);
        }
        chunks
    }

    /// The timeout of a chunk of this size.
    pub(super) fn timeout(&self, chunk: &[Request<'_>]) -> Duration {
        let arguments = u32::try_from(arguments(chunk)).unwrap_or(u32::MAX);
        self.base_timeout
            .saturating_add(self.timeout_per_argument.saturating_mul(arguments))
    }

    /// The timeout of a chunk with `max_arguments`.
    pub(super) fn longest_timeout(&self) -> Duration {
        let arguments = u32::try_from(self.max_arguments).unwrap_or(u32::MAX);
        self.base_timeout
            .saturating_add(self.timeout_per_argument.saturating_mul(arguments))
    }

    pub(super) fn is_small(chunk: &[Request<'_>]) -> bool {
        arguments(chunk) <= SMALL
    }
}

fn arguments(chunk: &[Request<'_>]) -> usize {
    chunk.iter().map(Request::arguments).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ChunkLimits = ChunkLimits {
        max_arguments: 10,
        base_timeout: Duration::from_millis(50),
        timeout_per_argument: Duration::from_millis(1),
        max_in_flight: 2,
    };

    /// A request with this many arguments, its name included.
    fn request(arguments: usize) -> Request<'static> {
        Request::command("ZADD", vec!["x"; arguments - 1])
    }

    #[test]
    fn pieces_are_bounded_and_join_to_the_whole() {
        let sizes = [3, 3, 4, 1, 25, 2, 9, 9];
        let requests: Vec<_> = sizes.into_iter().map(request).collect();
        let split: Vec<Vec<usize>> = LIMITS
            .split(&requests)
            .into_iter()
            .map(|chunk| chunk.iter().map(Request::arguments).collect())
            .collect();
        assert_eq!(
            split,
            [vec![3, 3, 4], vec![1], vec![25], vec![2], vec![9], vec![9]]
        );
        assert!(LIMITS.split(&[]).is_empty());
    }

    #[test]
    fn a_larger_piece_has_more_time() {
        assert_eq!(LIMITS.timeout(&[request(1)]), Duration::from_millis(51));
        let many: Vec<_> = (0..10).map(|_| request(100)).collect();
        assert_eq!(LIMITS.timeout(&many), Duration::from_millis(1050));
        assert!(ChunkLimits::is_small(&[request(3)]) && !ChunkLimits::is_small(&many));
    }
}
