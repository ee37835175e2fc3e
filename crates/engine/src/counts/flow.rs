//! How many users entered and left a segment, in steps of time and between the points of a trend.

use std::time::Duration;

use super::{Counts, ShownCount};
use crate::time_steps::FlowSteps;
use domain::store::StoreError;
use domain::{Count, Flow, Segment, Timestamp, Window};

/// How many users entered and left in a step of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowStep {
    /// The start of the step.
    pub at: Timestamp,
    /// `None` if it is not known.
    pub flow: Option<Flow>,
}

impl Counts {
    /// How many users entered and left `segment` over the configured window, in each of `steps`. The current step has the
    /// users until now, later steps have 0.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] if neither the store nor live counts count it, and [`StoreError::Unavailable`] while
    /// live counts are not current.
    pub async fn flow(
        &self,
        segment: &Segment,
        steps: &FlowSteps,
    ) -> Result<Vec<FlowStep>, StoreError> {
        let flows = self.flows(segment, steps).await?;
        let numbers = steps.numbers.clone();
        Ok(numbers
            .zip(flows)
            .map(|(number, flow)| FlowStep {
                at: steps.start_of(number),
                flow,
            })
            .collect())
    }

    /// How many users entered and left `segment` between the points of a trend: for each of `points`, from the end of the
    /// previous point's step to the end of its own step. For the first point, only its own step. Without a `step`, each slot
    /// is a step. `None` for a point if it is not known.
    pub async fn flow_of_trend(
        &self,
        segment: &Segment,
        window: Window,
        points: &[ShownCount],
        step: Option<Duration>,
    ) -> Vec<Option<Flow>> {
        let known = self.known_flow_of_trend(segment, window, points, step);
        known.await.unwrap_or_else(|| vec![None; points.len()])
    }

    async fn known_flow_of_trend(
        &self,
        segment: &Segment,
        window: Window,
        points: &[ShownCount],
        step: Option<Duration>,
    ) -> Option<Vec<Option<Flow>>> {
        let (first, last) = (points.first()?, points.last()?);
        if window != self.parts.frame.full_window() {
            return None;
        }
        let resolution = self.parts.frame.resolution();
        let slot = Duration::from_secs(u64::from(resolution.seconds()));
        let steps = FlowSteps::new(first.as_of, last.as_of, step.unwrap_or(slot), resolution)?;
        // The trend is returned without these numbers.
        let flows = self.flows(segment, &steps).await.ok()?;
        let before = points.iter().map(|point| Some(point.as_of));
        let before = std::iter::once(None).chain(before);
        Some(
            points
                .iter()
                .zip(before)
                .map(|(point, before)| steps.between(&flows, before, point.as_of))
                .collect(),
        )
    }

    /// The count of `segment` over the configured window, and how many users entered and left it since it is in memory, both
    /// at the same instant. `None` without the embedded store or a replica in this process, and with a floor.
    pub fn total_flow(&self, segment: &Segment) -> Option<(Count, Flow)> {
        if self.floor().is_on() {
            return None;
        }
        match &self.parts.live {
            Some(live) => live.total_flow(segment),
            None => {
                let now = self.parts.clock.now();
                self.parts.store.total_flow(segment, now)
            }
        }
    }

    async fn flows(
        &self,
        segment: &Segment,
        steps: &FlowSteps,
    ) -> Result<Vec<Option<Flow>>, StoreError> {
        if self.floor().is_on() {
            // The difference of two steps, or of two counts, may be a small group.
            return Ok(vec![None; steps.spans().len()]);
        }
        let Some(live) = &self.parts.live else {
            let now = self.parts.clock.now();
            return self.parts.store.flow(segment, &steps.spans(), now);
        };
        let flows = live.flow(segment, steps).await;
        flows.ok_or_else(|| {
            StoreError::Unavailable(
                "live counts are not current, or have not read this segment yet".to_owned(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Resolution, TimeFrame};

    const HOUR: Duration = Duration::from_hours(1);

    fn resolution() -> Resolution {
        let minute = Duration::from_mins(1);
        let frame = TimeFrame::new(24 * HOUR, minute, minute).unwrap();
        frame.resolution()
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    #[test]
    fn steps_are_aligned_and_the_last_ones_win() {
        let steps = FlowSteps::new(at(59), at(121), HOUR, resolution()).unwrap();
        assert_eq!(steps.begin(), at(0)..=at(120));
        assert_eq!(steps.length(), HOUR);
        let spans = steps.spans();
        let starts = spans.iter().map(|span| span.start.number() % 60);
        assert!(starts.eq([0, 0, 0]), "{spans:?}");
        assert!(spans.windows(2).all(|two| two[0].end == two[1].start));
        let ages = FlowSteps::new(Timestamp::UNIX_EPOCH, at(0), HOUR, resolution()).unwrap();
        assert_eq!(ages.spans().len() as u64, FlowSteps::MAX);
        assert_eq!(*ages.begin().end(), at(0));
        for odd in [90, 59, 0] {
            let step = Duration::from_secs(odd);
            assert_eq!(FlowSteps::new(at(0), at(9), step, resolution()), None);
        }
    }

    #[test]
    fn each_step_belongs_to_one_point() {
        let steps = FlowSteps::new(at(0), at(300), HOUR, resolution()).unwrap();
        let flow = |entered| Flow { entered, left: 1 };
        let flows = [1, 2, 4, 8, 16, 32].map(|entered| Some(flow(entered)));
        let between = |before: Option<i64>, until| {
            let found = steps.between(&flows, before.map(at), at(until));
            found.map(|flow| (flow.entered, flow.left))
        };
        assert_eq!(between(None, 59), Some((1, 1)));
        assert_eq!(between(Some(59), 119), Some((2, 1)));
        assert_eq!(between(Some(59), 60), Some((2, 1)));
        assert_eq!(between(Some(60), 119), None, "both are in one step");
        assert_eq!(between(Some(119), 300), Some((60, 4)));
        assert_eq!(between(Some(119), 360), None, "it is after the last step");
        assert_eq!(between(Some(-120), 59), None, "it is before the first step");
        let unknown = [None, Some(flow(1))];
        assert_eq!(steps.between(&unknown, None, at(60)), Some(flow(1)));
        assert_eq!(steps.between(&unknown, Some(at(-1)), at(60)), None);
    }
}
