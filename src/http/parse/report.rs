//! What became of the items of a body.

use serde::Serialize;
use utoipa::ToSchema;

use crate::http::openapi::schema;

/// Errors beyond this many are counted and not told one by one.
const MAX_ERRORS: usize = 100;
/// Items without a time that are searched for one under another name: those of a body are alike.
const MAX_LOOKS: usize = 8;

/// What became of the items of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many items there were, good and bad.
    pub items: usize,
    /// The first hundred errors, in order.
    pub errors: Vec<ItemError>,
    /// How many items were refused, by code.
    pub rejected: Vec<(&'static str, usize)>,
    /// What was accepted and probably means something else than its sender thinks.
    pub warnings: Vec<String>,
    looks: usize,
}

/// Why one item was refused.
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
    /// How many items were refused.
    pub fn rejected(&self) -> usize {
        self.rejected.iter().map(|(_, items)| items).sum()
    }

    /// Warns if the present item, which has no time, has one under another name: it counts as seen now.
    pub(super) fn look_for_time(&mut self, find: impl FnOnce() -> Option<String>) {
        if self.looks >= MAX_LOOKS || !self.warnings.is_empty() {
            return;
        }
        self.looks += 1;
        if let Some(name) = find() {
            self.warnings.push(format!(
                "item {} has `{name}` and no `at`, so it counts as seen now, as all such items do: call the field `at`",
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
        self.items += 1;
        match self.rejected.iter_mut().find(|(known, _)| *known == code) {
            Some((_, items)) => *items += 1,
            None => self.rejected.push((code, 1)),
        }
    }
}
