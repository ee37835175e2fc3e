//! Limits the log lines for refused requests: a flood must neither fill a disk nor hide the refusals of other clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// The period of the limits on lines for refusals.
const PERIOD: Duration = Duration::from_secs(60);
/// Lines per period for refusals of one address.
const PER_ADDRESS: u32 = 10;
/// Lines per period for refusals of all addresses: at most 36 MB a day with 250 bytes a line. Metrics count all refusals.
const FOR_ALL: u32 = 100;

/// The limits of one kind of line.
#[derive(Debug)]
pub(super) struct LineLimit {
    since: Instant,
    by_address: HashMap<IpAddr, u32>,
    lines: u32,
    /// LineLimit without a line since the last line.
    left_out: u64,
}

impl LineLimit {
    pub(super) fn new(since: Instant) -> Self {
        Self {
            since,
            by_address: HashMap::new(),
            lines: 0,
            left_out: 0,
        }
    }

    /// Whether a refusal of `from` gets a line: if so, the number of refusals without a line before it.
    pub(super) fn next(&mut self, from: IpAddr, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= PERIOD {
            *self = Self {
                left_out: self.left_out,
                ..Self::new(now)
            };
        }
        // The total is checked first, so that an address without a line takes no memory.
        if self.lines >= FOR_ALL {
            self.left_out += 1;
            return None;
        }
        let of_address = self.by_address.entry(from).or_default();
        if *of_address >= PER_ADDRESS {
            self.left_out += 1;
            return None;
        }
        *of_address += 1;
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let began = Instant::now();
        let mut limit = LineLimit::new(began);
        let flood = (0..1_000).filter(|_| limit.next(address(1), began).is_some());
        assert_eq!(flood.count(), PER_ADDRESS as usize);
        assert_eq!(
            limit.next(address(2), began),
            Some(990),
            "other addresses still get lines"
        );
        let many: usize = (3..=250)
            .map(|last| {
                (0..5)
                    .filter(|_| limit.next(address(last), began).is_some())
                    .count()
            })
            .sum();
        assert_eq!(many, (FOR_ALL - PER_ADDRESS - 1) as usize);
        assert!(limit.by_address.len() <= FOR_ALL as usize);
        let later = began + PERIOD;
        assert!(
            limit
                .next(address(1), later)
                .is_some_and(|left_out| left_out > 1_000)
        );
        assert_eq!(limit.next(address(1), later), Some(0));
    }
}
