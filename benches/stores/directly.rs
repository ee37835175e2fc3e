//! Redis and Postgres used directly, without this library.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use domain::Timestamp;

use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::resp::{EVERY_SECOND, Pipeline, send_all, used_memory};
use crate::support::traffic::{Seen, frame};
use crate::{CALLERS, COUNTS, LARGEST, Row, table_size, week};

/// `ZADD GT` and `ZCOUNT` without this library.
pub(crate) async fn redis(parts: &[&[Seen]]) -> Option<Row> {
    let server = Redis::start_with(&EVERY_SECOND).await?;
    let pipelines: Vec<_> = parts
        .iter()
        .map(|part| Pipeline::zadds(part.iter().copied(), 100))
        .collect();
    let before = used_memory(&server);
    let ingest = send_all(server.port(), &pipelines, CALLERS);
    let memory = used_memory(&server) - before;
    let client = ::redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut users = 0;
    let mut times = [Duration::ZERO; 2];
    for (window, time) in [frame().full_window(), week()].iter().zip(&mut times) {
        let slots = window.slots_as_of(frame().resolution().slot_of(Timestamp::now()));
        let started = Instant::now();
        for _ in 0..COUNTS {
            let counted: u64 = ::redis::cmd("ZCOUNT")
                .arg(LARGEST)
                .arg(slots.start().number())
                .arg(slots.end().number())
                .query_async(&mut connection)
                .await
                .unwrap();
            users = users.max(counted);
        }
        *time = started.elapsed() / COUNTS;
    }
    Some(Row {
        name: "  ZADD GT, ZCOUNT directly",
        ingest,
        full: times[0],
        week: times[1],
        users,
        bytes: vec![(memory, "in memory")],
    })
}

/// The rows of one statement as columns: in the order of the key, without duplicate keys, which Postgres refuses.
fn columns(part: &[Seen]) -> (Vec<String>, Vec<String>, Vec<i64>) {
    let mut rows = BTreeMap::new();
    for pair in part {
        let key = (
            format!("segment-{}", pair.segment),
            format!("u{}", pair.user),
        );
        let slot = i64::try_from(pair.slot).unwrap();
        let latest = rows.entry(key).or_insert(slot);
        *latest = slot.max(*latest);
    }
    let (keys, slots): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let (segments, users) = keys.into_iter().unzip();
    (segments, users, slots)
}

/// An upsert and a count as handwritten SQL, without this library.
pub(crate) async fn postgres(parts: &[&[Seen]]) -> Option<Row> {
    let server = Postgres::start().await?;
    let client = server.client().await;
    client
        .batch_execute(
            "create table pairs (segment text, user_id text, seen bigint, primary key (segment, user_id));
             create index on pairs (segment, seen)",
        )
        .await
        .unwrap();
    let statements: Vec<_> = parts.iter().map(|part| columns(part)).collect();
    let mut clients = Vec::new();
    for _ in 0..CALLERS {
        clients.push(server.client().await);
    }
    let started = Instant::now();
    let work = clients.iter().enumerate().map(|(first, client)| {
        let mine = statements.iter().skip(first).step_by(CALLERS);
        async move {
            let upsert =
                "insert into pairs select * from unnest($1::text[], $2::text[], $3::bigint[])
                          on conflict (segment, user_id) do update set seen = excluded.seen
                          where pairs.seen < excluded.seen";
            for (segments, users, slots) in mine {
                client
                    .execute(upsert, &[segments, users, slots])
                    .await
                    .unwrap();
            }
        }
    });
    futures::future::join_all(work).await;
    let ingest = started.elapsed();
    let mut users = 0;
    let mut times = [Duration::ZERO; 2];
    for (window, time) in [frame().full_window(), week()].iter().zip(&mut times) {
        let slots = window.slots_as_of(frame().resolution().slot_of(Timestamp::now()));
        let [from, to] =
            [slots.start(), slots.end()].map(|slot| i64::try_from(slot.number()).unwrap());
        let started = Instant::now();
        for _ in 0..COUNTS {
            let select = "select count(*) from pairs where segment = $1 and seen between $2 and $3";
            let row = client
                .query_one(select, &[&LARGEST, &from, &to])
                .await
                .unwrap();
            users = users.max(u64::try_from(row.get::<_, i64>(0)).unwrap());
        }
        *time = started.elapsed() / COUNTS;
    }
    let bytes = vec![(table_size(&server, "pairs").await, "on disk")];
    Some(Row {
        name: "  plain SQL directly",
        ingest,
        full: times[0],
        week: times[1],
        users,
        bytes,
    })
}
