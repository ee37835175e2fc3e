//! Misuse of HTTP/2: floods of frames that cost the sender little.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame, head, remembered,
};
use super::{assert_serves, growth_mib, within};
use crate::support::service::Service;

/// A flood stops after this many bytes, unless the service closes the connection before.
const FLOOD: usize = 4 << 20;
/// A flood also stops after this time when the service does not read.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for a flood that must end the connection, on a busy machine.
const LONG_PATIENCE: Duration = Duration::from_secs(60);
/// The maximum memory growth, whatever one connection sends. Most of it is due to debug builds and the allocator's
/// slack.
const MAX_GROWTH_MIB: u64 = 24;

/// The bytes that are sent repeatedly, by number, since streams are numbered.
type Endless = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

/// The number of the n-th stream of a client.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// The name of the flood, whether the service has to close the connection, the bytes sent first, and the bytes sent
/// repeatedly.
fn floods() -> Vec<(&'static str, bool, Vec<u8>, Endless)> {
    let get = || head("GET", "/v1/segments/a/count");
    let post = frame(HEADERS, END_HEADERS, 1, &head("POST", "/v1/pairs"));
    let begun = frame(HEADERS, END_STREAM, 1, &get());
    let bomb = {
        // 4,000 bytes are stored in the table once, then referenced by one byte each: 16 MB from 4 KB.
        let mut block = get();
        block.extend_from_slice(&remembered("x-bomb", &"y".repeat(3_900)));
        block.extend(std::iter::repeat_n(0xbe, 4_000));
        block
    };
    let large: Vec<Vec<u8>> = (0..32)
        .map(|n| remembered(&format!("x-{n}"), &"y".repeat(2_000)))
        .collect();
    let large = [get(), large.concat()].concat();
    let reset = |n| frame(RST_STREAM, 0, stream(n), &8u32.to_be_bytes());
    vec![
        (
            "streams that are reset immediately",
            true,
            vec![],
            Box::new(move |n| {
                [
                    frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &get()),
                    reset(n),
                ]
                .concat()
            }),
        ),
        (
            "streams that are never ended",
            false,
            vec![],
            Box::new(|n| frame(HEADERS, END_HEADERS, stream(n), &head("POST", "/v1/pairs"))),
        ),
        (
            "streams with an invalid header block",
            true,
            vec![],
            Box::new(|n| {
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    stream(n),
                    &head("GET", "no path"),
                )
            }),
        ),
        (
            "header blocks in endless continuations",
            true,
            begun.clone(),
            Box::new(|_| frame(CONTINUATION, 0, 1, b"\0\x01x\x01y")),
        ),
        (
            "header blocks in endless large continuations",
            true,
            begun.clone(),
            Box::new(|_| frame(CONTINUATION, 0, 1, &b"\0\x01x\x01y".repeat(3_000))),
        ),
        (
            "header blocks in endless empty continuations",
            true,
            begun,
            Box::new(|_| frame(CONTINUATION, 0, 1, b"")),
        ),
        (
            "short header blocks that expand",
            false,
            vec![],
            Box::new(move |n| frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &bomb)),
        ),
        (
            "header blocks of 64 KB",
            false,
            vec![],
            Box::new(move |n| {
                let mut pieces = large.chunks(16_000);
                let mut out = frame(HEADERS, END_STREAM, stream(n), pieces.next().unwrap());
                let rest: Vec<_> = pieces.collect();
                for (at, piece) in rest.iter().enumerate() {
                    let flags = if at + 1 == rest.len() { END_HEADERS } else { 0 };
                    out.extend(frame(CONTINUATION, flags, stream(n), piece));
                }
                out
            }),
        ),
        (
            "settings",
            false,
            vec![],
            Box::new(|_| frame(SETTINGS, 0, 0, &[])),
        ),
        (
            "pings",
            false,
            vec![],
            Box::new(|_| frame(PING, 0, 0, &[7; 8])),
        ),
        (
            "acknowledgements of pings that were not sent",
            false,
            vec![],
            Box::new(|_| frame(PING, ACK, 0, &[7; 8])),
        ),
        (
            "priorities",
            false,
            vec![],
            Box::new(|n| frame(PRIORITY, 0, stream(n % 1000), &[0, 0, 0, 0, 1])),
        ),
        (
            "room",
            true,
            vec![],
            Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &0x00ff_ffffu32.to_be_bytes())),
        ),
        (
            "window updates of a byte",
            false,
            vec![],
            Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ),
        (
            "frames of an unknown kind",
            false,
            vec![],
            Box::new(|_| frame(0x55, 0, 0, &[0; 100])),
        ),
        (
            "empty data frames",
            true,
            post.clone(),
            Box::new(|_| frame(DATA, 0, 1, b"")),
        ),
        (
            "data frames of a byte",
            true,
            post,
            Box::new(|_| frame(DATA, 0, 1, b" ")),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_end_the_connection_or_cost_little() {
    let folder = tempfile::tempdir().unwrap();
    let server = Service::start(folder.path(), &[("MAX_BODY", "1 MiB")]).await;
    for (what, has_to_end, begin, endless) in floods() {
        for reads in [true, false] {
            let before = server.process().resident_bytes();
            let (read, mut write) = frames::open(server.address(), 65_535).await;
            write.write_all(&begin).await.unwrap();
            let reading = reads.then(|| tokio::spawn(read_all(read)));
            let patience = if has_to_end { LONG_PATIENCE } else { PATIENCE };
            let ended = within(what, flood(&mut write, &endless, patience)).await;
            assert_serves(&server).await;
            let growth = growth_mib(&server, before);
            assert!(growth < MAX_GROWTH_MIB, "{what}: {growth} MiB");
            assert!(ended || !has_to_end, "{what}: the connection is still open");
            drop(reading);
        }
    }
}

/// Sends until the service closes the connection (true), stops reading, or enough was sent.
async fn flood(write: &mut OwnedWriteHalf, endless: &Endless, patience: Duration) -> bool {
    let mut sent = 0;
    let mut numbers = 0..;
    while sent < FLOOD {
        let some: Vec<u8> = numbers.by_ref().take(100).flat_map(endless).collect();
        match tokio::time::timeout(patience, write.write_all(&some)).await {
            Ok(Ok(())) => sent += some.len(),
            Ok(Err(_)) => return true,
            Err(_) => return false,
        }
    }
    false
}

async fn read_all(mut read: OwnedReadHalf) {
    while frames::next(&mut read).await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_answer_pings_is_disconnected() {
    let folder = tempfile::tempdir().unwrap();
    let server = Service::start(folder.path(), &[("HEADER_TIMEOUT", "1s")]).await;
    let (mut read, mut write) = frames::open(server.address(), 65_535).await;
    let get = head("GET", "/healthz");
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get);
    write.write_all(&get).await.unwrap();
    let mut pinged = false;
    let ended = async {
        while let Some((kind, ..)) = frames::next(&mut read).await {
            pinged |= kind == PING;
        }
    };
    within("the connection is closed", ended).await;
    assert!(pinged);
}
