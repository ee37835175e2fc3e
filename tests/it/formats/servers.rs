//! Data in servers: keys of Redis, a schema of Postgres, points of InfluxDB.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use domain::Count;
use domain::cache::CountCache;
use domain::store::PairStore;
use redis::AsyncCommands;
use serde_json::{Value, json};
use stores::influx::{InfluxOptions, InfluxStore};
use stores::postgres::{PostgresStore, set_up};
use stores::redis::cache::{RedisCache, RedisCacheOptions};
use stores::redis::store::{RedisStore, RedisStoreOptions};

use super::content::{self, SEGMENTS, USERS, day, now, segment};
use super::{recorded, records, text};
use crate::redis_store;
use crate::support::influxd::Influxd;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::two_weeks;
use crate::support::wait::until;

/// The prefix of every key.
const PREFIX: &str = "headcount";
const SCHEMA: &str = "headcount";

/// Bytes as JSON: a string if they are UTF-8, else an array.
fn written(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!(bytes),
    }
}

fn read(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => serde_json::from_value(other.clone()).unwrap(),
    }
}

/// Two instances have one key, whether or not the recorded data has one.
async fn check_key(one: &dyn PairStore, other: &dyn PairStore) {
    let key = one.fingerprint_key().await.unwrap();
    assert_eq!(other.fingerprint_key().await.unwrap(), key);
}

/// Dumps every key of a server as the command that creates it, one per line.
async fn commands_of(url: &str) -> String {
    let client = redis::Client::open(url).unwrap();
    let mut server = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys: Vec<Vec<u8>> = server.keys("*").await.unwrap();
    keys.sort();
    let mut lines = String::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE")
            .arg(&key)
            .query_async(&mut server)
            .await
            .unwrap();
        let (command, query) = match kind.as_str() {
            "string" => ("SET", redis::cmd("GET").arg(&key).to_owned()),
            "hash" => ("HSET", redis::cmd("HGETALL").arg(&key).to_owned()),
            "set" => ("SADD", redis::cmd("SMEMBERS").arg(&key).to_owned()),
            "zset" => (
                "ZADD",
                redis::cmd("ZRANGE")
                    .arg(&key)
                    .arg(0)
                    .arg(-1)
                    .arg("WITHSCORES")
                    .to_owned(),
            ),
            other => panic!("no command for the type {other}"),
        };
        let found: Vec<Vec<u8>> = match kind.as_str() {
            "string" => vec![query.query_async(&mut server).await.unwrap()],
            _ => query.query_async(&mut server).await.unwrap(),
        };
        let mut pairs: Vec<Vec<Vec<u8>>> = match kind.as_str() {
            "hash" => found.chunks(2).map(<[_]>::to_vec).collect(),
            // ZADD takes the score first.
            "zset" => found
                .chunks(2)
                .map(|it| vec![it[1].clone(), it[0].clone()])
                .collect(),
            _ => found.into_iter().map(|it| vec![it]).collect(),
        };
        pairs.sort();
        let arguments = pairs.into_iter().flatten();
        let line: Vec<Value> = [command.as_bytes().to_vec(), key]
            .into_iter()
            .chain(arguments)
            .map(|bytes| written(&bytes))
            .collect();
        lines.push_str(&serde_json::to_string(&line).unwrap());
        lines.push('\n');
    }
    lines
}

async fn restore(url: &str, lines: &str) {
    let client = redis::Client::open(url).unwrap();
    let mut server = client.get_multiplexed_async_connection().await.unwrap();
    for line in lines.lines() {
        let line: Vec<Value> = serde_json::from_str(line).unwrap();
        let mut command = redis::Cmd::new();
        for argument in &line {
            command.arg(read(argument));
        }
        command.exec_async(&mut server).await.unwrap();
    }
}

