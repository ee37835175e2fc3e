//! The state of live counts, in readiness reports and metrics.

use std::sync::Arc;

use super::{Live, Side};
use live::publisher::Role;
use live::view::View;
use live::writer::FeedWriter;
use telemetry::Metrics;
use telemetry::metrics::set_total;

impl Live {
    /// The state as a sentence, for readiness reports; an error while counts are not live.
    pub(crate) fn describe(&self) -> Result<String, String> {
        let state = match &self.side {
            Side::Host(host) => host.describe()?,
            Side::Reader { view, .. } => described(view)?,
        };
        let owed = self.writer.as_ref().map(FeedWriter::status);
        match owed.and_then(|status| Some((status.owed, status.owed_for?))) {
            Some((entries, time)) => Err(format!(
                "{entries} entries wait on this instance for the change feed, for {} s; counts lack their pairs",
                time.as_secs()
            )),
            None => Ok(state),
        }
    }

    /// Shows the state in the metrics.
    pub(crate) fn observe(self: &Arc<Self>, metrics: &Metrics) {
        metrics.live.configured.set(1);
        let observed = Arc::downgrade(self);
        metrics.before_render(move |metrics| {
            if let Some(live) = observed.upgrade() {
                live.show(metrics);
            }
        });
    }

    fn show(&self, metrics: &Metrics) {
        if let Some(writer) = &self.writer {
            let writer = writer.status();
            metrics.live.owed_entries.set(writer.owed);
            let owed_for = writer.owed_for.unwrap_or_default();
            metrics.live.owed_age.set(owed_for.as_secs_f64());
            set_total(&metrics.live.resent_entries, writer.resent);
            set_total(&metrics.live.dropped_entries, writer.dropped);
        }
        let as_of = match &self.side {
            Side::Host(host) => host.replica().and_then(|replica| replica.as_of()),
            Side::Reader { view, .. } => view.tick().map(|tick| tick.as_of),
        };
        let now = self.sources.clock.now();
        let age = as_of.map(|as_of| now.duration_since(as_of).as_secs_f64().max(0.0));
        metrics.live.age.set(age.unwrap_or(f64::NAN));
        let Side::Host(host) = &self.side else { return };
        let publishes = host.role() == Some(Role::Publisher);
        metrics.live.publishes.set(u64::from(publishes));
        let Some(replica) = host.replica() else {
            return;
        };
        let status = replica.status();
        metrics.live.complete.set(u64::from(status.is_complete));
        metrics.live.unread_segments.set(status.unread_segments);
        metrics.live.pairs.set(status.pairs);
        metrics.live.bytes.set(status.bytes);
        metrics.live.feed_entries.set(status.feed.entries);
        metrics.live.feed_bytes.set(status.feed.bytes);
        set_total(&metrics.live.applied_entries, status.entries);
        set_total(&metrics.live.hydrated_pairs, status.hydrated_pairs);
        set_total(&metrics.live.repairs, status.repairs);
        set_total(&metrics.live.audits, status.audits);
        set_total(&metrics.live.differences, status.differences);
        set_total(&metrics.live.clamped_records, status.clamped);
    }
}

fn described(view: &View) -> Result<String, String> {
    if let Some(theirs) = view.other_window() {
        return Err(format!(
            "the live processes count over a `window` of {theirs} s, which differs from that of this service; counts come from the \
             cache and the store until both are the same"
        ));
    }
    match view.tick() {
        None => Err(
            "no live process publishes counts; they come from the cache and the store".to_owned(),
        ),
        Some(tick) if !tick.complete => Err(format!(
            "the live process reads the store; counts of {} segments are live, others come from the cache and the store",
            tick.segments
        )),
        Some(tick) => Ok(format!("{} segments", tick.segments)),
    }
}
