//! Slots, their resolution, and the time frame in which pairs are accepted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Window;

/// The maximum number of slots in a window. The embedded index keeps a slot in 16 bits. It needs spare numbers between
/// the window's end and the wrap-around, so that it can remove expired pairs in time.
const MAX_SLOTS: u64 = 1 << 15;

/// One step of the resolution: `floor(unix seconds / resolution)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u64);

impl Slot {
    /// The slot with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The slot's number since the epoch.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The length of a slot: 1 second to 1 hour, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resolution(u32);

impl Resolution {
    /// The length of a slot in seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// The slot that holds `instant`; instants before 1970 are in slot 0.
    pub fn slot_of(self, instant: Timestamp) -> Slot {
        let seconds = u64::try_from(instant.as_second()).unwrap_or(0);
        Slot(seconds / u64::from(self.0))
    }

    /// The first instant of `slot`.
    pub fn start_of(self, slot: Slot) -> Timestamp {
        let seconds = slot.0.saturating_mul(u64::from(self.0));
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
    }

    /// The instant of a count that was asked for as of `asked`, and is as of `counted`, the same slot or a later one.
    pub fn counted_as_of(self, asked: Timestamp, counted: Slot) -> Timestamp {
        match counted == self.slot_of(asked) {
            true => asked,
            false => asked.max(self.start_of(counted)),
        }
    }

    /// The last instant of `slot`, to the microsecond.
    pub fn end_of(self, slot: Slot) -> Timestamp {
        let next = self.start_of(Slot(slot.0.saturating_add(1)));
        next.checked_sub(SignedDuration::from_micros(1))
            .unwrap_or(next)
    }
}

/// The window, the resolution, and the maximum time that a pair may be ahead of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeFrame {
    resolution: Resolution,
    window: Window,
    max_ahead: SignedDuration,
}

/// The reason why three durations are not a valid time frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimeFrame {
    /// The resolution is not whole seconds from 1 to 3600.
    #[error("resolution must be whole seconds from 1s to 1h")]
    Resolution,
    /// The window is not a positive multiple of the resolution.
    #[error("window must be a positive multiple of the resolution, {0} s")]
    NotAMultiple(u32),
    /// The window has too many slots.
    #[error(
        "window has {0} slots of the resolution; at most {MAX_SLOTS}: use a coarser resolution"
    )]
    TooManySlots(u64),
    /// `max_ahead` is more than a day.
    #[error("max_ahead must be at most 24h")]
    MaxAhead,
}

/// The error for a duration that is not a valid window of this frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "window must be a multiple of {resolution_seconds} s, from {resolution_seconds} s to {max_seconds} s"
)]
pub struct InvalidWindow {
    resolution_seconds: u32,
    max_seconds: u64,
}

/// The reason why an instant can't be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInstant {
    /// The instant is further ahead of the clock than `max_ahead`, in seconds.
    #[error("at is more than {0} s ahead of the server's clock")]
    InFuture(i64),
    /// The instant is older than the window, whose length is in seconds.
    #[error("at is older than the window of {0} s")]
    Expired(u64),
}

impl TimeFrame {
    /// Creates a frame. `max_ahead` is the maximum time that a pair may be ahead of the clock.
    pub fn new(
        window: Duration,
        resolution: Duration,
        max_ahead: Duration,
    ) -> Result<Self, InvalidTimeFrame> {
        let seconds = u32::try_from(resolution.as_secs()).unwrap_or(u32::MAX);
        if resolution.subsec_nanos() != 0 || !(1..=3600).contains(&seconds) {
            return Err(InvalidTimeFrame::Resolution);
        }
        let resolution = Resolution(seconds);
        let slots = window.as_secs() / u64::from(seconds);
        if window.subsec_nanos() != 0
            || slots == 0
            || !window.as_secs().is_multiple_of(u64::from(seconds))
        {
            return Err(InvalidTimeFrame::NotAMultiple(seconds));
        }
        let slots = match u32::try_from(slots) {
            Ok(few) if slots <= MAX_SLOTS => few,
            _ => return Err(InvalidTimeFrame::TooManySlots(slots)),
        };
        if max_ahead > Duration::from_hours(24) {
            return Err(InvalidTimeFrame::MaxAhead);
        }
        let max_ahead = SignedDuration::try_from(max_ahead).unwrap_or(SignedDuration::ZERO);
        Ok(Self {
            resolution,
            window: Window::new(slots, resolution),
            max_ahead,
        })
    }

