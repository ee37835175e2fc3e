//! A warp service that does no work: the upper bound for warp on this machine.

use warp::Filter;

/// The first argument that selects this role.
pub(crate) const ROLE: &str = "bare-warp";

/// Responds with two words to every GET, and to every POST after receiving its body.
pub(crate) fn serve(port: u16) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let get = warp::get().map(|| "hello, world");
    let post = warp::post()
        .and(warp::body::bytes())
        .map(|_| "hello, world");
    runtime.block_on(warp::serve(get.or(post)).run(([127, 0, 0, 1], port)));
}
