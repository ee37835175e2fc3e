//! Raw Flux that returns every row of a bucket, as a program without this library would read it.

use domain::{Segment, Slot, Timestamp};
use futures::{StreamExt, stream};
use serde_json::json;

use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::traffic::frame;

/// Segments that are read at a time, as by a live process.
const CONCURRENT: usize = 3;

/// Reads all rows of the window. Returns their number.
pub(crate) async fn rows(server: &Influxd, bucket: &str, segments: &[Segment]) -> u64 {
    let client = reqwest::Client::new();
    let each = segments
        .iter()
        .map(|segment| of_segment(&client, server, bucket, segment));
    stream::iter(each)
        .buffer_unordered(CONCURRENT)
        .fold(0, async |sum, rows| sum + rows)
        .await
}

async fn of_segment(
    client: &reqwest::Client,
    server: &Influxd,
    bucket: &str,
    segment: &Segment,
) -> u64 {
    let resolution = frame().resolution();
    let now = resolution.slot_of(Timestamp::now());
    let slots = frame().full_window().slots_as_of(now);
    let start = resolution.start_of(*slots.start());
    let stop = resolution.start_of(Slot::new(slots.end().number() + 1));
    let flux = format!(
        "from(bucket: \"{bucket}\") |> range(start: {start}, stop: {stop}) |> filter(fn: (r) => \
         r._measurement == \"pair\" and r._field == \"user\" and r.segment == \"{segment}\") |> \
         keep(columns: [\"_time\", \"_value\"])"
    );
    let dialect = json!({"header": false, "annotations": []});
    let body = json!({"query": flux, "type": "flux", "dialect": dialect});
    let request = client
        .post(format!("{}/api/v2/query", server.url()))
        .query(&[("org", ORG)])
        .header("Authorization", format!("Token {TOKEN}"))
        .json(&body);
    let mut parts = request.send().await.unwrap().bytes_stream();
    let mut rows = 0;
    while let Some(part) = parts.next().await {
        let part = part.unwrap();
        rows += part.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    // The last line is empty.
    rows.saturating_sub(1)
}
