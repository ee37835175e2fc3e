//! The result of parsing a body.

use serde::Serialize;
use utoipa::ToSchema;

use super::messages::Merge;
use crate::openapi::schema;

/// Errors beyond this number are counted, but not listed.
const MAX_ERRORS: usize = 100;
/// Items without `at` that are searched for a time under another name. A few suffice, because the items of a body are alike.
const MAX_SEARCHES: usize = 8;

/// The result of parsing a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of items, accepted and refused.
    pub items: usize,
    /// The first hundred errors, in order.
    pub errors: Vec<ItemError>,
    /// The number of items that are about something else than pairs.
    pub ignored: usize,
    /// The users who have another id from now on.
    pub merges: Vec<Merge>,
    /// The number of refused items by code.
    pub rejected: Vec<(&'static str, usize)>,
    /// Warnings about accepted items that probably mean something else than their sender intends.
    pub warnings: Vec<String>,
    searches: usize,
    /// The positions of all refused items, ascending.
    pub refused: Vec<usize>,
}

/// Why one item was rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ItemError {
    /// The item's position in the body, from 0.
    pub index: usize,
    /// What kind of mistake it is, for programs.
    #[schema(schema_with = schema::item_code)]
    pub code: &'static str,
    /// What is wrong, for people. It never quotes a user id.
    pub message: String,
}

impl Report {
    /// The number of refused items.
    pub fn rejected(&self) -> usize {
        self.rejected.iter().map(|(_, items)| items).sum()
    }

    /// Warns if the current item, which has no `at`, has a time under another name: it counts as seen now.
    pub(super) fn warn_of_misnamed_time(&mut self, find: impl FnOnce() -> Option<String>) {
        if self.searches >= MAX_SEARCHES || !self.warnings.is_empty() {
            return;
        }
        self.searches += 1;
        if let Some(name) = find() {
            self.warnings.push(format!(
                "item {} has `{name}` and no `at`, so it counts as seen now, as all such items do: rename the field to `at`",
                self.items
            ));
        }
    }

    pub(super) fn accept(&mut self) {
        self.items += 1;
    }

    pub(super) fn reject(&mut self, code: &'static str, message: impl FnOnce() -> String) {
        if self.errors.len() < MAX_ERRORS {
            let (index, message) = (self.items, message());
            self.errors.push(ItemError {
                index,
                code,
                message,
            });
        }
        self.refused.push(self.items);
        self.items += 1;
        self.count(code, 1);
    }

    /// Refuses items that were accepted before. `positions` are indexes into the accepted items, ascending.
    pub(crate) fn refuse_accepted(
        &mut self,
        positions: &[usize],
        code: &'static str,
        message: &str,
    ) {
        if positions.is_empty() {
            return;
        }
        let mut refused = self.refused.iter().peekable();
        let mut found = Vec::with_capacity(positions.len());
        let mut skipped = 0;
        for position in positions {
            while refused
                .next_if(|item| **item <= position + skipped)
                .is_some()
            {
                skipped += 1;
            }
            found.push(position + skipped);
        }
        let errors = found.iter().take(MAX_ERRORS).map(|index| ItemError {
            index: *index,
            code,
            message: message.to_owned(),
        });
        self.errors.extend(errors);
        self.errors.sort_by_key(|error| error.index);
        self.errors.truncate(MAX_ERRORS);
        self.count(code, found.len());
        self.refused.extend(found);
        self.refused.sort_unstable();
    }

    fn count(&mut self, code: &'static str, more: usize) {
        match self.rejected.iter_mut().find(|(known, _)| *known == code) {
            Some((_, items)) => *items += more,
            None => self.rejected.push((code, more)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_refuses_is_named_by_its_place_in_the_body() {
        let mut report = Report::default();
        // Items 0 to 9, of which 1, 2 and 5 are bad: accepted are 0, 3, 4, 6, 7, 8, 9.
        for item in 0..10 {
            match [1, 2, 5].contains(&item) {
                true => report.reject("malformed", || "bad".to_owned()),
                false => report.accept(),
            }
        }
        report.refuse_accepted(&[0, 1, 3, 6], "store_refused", "no");
        let indices: Vec<_> = report.errors.iter().map(|error| error.index).collect();
        assert_eq!(indices, [0, 1, 2, 3, 5, 6, 9]);
        assert_eq!(report.rejected, [("malformed", 3), ("store_refused", 4)]);
        assert_eq!(report.refused, [0, 1, 2, 3, 5, 6, 9]);
        assert_eq!((report.items, report.rejected()), (10, 7));
    }
}
