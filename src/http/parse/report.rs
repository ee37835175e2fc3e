//! What became of the items of a body.

use serde::Serialize;
use utoipa::ToSchema;

use crate::http::openapi::schema;

/// Errors beyond this many are counted and not told one by one.
const MAX_ERRORS: usize = 100;

/// What became of the items of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many items there were, good and bad.
    pub items: usize,
    /// The first hundred errors, in order.
    pub errors: Vec<ItemError>,
    /// How many items were refused, by code.
    pub rejected: Vec<(&'static str, usize)>,
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
