//! Requests in pieces: what is sent at once is bounded, and the time for its answer grows with its size.
//!
//! Redis works on one thing at a time. A thousand segments asked about at once would hold everybody else up, and
//! their answer would come after a time limit that suits one of them.

use std::time::Duration;

use super::Request;

/// How much is sent at once, and how long its answer may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pieces {
    /// Arguments sent at once; a request with more is sent by itself.
    pub(crate) at_once: usize,
    /// The time for the smallest request.
    pub(crate) shortest: Duration,
    /// More time for each argument.
    pub(crate) per_argument: Duration,
    /// Pieces that are not small on their way at a time; the others wait here, where waiting does not count as
    /// silence of the server.
    pub(crate) under_way: usize,
}

/// Up to this many arguments a piece waits for no other: it costs the server some tens of microseconds.
const SMALL: usize = 64;

impl Pieces {
    /// The requests in their order, cut so that each piece but one that can't be cut stays within the bound.
    pub(super) fn cut<'a, 'r>(&self, requests: &'a [Request<'r>]) -> Vec<&'a [Request<'r>]> {
        let mut pieces = Vec::new();
        let (mut start, mut size) = (0, 0);
        for (index, request) in requests.iter().enumerate() {
            let more = request.arguments();
            if index > start && size + more > self.at_once {
                pieces.push(&requests[start..index]);
                (start, size) = (index, 0);
            }
            size += more;
        }
        if start < requests.len() {
            pieces.push(&requests[start..]);
        }
        pieces
    }

    /// The most that a piece of this size may take.
    pub(super) fn time_for(&self, piece: &[Request<'_>]) -> Duration {
        let arguments = u32::try_from(arguments(piece)).unwrap_or(u32::MAX);
        self.shortest
            .saturating_add(self.per_argument.saturating_mul(arguments))
    }

    /// The most that a piece takes which can be cut.
    pub(super) fn longest(&self) -> Duration {
        let arguments = u32::try_from(self.at_once).unwrap_or(u32::MAX);
        self.shortest
            .saturating_add(self.per_argument.saturating_mul(arguments))
    }

    pub(super) fn is_small(piece: &[Request<'_>]) -> bool {
        arguments(piece) <= SMALL
    }
}

fn arguments(piece: &[Request<'_>]) -> usize {
    piece.iter().map(Request::arguments).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECES: Pieces = Pieces {
        at_once: 10,
        shortest: Duration::from_millis(50),
        per_argument: Duration::from_millis(1),
        under_way: 2,
    };

    /// A request with this many arguments, its name included.
    fn request(arguments: usize) -> Request<'static> {
        Request::command("ZADD", vec!["x"; arguments - 1])
    }

    #[test]
    fn pieces_are_bounded_and_join_to_the_whole() {
        let sizes = [3, 3, 4, 1, 25, 2, 9, 9];
        let requests: Vec<_> = sizes.into_iter().map(request).collect();
        let cut: Vec<Vec<usize>> = PIECES
            .cut(&requests)
            .into_iter()
            .map(|piece| piece.iter().map(Request::arguments).collect())
            .collect();
        assert_eq!(
            cut,
            [vec![3, 3, 4], vec![1], vec![25], vec![2], vec![9], vec![9]]
        );
        assert!(PIECES.cut(&[]).is_empty());
    }

    #[test]
    fn a_larger_piece_has_more_time() {
        assert_eq!(PIECES.time_for(&[request(1)]), Duration::from_millis(51));
        let many: Vec<_> = (0..10).map(|_| request(100)).collect();
        assert_eq!(PIECES.time_for(&many), Duration::from_millis(1050));
        assert!(Pieces::is_small(&[request(3)]) && !Pieces::is_small(&many));
    }
}
