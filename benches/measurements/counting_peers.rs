//! The same counts in Redis and Postgres.

use std::time::{Duration, Instant};

use super::Run;
use super::client::{self, Client, Request, compare};
use super::memory::send;
use super::support::postgres::Postgres;
use super::support::redis::Redis;
use super::support::resp::Pipeline;
use super::support::traffic::Seen;

/// The pairs that are counted.
pub(crate) struct Dataset {
    /// The sizes of the segments, which are also their numbers.
    pub(crate) sizes: &'static [u64],
    /// The latest slot. User n was last seen `n % spread` slots before it.
    pub(crate) latest: u64,
    pub(crate) spread: u64,
    /// The first slot of the latest seven days.
    pub(crate) week_from: u64,
}

impl Dataset {
    /// The first slot with a pair.
    pub(crate) fn from(&self) -> u64 {
        self.latest - self.spread + 1
    }

    /// The number of users of a segment that were seen in the latest seven days.
    pub(crate) fn in_a_week(&self, size: u64) -> u64 {
        let slots = self.latest - self.week_from + 1;
        size / self.spread * slots + (size % self.spread).min(slots)
    }
}

/// The median duration of `ZCOUNT` by segment, on one connection.
pub(crate) fn redis(
    run: &Run,
    dataset: &Dataset,
    pairs: impl Iterator<Item = Seen> + Send,
) -> Option<Vec<Duration>> {
    let server = run.runtime.block_on(Redis::start())?;
    let encode = |batch: &[Seen]| Request::Redis(Pipeline::zadds(batch.iter().copied(), 100));
    send(pairs, || Client::redis(server.port()), encode);
    let peers = dataset.sizes.iter().map(|size| {
        let (key, from) = (format!("segment-{size}"), dataset.from().to_string());
        let counted = server.cli(&["ZCOUNT", &key, &from, "+inf"]);
        assert_eq!(counted, size.to_string());
        client::Peer::new(server.port(), 1, 1, |_| {
            let mut count = Pipeline::default();
            count.push(["ZCOUNT", &key, &from, "+inf"]);
            Request::Redis(count)
        })
    });
    let time = super::seconds(0.5);
    let measured = compare(peers.collect(), run.pick(3, 1), time);
    Some(
        measured
            .iter()
            .map(|measured| measured.quantile(0.5))
            .collect(),
    )
}

/// `count(distinct user_id)` and `count(*)`, the fastest of several runs, which reads its data from memory.
pub(crate) async fn postgres(dataset: &Dataset) -> Option<Vec<[Duration; 2]>> {
    // The table is only read. Crash safety would cost time without affecting the measurement.
    let settings = [
        "fsync=off",
        "max_wal_size=8GB",
        "maintenance_work_mem=512MB",
    ];
    let server = Postgres::start_with(|_| settings.map(str::to_owned).to_vec()).await?;
    let client = server.client().await;
    let table =
        "create table pairs (segment_id integer, user_id text collate \"C\", seen_slot bigint)";
    client.batch_execute(table).await.unwrap();
    for size in dataset.sizes {
        let (latest, spread) = (dataset.latest, dataset.spread);
        let fill = format!(
            "insert into pairs select {size}, 'u' || n, {latest} - n % {spread} from generate_series(0, {size} - 1) n"
        );
        client.batch_execute(&fill).await.unwrap();
    }
    let index = "alter table pairs add primary key (segment_id, user_id); create index on pairs (segment_id, seen_slot)";
    client.batch_execute(index).await.unwrap();
    client.batch_execute("vacuum analyze pairs").await.unwrap();

    let from = i64::try_from(dataset.from()).unwrap();
    let mut all = Vec::new();
    for size in dataset.sizes {
        let mut took = [Duration::MAX; 2];
        for (what, best) in ["distinct user_id", "*"].iter().zip(&mut took) {
            let sql = format!(
                "select count({what}) from pairs where segment_id = $1 and seen_slot >= $2"
            );
            let statement = client.prepare(&sql).await.unwrap();
            let segment = i32::try_from(*size).unwrap();
            let began = Instant::now();
            // The largest segment is counted twice, small segments a few hundred times.
            for round in 0..300 {
                let started = Instant::now();
                let row = client
                    .query_one(&statement, &[&segment, &from])
                    .await
                    .unwrap();
                assert_eq!(row.get::<_, i64>(0), i64::try_from(*size).unwrap());
                *best = started.elapsed().min(*best);
                if round > 0 && began.elapsed() > Duration::from_secs(1) {
                    break;
                }
            }
        }
        all.push(took);
    }
    Some(all)
}
