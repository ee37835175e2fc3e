//! What the settings name, opened: the one place that knows settings and adapters.

mod cache;
mod place;
mod set_up;
mod store;

pub use cache::open_cache;
pub use place::place;
pub use set_up::{set_up, token_roles};
pub use store::{open_store, open_store_of};
