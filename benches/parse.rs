//! The rate of parsing request bodies, in items a second.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench fails by panicking"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use domain::Timestamp;
use http::parse::messages::{self, Dialect};
use http::parse::{self, Report};
use http::settings::PairNames;

const ITEMS: usize = 10_000;

fn lines(item: impl Fn(usize) -> String) -> String {
    let items: Vec<String> = (0..ITEMS).map(item).collect();
    items.join("\n")
}

fn ndjson(body: &str) -> Report {
    let mut bytes = 0;
    let report = parse::ndjson(body.as_bytes(), &mut |user, segment, at| {
        bytes += user.len() + segment.len() + usize::from(at.is_some());
        Ok(())
    });
    black_box(bytes);
    assert_eq!(report.rejected(), 0);
    report
}

/// A message as Segment's library for Node sends it.
fn message(i: usize) -> String {
    let (user, segment) = (i * 7919, i % 200);
    format!(
        r#"{{"timestamp":"2026-11-21T12:10:00.123Z","integrations":{{}},"event":"Viewed","type":"track","properties":{{"segment":"segment-{segment}"}},"context":{{"library":{{"name":"@segment/analytics-node","version":"3.1.0"}}}},"userId":"u{user}","messageId":"node-next-1795951705691-0613517c-c293-46bd-ad30-9ef2e7981ddb","_metadata":{{"nodeVersion":"v20.20.2","jsRuntime":"node"}}}}"#
    )
}

fn parsing(criterion: &mut Criterion) {
    let pair = |i: usize| {
        let (user, segment) = (i * 7919, i % 200);
        format!(r#"{{"user_id":"u{user}","segment":"segment-{segment}"}}"#)
    };
    let with = |i: usize, field: &str| {
        let pair = pair(i);
        format!("{},{field}}}", &pair[..pair.len() - 1])
    };
    let timed = |i: usize| {
        let (minute, second) = (i % 60, i % 59);
        with(
            i,
            &format!(r#""at":"2026-11-21T12:{minute:02}:{second:02}Z""#),
        )
    };
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(ITEMS as u64));
    for (name, body) in [
        ("ndjson", lines(pair)),
        ("ndjson with at", lines(timed)),
        (
            "ndjson with an unknown field",
            lines(|i| with(i, r#""channel":"web""#)),
        ),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| ndjson(black_box(&body))));
    }
    let array = format!("[{}]", lines(timed).replace('\n', ","));
    group.bench_function("json array with at", |bencher| {
        bencher.iter(|| parse::json(black_box(array.as_bytes()), &mut |_, _, _| Ok(())).unwrap());
    });
    let messages = format!(
        r#"{{"batch":[{}],"writeKey":"K"}}"#,
        lines(message).replace('\n', ",")
    );
    let rules = PairNames::default().messages;
    group.bench_function("Segment's messages", |bencher| {
        bencher.iter(|| {
            let body = black_box(messages.as_bytes());
            let now = Timestamp::UNIX_EPOCH;
            messages::messages(body, Dialect::Batch, &rules, now, &mut |_, _, _| Ok(())).unwrap()
        });
    });
    group.finish();
    // Requests of one pair, of a usual batch and of a bulk load.
    let mut group = criterion.benchmark_group("parse/request");
    for pairs in [1, 100, 5_000] {
        let body: String = (0..pairs).map(|i| timed(i) + "\n").collect();
        group.throughput(Throughput::Elements(pairs as u64));
        group.bench_function(pairs.to_string(), |bencher| {
            bencher.iter(|| ndjson(black_box(&body)));
        });
    }
    group.finish();
}

criterion_group!(benches, parsing);
criterion_main!(benches);
