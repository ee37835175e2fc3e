//! What several benches share.

#[allow(dead_code, reason = "each bench uses its part")]
pub(crate) mod open_loop;
