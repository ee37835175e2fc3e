//! What one connection may cost, and how long it may stand still: the settings of hyper and of the socket.

use std::time::Duration;

use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use tokio::net::TcpStream;

/// What a connection of HTTP/1 gathers before a head is whole, and reads of a body at once. Larger heads are answered with
/// 431. hyper's own limit of 400 KiB would be 6.7 GB for 16,384 connections that never end their heads, and lets a client that
/// sends a chunk's length without end keep a thread for a second at a time. Others allow 8 to 32 KiB of heads.
const MAX_BUFFER: usize = 64 * 1024;
/// Streams of an HTTP/2 connection at once, so that one connection can't hold what the cap leaves to all.
const MAX_STREAMS: u32 = 128;
/// Streams that the client may reset before the service has looked at them: one more ends the connection (CVE-2023-44487,
/// "rapid reset"). h2's own choice; clients that time out reset a few.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that the service may have to reset, for what was wrong with them, before it ends the connection
/// (RUSTSEC-2024-0003). hyper's own choice.
const MAX_OWN_RESETS: usize = 1024;
/// Heads of HTTP/2 requests, after decompression: with what HPACK remembers, a head of 4 KB may mean 16 MB. hyper's own
/// choice. h2 ends a connection that goes on with CONTINUATION frames beyond what this needs (RUSTSEC-2024-0332).
const MAX_HEADERS: u32 = 16 * 1024;
/// What a connection of HTTP/2 may send before handlers have read it, in all its streams. hyper's own choice.
const RECEIVE_WINDOW: u32 = 1024 * 1024;
/// What the system holds of answers that it could not send yet, per connection: without a limit it is up to 4 MiB for
/// a client that does not read its events.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 * 1024;
/// A client may take nothing of an answer for this many times as long as it may take for a head.
const STALL_TIMES: u32 = 6;

/// How long a client may take nothing of an answer that waits for it: a minute by default.
pub(super) fn longest_stall(header_timeout: Duration) -> Duration {
    header_timeout * STALL_TIMES
}

/// How connections are served; `streams` runs the streams of HTTP/2.
pub(super) fn builder<E>(header_timeout: Duration, streams: E) -> Builder<E> {
    let mut builder = Builder::new(streams);
    builder
        .http1()
        // Its limit would hold for the time between requests too: see [`super::idle`].
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(header_timeout)
        // An answer to a ping is due no later than a head.
        .keep_alive_timeout(header_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_OWN_RESETS)
        .max_header_list_size(MAX_HEADERS)
        .initial_connection_window_size(RECEIVE_WINDOW)
        .initial_stream_window_size(RECEIVE_WINDOW);
    builder
}

/// Sets up the socket of a connection. One that can't be told something still works.
pub(super) fn prepare(stream: &TcpStream, header_timeout: Duration) {
    // Answers are small and written whole: waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
        // A peer that is gone, or that keeps its window shut, would else hold the connection and an answer for a
        // quarter of an hour or for ever (RFC 5482).
        let _ = socket.set_tcp_user_timeout(Some(longest_stall(header_timeout)));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = header_timeout;
}