fn redis_store(url: &str) -> RedisStore {
    let options = RedisStoreOptions {
        user_key: Some("a digest".to_owned()),
        ..redis_store::options(url, PREFIX, two_weeks())
    };
    RedisStore::open(options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_redis_store_keys_are_readable() {
    let Some(server) = Redis::start().await else {
        return;
    };
    let mut dumped = String::new();
    if records() {
        let store = redis_store(&server.url());
        content::record(&store, async || ()).await;
        dumped = commands_of(&server.url()).await;
        server.cli(&["FLUSHALL"]);
    }
    restore(&server.url(), &text("redis-store.jsonl", &dumped)).await;
    let store = redis_store(&server.url());
    content::check(&store).await;
    check_key(&store, &redis_store(&server.url())).await;
}

fn redis_cache(url: &str) -> RedisCache {
    let server = redis_store::options(url, PREFIX, two_weeks()).server;
    let window = Duration::from_secs(two_weeks().full_window().seconds());
    let prefix = stores::redis::Prefix::new(PREFIX).unwrap();
    let timeout = Duration::from_secs(20);
    let options = RedisCacheOptions {
        command_timeout: timeout,
        connect_timeout: timeout,
        ..RedisCacheOptions::new(server, prefix, Duration::from_mins(2), window)
    };
    RedisCache::open(options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_redis_cache_keys_are_readable() {
    let Some(server) = Redis::start().await else {
        return;
    };
    let name = segment(SEGMENTS[1]);
    let count = Count {
        users: 7,
        as_of: now() - Duration::from_hours(24),
    };
    let mut dumped = String::new();
    if records() {
        let cache = redis_cache(&server.url());
        let kept = cache.put(&name, day(), count).await.unwrap();
        assert_eq!(kept, count);
        let hour = Duration::from_hours(1);
        cache
            .complete_segments(std::slice::from_ref(&name), hour)
            .await
            .unwrap();
        dumped = commands_of(&server.url()).await;
        server.cli(&["FLUSHALL"]);
    }
    restore(&server.url(), &text("redis-cache.jsonl", &dumped)).await;
    let cache = redis_cache(&server.url());
    let cached = cache.get(&name, day()).await.unwrap();
    assert_eq!(cached, Some(count));
    // The list of segments expires by the server's clock, so it is not checked.
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_postgres_schema_is_readable() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let mut options = server.options(SCHEMA, two_weeks());
    options.user_key = Some("a digest".to_owned());
    let mut dumped = String::new();
    if records() {
        set_up(&options).await.unwrap();
        let store = PostgresStore::open(options.clone()).unwrap();
        content::record(&store, async || ()).await;
        let dump = server
            .program("pg_dump")
            .args(["--no-owner", "--no-privileges", "--schema", SCHEMA])
            .output()
            .unwrap();
        assert!(dump.status.success(), "{dump:?}");
        // Drop lines that older clients do not know.
        let dump = String::from_utf8(dump.stdout).unwrap();
        let lines = dump.lines().filter(|line| {
            let is_noise = [
                "--",
                "SET ",
                "SELECT pg_catalog.set_config",
                "\\restrict",
                "\\unrestrict",
            ];
            !line.is_empty() && !is_noise.iter().any(|start| line.starts_with(start))
        });
        dumped = lines.map(|line| format!("{line}\n")).collect();
        let client = server.client().await;
        client
            .batch_execute(&format!("drop schema {SCHEMA} cascade"))
            .await
            .unwrap();
    }
    let dump = text("postgres.sql", &dumped);
    let mut psql = server
        .program("psql")
        .args(["--quiet", "--set", "ON_ERROR_STOP=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    psql.stdin
        .take()
        .unwrap()
        .write_all(dump.as_bytes())
        .unwrap();
    assert!(psql.wait().unwrap().success(), "the dump can't be read");
    set_up(&options).await.unwrap();
    let store = PostgresStore::open(options.clone()).unwrap();
    content::check(&store).await;
    check_key(&store, &PostgresStore::open(options).unwrap()).await;
}

/// The lines of a bucket from the export of the server.
async fn lines_of(server: &Influxd, bucket: &str) -> String {
    let path = format!("api/v2/buckets?name={bucket}");
    let found: Value = server.get(&path).await;
    let id = found["buckets"][0]["id"].as_str().unwrap();
    let export = Command::new(server.program())
        .args([
            "inspect",
            "export-lp",
            "--bucket-id",
            id,
            "--output-path",
            "-",
        ])
        .arg("--engine-path")
        .arg(server.directory().join("engine"))
        .output()
        .unwrap();
    assert!(export.status.success(), "{export:?}");
    let text = String::from_utf8(export.stdout).unwrap();
    // The export contains deleted points as well.
    let erased = format!("user=\"{}\"", USERS[0]);
    let is_there = |line: &&str| !line.starts_with('#') && !line.contains(&erased);
    let mut lines: Vec<_> = text.lines().filter(is_there).collect();
    lines.sort_unstable();
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn influx_options(server: &Influxd) -> InfluxOptions {
    let mut options = server.options("pairs", two_weeks());
    options.trend_bucket = "trends".to_owned();
    options.user_key = Some("a digest".to_owned());
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_influxdb_points_are_readable() {
    let names = ["pairs", "trends"];
    if records() {
        // The export lacks points that are only in the server's write-ahead log.
        let cold = "--storage-cache-snapshot-write-cold-duration=1s";
        let server = Influxd::start_with(&[cold]).await.unwrap();
        for bucket in names {
            server.create_bucket(bucket).await;
        }
        let store = InfluxStore::open(influx_options(&server)).unwrap();
        content::record(&store, async || ()).await;
        for bucket in names {
            until("the export has points", async || {
                let lines = lines_of(&server, bucket).await;
                !text(&format!("influx-{bucket}.lp"), &lines).is_empty()
            })
            .await;
        }
    }
    let Some(server) = Influxd::start().await else {
        return;
    };
    for bucket in names {
        server.create_bucket(bucket).await;
        let lines = std::fs::read_to_string(recorded(&format!("influx-{bucket}.lp"))).unwrap();
        assert_eq!(server.write_raw(bucket, lines).await, 204);
    }
    content::check(&InfluxStore::open(influx_options(&server)).unwrap()).await;
}
