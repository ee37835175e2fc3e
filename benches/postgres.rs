//! The Postgres store against plain SQL on the same server: `cargo bench --bench postgres`.
//!
//! Needs Debian's postgresql, or the program named by HEADCOUNT_TEST_POSTGRES. HEADCOUNT_BENCH_PAIRS (1,000,000) is
//! the number of pairs, of as many users in 200 segments, 5,000 a statement. The server has its default settings,
//! including fsync.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench fails by panicking and reports by printing"
)]

mod support;

use std::fmt::Write;
use std::time::{Duration, Instant};

use domain::store::PairStore;
use domain::{Batch, Segment, Timestamp};
use stores::postgres::{PostgresOptions, PostgresStore, set_up};
use support::postgres::Postgres;
use support::setting;
use support::stores::record_all;
use support::traffic::{BATCH, DAY, SEGMENTS, Seen, Traffic, batch, frame};

/// Batches of these pairs, seen some slots later.
fn batches(seen: &[Seen], size: usize, later: u64) -> Vec<Batch> {
    let moved = |pair: &Seen| Seen {
        slot: pair.slot + later,
        ..*pair
    };
    seen.chunks(size)
        .map(|some| batch(some.iter().map(moved)))
        .collect()
}

fn report(what: &str, number: usize, took: Duration) {
    let rate = number as f64 / took.as_secs_f64();
    println!("{what:62} {rate:10.0}/s");
}

fn tables(schema: &str) -> String {
    format!(
        "create schema {schema}; set search_path = {schema}; \
         create table pairs (seen_slot bigint not null, segment_id integer not null, \
             user_id text collate \"C\" not null, primary key (segment_id, user_id)); \
         create index on pairs (segment_id, seen_slot);"
    )
}

const UPSERT: &str = "on conflict (segment_id, user_id) do update \
    set seen_slot = excluded.seen_slot where pairs.seen_slot < excluded.seen_slot;\n";

/// The rows of a statement as this library sends them: without duplicates, in the order of the key.
fn prepared(some: &[Seen]) -> Vec<(u64, String, u64)> {
    let mut rows: Vec<_> = some
        .iter()
        .map(|pair| (pair.segment, format!("u{}", pair.user), pair.slot))
        .collect();
    rows.sort_by(|a, b| (a.0, &a.1, b.2).cmp(&(b.0, &b.1, a.2)));
    rows.dedup_by(|later, first| (later.0, &later.1) == (first.0, &first.1));
    rows
}

fn unnest(schema: &str, rows: &[Seen]) -> String {
    let mut sql = format!("set search_path = {schema};\n");
    for some in rows.chunks(BATCH) {
        let rows = prepared(some);
        let column = |text: fn(&(u64, String, u64)) -> String| {
            rows.iter().map(text).collect::<Vec<_>>().join(",")
        };
        write!(
            sql,
            "insert into pairs (segment_id, user_id, seen_slot) select * from \
             unnest('{{{}}}'::int4[], '{{{}}}'::text[], '{{{}}}'::int8[]) {UPSERT}",
            column(|row| row.0.to_string()),
            column(|row| row.1.clone()),
            column(|row| row.2.to_string()),
        )
        .unwrap();
    }
    sql
}

fn lines(rows: &[(u64, String, u64)]) -> String {
    let mut text = String::new();
    for (segment, user, slot) in rows {
        writeln!(text, "{segment}\t{user}\t{slot}").unwrap();
    }
    text + "\\.\n"
}

fn copy_then_upsert(schema: &str, rows: &[Seen]) -> String {
    let mut sql = format!(
        "set search_path = {schema};\ncreate temp table fresh \
         (segment_id integer, user_id text collate \"C\", seen_slot bigint);\n"
    );
    for some in rows.chunks(BATCH) {
        let lines = lines(&prepared(some));
        write!(
            sql,
            "begin;\ncopy fresh from stdin;\n{lines}insert into pairs (segment_id, user_id, seen_slot) \
             select * from fresh {UPSERT}truncate fresh;\ncommit;\n"
        )
        .unwrap();
    }
    sql
}

fn copy_only(schema: &str, rows: &[Seen]) -> String {
    let all = prepared(rows);
    let mut sql = format!("set search_path = {schema};\n");
    for some in all.chunks(BATCH) {
        let lines = lines(some);
        write!(
            sql,
            "copy pairs (segment_id, user_id, seen_slot) from stdin;\n{lines}"
        )
        .unwrap();
    }
    sql
}

