//! A service that does nothing: what warp and this machine give to begin with.

use warp::Filter;

/// The first argument of the process that is it.
pub(crate) const ROLE: &str = "bare-warp";

/// Answers every GET, and every POST once its body is here, with two words.
pub(crate) fn serve(port: u16) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let greet = warp::get().map(|| "hello, world");
    let take = warp::post()
        .and(warp::body::bytes())
        .map(|_| "hello, world");
    runtime.block_on(warp::serve(greet.or(take)).run(([127, 0, 0, 1], port)));
}
