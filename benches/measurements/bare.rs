//! A service that does nothing: the upper bound of warp on this machine.

use warp::Filter;

/// The first argument that selects this role.
pub(crate) const ROLE: &str = "bare-warp";

/// Responds to every GET, and to every POST after its body was received, with two words.
pub(crate) fn serve(port: u16) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let greet = warp::get().map(|| "hello, world");
    let take = warp::post()
        .and(warp::body::bytes())
        .map(|_| "hello, world");
    runtime.block_on(warp::serve(greet.or(take)).run(([127, 0, 0, 1], port)));
}
