//! The walk over the segments of a plan, all at once.

use super::plan::Plan;
use super::visit::Visit;
use crate::entry::{Entry, FINGERPRINT_BITS};
use crate::grouping::{self, Grouping};
use crate::members::InWindow;
use crate::reader::{Reader, Stop};

/// The cost of a user, as a number of increments.
const USER_OVERHEAD: usize = 4;

/// The number of increments that take as long as reading an entry.
const INCREMENTS_PER_ENTRY: usize = 4;

/// What a walk counts.
pub(super) trait Counters {
    type Visit: Visit;

    /// The visit of an entry in the window to the segment of this number.
    fn visit(&self, segment: u16, entry: Entry, in_window: InWindow) -> Self::Visit;

    /// Counts a user, given all visits in the window in ascending order of segments.
    fn count(&mut self, visits: &[Self::Visit]);
}

/// Counts every user of the plan's segments.
pub(super) fn run<C: Counters>(
    plan: &Plan,
    reader: &mut Reader<'_>,
    counters: &mut C,
) -> Result<(), Stop> {
    let bits = plan.range_bits();
    let mut visits = Vec::new();
    let mut grouping = Grouping::default();
    for number in 0..1_u64 << (FINGERPRINT_BITS - bits) {
        let stripe = number << bits..(number + 1) << bits;
        reader.spend(0)?;
        visits.clear();
        for (segment, shared) in &plan.sources {
            reader.each_page(shared, &stripe, |entries, in_window| {
                append(counters, *segment, entries, in_window, &mut visits);
            })?;
        }
        for user in grouping::users(grouping.sort(&visits, bits)) {
            counters.count(user);
            let increments = user.len() * user.len() / 2 + USER_OVERHEAD;
            reader.spend(increments / INCREMENTS_PER_ENTRY)?;
        }
    }
    Ok(())
}

/// Appends the visits of the entries in the window. The loops have no branch that depends on the entry, because the CPU would
/// mispredict it.
fn append<C: Counters>(
    counters: &C,
    segment: u16,
    entries: &[Entry],
    in_window: InWindow,
    visits: &mut Vec<C::Visit>,
) {
    let held = entries.iter().filter(|entry| in_window.holds(**entry));
    if held.count() == entries.len() {
        // The usual case: all entries of the page are in the window.
        let all = entries.iter();
        visits.extend(all.map(|entry| counters.visit(segment, *entry, in_window)));
        return;
    }
    let mut len = visits.len();
    visits.resize(len + entries.len(), C::Visit::default());
    for entry in entries {
        visits[len] = counters.visit(segment, *entry, in_window);
        len += usize::from(in_window.holds(*entry));
    }
    visits.truncate(len);
}
