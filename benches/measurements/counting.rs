//! The duration of a count by the size of the segment, in headcount and its peers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use domain::store::PairStore;
use domain::{Segment, Slot, Timestamp, Window};

use super::client::{self, Request, compare};
use super::counting_peers::{self, Dataset};
use super::filled::{DATA, assert_counted, fill, open};
use super::report::Report;
use super::support::peer::{Peer, get};
use super::support::traffic::{Seen, frame, present};
use super::table::{Table, grouped, nothing, ratio, time};
use super::{Run, progress, seconds};

/// The number of slots over which users are spread. All of them are in the window for several hours.
const SPREAD: u64 = 19_800;

/// The sizes of the segments. The number of a segment is its size.
fn sizes(run: &Run) -> &'static [u64] {
    run.pick(
        &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
        &[1_000, 10_000, 100_000],
    )
}

/// The users of all segments: user n was last seen `n % SPREAD` slots before the latest slot.
fn pairs(sizes: &[u64], latest: u64) -> impl Iterator<Item = Seen> {
    sizes.iter().flat_map(move |size| {
        (0..*size).map(move |user| Seen {
            user,
            segment: *size,
            slot: latest - user % SPREAD,
        })
    })
}

pub(crate) fn measure(run: &Run) -> Report {
    let sizes = sizes(run);
    let latest = present();
    let dataset = Dataset {
        sizes,
        latest,
        spread: SPREAD,
        // Seven days up to the latest slot, to the minute.
        week_from: latest - 7 * 1_440 + 1,
    };
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join(DATA);
    progress("filling the embedded store");
    run.runtime.block_on(fill(&data, pairs(sizes, latest)));
    let in_process = in_process(run, &data, &dataset);
    let over_http = over_http(run, directory.path(), sizes);
    progress("Redis");
    let redis = counting_peers::redis(run, &dataset, pairs(sizes, latest));
    progress("Postgres");
    let postgres = run.runtime.block_on(counting_peers::postgres(&dataset));
    progress("DuckDB");
    let duckdb = super::duckdb::count(&dataset);

    let mut report = Report::default();
    report.paragraph(&format!("DuckDB {}.", super::duckdb::version()));
    report.paragraph(
        "Segments with this many users, seen over the last two weeks. *In process* is a function call, for the configured window and for seven \
         days. *HTTP* and `ZCOUNT` are median latencies on one connection. Postgres counts rows with the latest slot of each user: \
         `count(distinct user_id)`, and `count(*)`, which a primary key makes equivalent. DuckDB runs the same queries in memory. \
         Ratios are relative to *HTTP*.",
    );
    let missing = [
        (redis.is_none(), "redis-server"),
        (postgres.is_none(), "Postgres"),
        (
            duckdb.is_none(),
            "DuckDB (`pip install duckdb` for `python3`)",
        ),
    ];
    for (_, name) in missing.iter().filter(|(missing, _)| *missing) {
        report.paragraph(&format!("{name} is not installed: skipped."));
    }
    let mut table = Table::new(&[
        "Users",
        "in process, 14 d",
        "7 d",
        "HTTP",
        "`ZCOUNT`",
        "ratio",
        "Postgres, distinct",
        "ratio",
        "`count(*)`",
        "ratio",
        "DuckDB, distinct",
        "ratio",
        "`count(*)`",
        "ratio",
    ]);
    for (index, size) in sizes.iter().enumerate() {
        let ours = over_http[index];
        let compared = |took: Option<Duration>| match took {
            Some(took) => [time(took), ratio(took.as_secs_f64() / ours.as_secs_f64())],
            None => [nothing(), nothing()],
        };
        let [full, week] = in_process[index];
        let head = [grouped(*size), time(full), time(week), time(ours)];
        let peers = [
            redis.as_ref().map(|took| took[index]),
            postgres.as_ref().map(|took| took[index][0]),
            postgres.as_ref().map(|took| took[index][1]),
            duckdb.as_ref().map(|took| took[index][0]),
            duckdb.as_ref().map(|took| took[index][1]),
        ];
        table.row(head.into_iter().chain(peers.into_iter().flat_map(compared)));
    }
    report.table(&table);
    let slowest = in_process.iter().map(|[full, _]| *full).max().unwrap();
    report.target(
        slowest <= Duration::from_nanos(100),
        &format!(
            "Count of the configured window, in process, at any size: at most {}",
            time(slowest)
        ),
        "100 ns",
    );
    report
}

/// The duration of a call by segment: over the whole window, and over seven days.
fn in_process(run: &Run, directory: &std::path::Path, dataset: &Dataset) -> Vec<[Duration; 2]> {
    progress("counts in process");
    let store = open(directory);
    let as_of = frame().resolution().start_of(Slot::new(dataset.latest));
    let full = frame().full_window();
    let week = frame().window(Duration::from_hours(7 * 24)).unwrap();
    let measure_segment = |size: &u64| {
        let segment = Segment::new(&format!("segment-{size}")).unwrap();
        let counted = store.count_now(&segment, full, as_of).unwrap().users;
        assert_counted(counted, *size);
        let counted = store.count_now(&segment, week, as_of).unwrap().users;
        assert_counted(counted, dataset.in_a_week(*size));
        [full, week].map(|window| call(&store, &segment, window, as_of))
    };
    let took = dataset.sizes.iter().map(measure_segment).collect();
    run.runtime.block_on(store.close()).unwrap();
    took
}

/// The duration of a call in the fastest of several rounds, since other activity on the machine only adds time.
fn call(store: &dyn PairStore, segment: &Segment, window: Window, as_of: Timestamp) -> Duration {
    const CALLS: u32 = 20_000;
    let round = |_| {
        let started = Instant::now();
        for _ in 0..CALLS {
            black_box(store.count_now(black_box(segment), window, as_of));
        }
        started.elapsed() / CALLS
    };
    (0..9).map(round).min().unwrap()
}

/// The median latency on one connection.
fn over_http(run: &Run, directory: &std::path::Path, sizes: &[u64]) -> Vec<Duration> {
    progress("counts over HTTP");
    let service = Peer::headcount(directory, &[]);
    service.wait_until_ready();
    let peers = sizes.iter().map(|size| {
        let path = format!("/v1/segments/segment-{size}/count");
        assert_counted(service.get(&path)["users"].as_u64().unwrap(), *size);
        client::Peer::new(service.port(), 1, 1, |_| Request::Http(get(&path)))
    });
    let measured = compare(peers.collect(), run.pick(3, 1), seconds(0.5));
    measured
        .iter()
        .map(|measured| measured.quantile(0.5))
        .collect()
}
