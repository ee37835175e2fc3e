//! The limits of one connection, in memory and time: the settings of hyper and of the socket.

use std::time::Duration;

use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use tokio::net::TcpStream;

/// The read buffer of an HTTP/1 connection: the largest request head, and the most that is read of a body at once. A larger
/// head is a 431. hyper's default of 400 KiB would be 6.7 GB for 16,384 connections that never complete their heads, and
/// lets a client that sends an endless chunk length occupy a thread for a second at a time. Other servers allow heads of
/// 8 to 32 KiB.
const MAX_BUFFER: usize = 64 * 1024;
/// Concurrent streams of an HTTP/2 connection, so that one connection can't use up the capacity for all.
const MAX_STREAMS: u32 = 128;
/// Streams that the client may reset before the service has accepted them: one more closes the connection
/// (CVE-2023-44487, "rapid reset"). h2's default; clients that time out reset a few.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that the service may reset because of protocol errors before it closes the connection (RUSTSEC-2024-0003).
/// hyper's default.
const MAX_OWN_RESETS: usize = 1024;
/// The size of an HTTP/2 request head after decompression: with HPACK's dynamic table, a head of 4 KB may expand to 16 MB.
/// hyper's default. h2 closes a connection that sends more CONTINUATION frames than this needs (RUSTSEC-2024-0332).
const MAX_HEADERS: u32 = 16 * 1024;
/// Bytes that an HTTP/2 connection may send, over all its streams, before handlers have read them. hyper's default.
const RECEIVE_WINDOW: u32 = 1024 * 1024;
/// Unsent response bytes in the socket's send buffer. Without this limit the kernel buffers up to 4 MiB for a client that
/// does not read its events.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 * 1024;
/// A response may go without progress for this many times `header_timeout`.
const STALL_TIMES: u32 = 6;

/// How long a response may go without progress: a minute by default.
pub(super) fn longest_stall(header_timeout: Duration) -> Duration {
    header_timeout * STALL_TIMES
}

/// The settings of hyper. `streams` is the executor of HTTP/2 streams.
pub(super) fn builder<E>(header_timeout: Duration, streams: E) -> Builder<E> {
    let mut builder = Builder::new(streams);
    builder
        .http1()
        // hyper's timeout also covers the time between requests: see [`super::request_timer`].
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(header_timeout)
        // A ping has the same timeout as a head.
        .keep_alive_timeout(header_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_OWN_RESETS)
        .max_header_list_size(MAX_HEADERS)
        .initial_connection_window_size(RECEIVE_WINDOW)
        .initial_stream_window_size(RECEIVE_WINDOW);
    builder
}

/// Sets the options of a connection's socket. The connection works even if an option can't be set.
pub(super) fn prepare(stream: &TcpStream, header_timeout: Duration) {
    // Responses are small and written in one piece: Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
        // Without this timeout (RFC 5482), a dead peer would hold the connection and a response for 15 minutes, and a peer
        // that keeps its receive window closed would hold them forever.
        let _ = socket.set_tcp_user_timeout(Some(longest_stall(header_timeout)));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = header_timeout;
}
