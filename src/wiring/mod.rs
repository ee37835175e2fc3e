//! Opens the configured store and cache. Only this module knows both the settings and the adapters.

mod cache;
mod live;
mod live_process;
mod set_up;
mod store;
mod store_name;

pub use cache::open_cache;
pub use live::LiveBackends;
pub use set_up::{set_up, token_roles};
pub use store::{open_store, open_store_of};
pub use store_name::store_name;