    /// The length of a slot.
    pub fn resolution(&self) -> Resolution {
        self.resolution
    }

    /// The configured window: the default and the maximum for counts.
    pub fn full_window(&self) -> Window {
        self.window
    }

    /// A window of this length, which must be a multiple of the resolution and at most the configured window.
    pub fn window(&self, length: Duration) -> Result<Window, InvalidWindow> {
        let step = u64::from(self.resolution.0);
        let slots = length.as_secs() / step;
        let whole = length.subsec_nanos() == 0 && length.as_secs().is_multiple_of(step);
        match u32::try_from(slots) {
            Ok(slots) if whole && slots >= 1 && slots <= self.window.slots() => {
                Ok(Window::new(slots, self.resolution))
            }
            _ => Err(InvalidWindow {
                resolution_seconds: self.resolution.0,
                max_seconds: self.window.seconds(),
            }),
        }
    }

    /// The slot in which a pair seen at `at` counts if it is received at `now`.
    ///
    /// A pair that is ahead of the clock by at most `max_ahead` counts as seen now, as does a pair without `at`.
    pub fn place(&self, at: Option<Timestamp>, now: Timestamp) -> Result<Slot, InvalidInstant> {
        let present = self.resolution.slot_of(now);
        let Some(at) = at else { return Ok(present) };
        if at >= now {
            if at.duration_since(now) > self.max_ahead {
                return Err(InvalidInstant::InFuture(self.max_ahead.as_secs()));
            }
            return Ok(present);
        }
        let slot = self.resolution.slot_of(at);
        if at.as_second() < 0 || slot < *self.window.slots_as_of(present).start() {
            return Err(InvalidInstant::Expired(self.window.seconds()));
        }
        Ok(slot)
    }

    /// The first instant at which a user last seen in `slot` is no longer counted.
    pub fn leaves_at(&self, slot: Slot) -> Timestamp {
        self.resolution
            .start_of(Slot(slot.0 + u64::from(self.window.slots())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(window: u64, resolution: u64) -> TimeFrame {
        TimeFrame::new(
            Duration::from_secs(window),
            Duration::from_secs(resolution),
            Duration::from_secs(300),
        )
        .unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_frame_names_what_is_wrong() {
        let new = |window, resolution| {
            TimeFrame::new(
                Duration::from_secs(window),
                Duration::from_millis(resolution),
                Duration::ZERO,
            )
            .unwrap_err()
        };
        assert_eq!(new(60, 0), InvalidTimeFrame::Resolution);
        assert_eq!(new(60, 1_500), InvalidTimeFrame::Resolution);
        assert_eq!(new(7_200, 3_601_000), InvalidTimeFrame::Resolution);
        assert_eq!(new(90, 60_000), InvalidTimeFrame::NotAMultiple(60));
        assert_eq!(new(0, 60_000), InvalidTimeFrame::NotAMultiple(60));
        assert_eq!(
            new(1_209_600, 1_000),
            InvalidTimeFrame::TooManySlots(1_209_600)
        );
    }

    #[test]
    fn a_pair_stays_at_most_the_window_and_at_least_a_slot_less() {
        let frame = frame(1_209_600, 60);
        let now = at(1_800_000_030);
        let present = frame.resolution().slot_of(now);
        assert_eq!(frame.place(None, now).unwrap(), present);
        assert_eq!(frame.place(Some(at(1_800_000_330)), now).unwrap(), present);
        assert_eq!(
            frame.place(Some(at(1_800_000_331)), now).unwrap_err(),
            InvalidInstant::InFuture(300)
        );
        let oldest = frame
            .resolution()
            .start_of(*frame.full_window().slots_as_of(present).start());
        assert!(frame.place(Some(oldest), now).is_ok());
        assert_eq!(
            frame
                .place(Some(oldest - SignedDuration::from_secs(1)), now)
                .unwrap_err(),
            InvalidInstant::Expired(1_209_600)
        );
        assert_eq!(frame.leaves_at(present), at(1_800_000_000 + 1_209_600));
    }

    #[test]
    fn windows_are_multiples_up_to_the_configured_one() {
        let frame = frame(240, 1);
        assert_eq!(
            frame.window(Duration::from_secs(240)).unwrap(),
            frame.full_window()
        );
        assert_eq!(frame.window(Duration::from_secs(1)).unwrap().slots(), 1);
        for bad in [
            Duration::ZERO,
            Duration::from_secs(241),
            Duration::from_millis(1500),
        ] {
            assert!(frame.window(bad).is_err());
        }
    }
}