/// Runs a script for each part of the rows concurrently. Returns how long that took.
async fn psql(
    server: &Postgres,
    rows: &[Seen],
    parts: usize,
    script: impl Fn(&[Seen]) -> String,
) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let mut commands = Vec::new();
    for (number, some) in rows.chunks(rows.len().div_ceil(parts)).enumerate() {
        let file = folder.path().join(format!("{number}.sql"));
        std::fs::write(&file, script(some)).unwrap();
        let mut command = server.program("psql");
        command
            .args(["-q", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(&file);
        commands.push(command);
    }
    let started = Instant::now();
    let children: Vec<_> = commands.iter_mut().map(|c| c.spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    started.elapsed()
}

async fn writing(server: &Postgres, rows: &[Seen]) {
    let client = server.client().await;
    for connections in [1, 4] {
        let schema = format!("ours{connections}");
        let options = PostgresOptions {
            connections: 2 * connections,
            write_timeout: Duration::from_secs(60),
            ..server.options(&schema, frame())
        };
        set_up(&options).await.unwrap();
        let store = PostgresStore::open(options).unwrap();
        for (what, later) in [("new", 0), ("seen later", DAY), ("the same again", DAY)] {
            let batches = batches(rows, BATCH, later);
            let took = record_all(&store, &batches, connections).await;
            report(
                &format!("record, {connections} connections, {what}"),
                rows.len(),
                took,
            );
        }
        let singles = if connections == 1 { 2_000 } else { 10_000 };
        let singles = batches(&rows[..singles.min(rows.len())], 1, 3_000);
        let callers = if connections == 1 { 1 } else { 64 };
        let took = record_all(&store, &singles, callers).await;
        report(
            &format!("record, {connections} connections, 1 pair a call, {callers} callers"),
            singles.len(),
            took,
        );
        store.close().await.unwrap();

        let plain = format!("unnest{connections}");
        client.batch_execute(&tables(&plain)).await.unwrap();
        for what in ["new", "the same again"] {
            let took = psql(server, rows, connections, |some| unnest(&plain, some)).await;
            report(
                &format!("psql, unnest, {connections} connections, {what}"),
                rows.len(),
                took,
            );
        }
        let plain = format!("temp{connections}");
        client.batch_execute(&tables(&plain)).await.unwrap();
        let took = psql(server, rows, connections, |some| {
            copy_then_upsert(&plain, some)
        })
        .await;
        report(
            &format!("psql, COPY to a temporary table, upsert, {connections} connections"),
            rows.len(),
            took,
        );
    }
    client.batch_execute(&tables("copied")).await.unwrap();
    let took = psql(server, rows, 1, |some| copy_only("copied", some)).await;
    report(
        "psql, bare COPY of unique sorted rows, 1 connection",
        rows.len(),
        took,
    );
}

async fn disk(server: &Postgres, when: &str) {
    let client = server.client().await;
    let asked = "select count(*), pg_table_size('ours1.pairs'), pg_relation_size('ours1.pairs_pkey'), \
        pg_relation_size('ours1.pairs_by_slot') from ours1.pairs";
    let row = client.query_one(asked, &[]).await.unwrap();
    let [pairs, table, key, slots] = [0, 1, 2, 3].map(|n| row.get::<_, i64>(n) as f64);
    println!(
        "{when}: {pairs} pairs, bytes a pair: table {:.0}, key {:.0}, index by slot {:.0}, all {:.0}",
        table / pairs,
        key / pairs,
        slots / pairs,
        (table + key + slots) / pairs
    );
}

async fn counting(server: &Postgres, pairs: usize) {
    let client = server.client().await;
    let store = PostgresStore::open(server.options("ours1", frame())).unwrap();
    let now = Timestamp::now();
    let slot = frame().resolution().slot_of(now).number();
    // Adds one large segment.
    let fill = format!(
        "insert into ours1.segments (name) values ('big'); insert into ours1.pairs (segment_id, user_id, seen_slot) \
         select (select id from ours1.segments where name = 'big'), 'user-' || n, {slot} - n % 20000 \
         from generate_series(1, {pairs}) n"
    );
    client.batch_execute(&fill).await.unwrap();
    for when in ["before vacuum", "after vacuum"] {
        if when == "after vacuum" {
            client
                .batch_execute("vacuum analyze ours1.pairs")
                .await
                .unwrap();
        }
        for name in ["big", "segment-0", "segment-10", "segment-150"] {
            let segment = Segment::new(name).unwrap();
            let mut best = Duration::MAX;
            let mut users = 0;
            for _ in 0..5 {
                let started = Instant::now();
                let later = now + jiff::SignedDuration::from_hours(48);
                users = store
                    .count(&segment, frame().full_window(), later)
                    .await
                    .unwrap()
                    .users;
                best = best.min(started.elapsed());
            }
            println!("count of {users:8} users, {when}: {best:9.2?}");
        }
    }
}

#[tokio::main]
async fn main() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let pairs = usize::try_from(setting("HEADCOUNT_BENCH_PAIRS", 1_000_000)).unwrap();
    let traffic = Traffic::new(pairs as u64, DAY).earlier(DAY);
    let rows: Vec<Seen> = traffic.take(pairs).collect();
    println!("{pairs} pairs, {SEGMENTS} segments, {BATCH} a statement");
    writing(&server, &rows).await;
    disk(&server, "after writing each three times").await;
    let client = server.client().await;
    client
        .batch_execute("vacuum full ours1.pairs")
        .await
        .unwrap();
    disk(&server, "packed").await;
    counting(&server, pairs).await;
}
