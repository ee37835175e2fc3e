//! The stops of the slider over windows: lengths that people name, not equal steps.

use std::time::Duration;

use domain::{TimeFrame, Window};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Stops below an hour, and below a day.
const MINUTES: [u64; 6] = [1, 5, 10, 15, 30, 45];
const HOURS: [u64; 10] = [1, 2, 3, 4, 6, 8, 10, 12, 16, 20];
/// Half days up to this many days, then whole days.
const HALF_DAYS: u64 = 3;

/// A slider: its stops in seconds, joined by blanks, and the one that is chosen.
#[derive(Debug)]
pub(super) struct Slider {
    pub(super) stops: String,
    pub(super) last: usize,
    pub(super) chosen: usize,
}

impl Slider {
    pub(super) fn of(frame: &TimeFrame, chosen: Window) -> Self {
        let stops = stops(frame);
        let before = stops.partition_point(|stop| *stop < chosen.seconds());
        let texts: Vec<_> = stops.iter().map(u64::to_string).collect();
        let last = stops.len().saturating_sub(1);
        Self {
            stops: texts.join(" "),
            last,
            chosen: before.min(last),
        }
    }
}

/// The lengths in seconds that are windows of `frame`, the configured one last.
fn stops(frame: &TimeFrame) -> Vec<u64> {
    let full = frame.full_window().seconds();
    let days = full / DAY;
    let minutes = MINUTES.into_iter().map(|number| number * MINUTE);
    let hours = HOURS.into_iter().map(|number| number * HOUR);
    let halves = (2..=2 * HALF_DAYS).map(|number| number * DAY / 2);
    let whole = (HALF_DAYS + 1..=days).map(|number| number * DAY);
    let mut stops: Vec<_> = minutes
        .chain(hours)
        .chain(halves)
        .chain(whole)
        .filter(|seconds| frame.window(Duration::from_secs(*seconds)).is_ok())
        .chain([full])
        .collect();
    stops.dedup();
    stops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(window: u64, resolution: u64) -> TimeFrame {
        let [window, resolution] = [window, resolution].map(Duration::from_secs);
        TimeFrame::new(window, resolution, Duration::ZERO).unwrap()
    }

    #[test]
    fn every_stop_is_a_window_and_the_last_is_the_configured_one() {
        for (window, resolution) in [
            (14 * DAY, 60),
            (600, 60),
            (7 * DAY + HOUR, HOUR),
            (30, 1),
            (7 * 60, 7),
        ] {
            let frame = frame(window, resolution);
            let stops = stops(&frame);
            assert!(
                stops.is_sorted() && stops.last() == Some(&window),
                "{stops:?}"
            );
            for stop in stops {
                frame.window(Duration::from_secs(stop)).unwrap();
            }
        }
    }

    #[test]
    fn the_chosen_stop_is_the_next_one() {
        let frame = frame(14 * DAY, 60);
        let stops = stops(&frame);
        let full = Slider::of(&frame, frame.full_window());
        assert_eq!(full.chosen, full.last);
        let odd = frame.window(Duration::from_secs(61 * 60)).unwrap();
        assert_eq!(stops[Slider::of(&frame, odd).chosen], 2 * HOUR);
    }
}
