//! The installation's key in Postgres and Redis: one for all instances, permanently. `influx_installation` has the same
//! for InfluxDB.

use std::collections::HashSet;

use domain::FingerprintKey;
use domain::store::{Change, PairStore, SetUp};
use futures::future::join_all;
use stores::postgres::{PostgresOptions, PostgresStore};
use stores::redis::store::{RedisStore, RedisStoreOptions};
use stores::{postgres, redis};

use crate::postgres::{batch, present, users};
use crate::redis_store;
use crate::support::postgres::{Postgres, parsed};
use crate::support::redis::Redis;
use crate::support::two_weeks;

async fn key_of(store: &dyn PairStore) -> FingerprintKey {
    store.fingerprint_key().await.unwrap()
}

/// The change of the step that creates the key.
fn change_of_key(done: &SetUp) -> Change {
    let mut steps = done.steps.iter();
    let step = steps.find(|step| step.what.starts_with("the installation's key"));
    step.unwrap().change
}

/// The distinct keys of stores that ask for it at once.
async fn keys_at_once(stores: &[impl PairStore]) -> HashSet<String> {
    let keys = join_all(stores.iter().map(|store| key_of(store))).await;
    keys.into_iter().map(FingerprintKey::to_hex).collect()
}

fn open(options: &PostgresOptions) -> PostgresStore {
    PostgresStore::open(options.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_instances_agree_on_one_key_per_schema() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let options = server.options("hc", two_weeks());
    let made = postgres::set_up(&options).await.unwrap();
    assert_eq!(change_of_key(&made), Change::Created);
    let key = key_of(&open(&options)).await;
    let again = postgres::set_up(&options).await.unwrap();
    assert_eq!(change_of_key(&again), Change::Unchanged);
    assert_eq!(key_of(&open(&options)).await, key, "it survives reopening");
    let other = server.store("other", two_weeks()).await;
    assert_ne!(key_of(&other).await, key, "each schema has its own");

    // Without a key, instances that need one at once create one.
    let client = server.client().await;
    for round in 0..10 {
        let gone = "update hc.frame set fingerprint_key = null";
        client.batch_execute(gone).await.unwrap();
        let stores: Vec<_> = (0..8).map(|_| open(&options)).collect();
        let keys = keys_at_once(&stores).await;
        assert_eq!(keys.len(), 1, "round {round}");
        let late = key_of(&open(&options)).await;
        assert!(keys.contains(&late.to_hex()), "round {round}");
    }
    let store = open(&options);
    store.close().await.unwrap();
    let closed = store.fingerprint_key().await.unwrap_err();
    assert_eq!(closed.name(), "closed", "{closed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_schemas_of_earlier_versions_get_a_key_by_setup() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let client = server.client().await;
    // What the migrations since then have made is undone.
    let version_2 = "drop table properties; alter table frame drop column fingerprint_key; \
        delete from schema_history where version > 2";
    let version_1 = "drop table properties; drop table erasures; \
        alter table frame drop column fingerprint_key, drop column user_key; \
        delete from schema_history where version > 1";
    for (schema, undone, version) in [("one", version_1, 1), ("two", version_2, 2)] {
        let options = server.options(schema, two_weeks());
        let store = server.store(schema, two_weeks()).await;
        store.record(&batch([("u", "s", present())])).await.unwrap();
        let undone = format!("set search_path = {schema}; {undone}");
        client.batch_execute(&undone).await.unwrap();

        let store = open(&options);
        for error in [
            store.fingerprint_key().await.err(),
            store.ping().await.err(),
        ] {
            let error = error.unwrap();
            assert_eq!(error.name(), "not_set_up", "{error}");
            let said = error.to_string();
            assert!(said.contains(&format!("of version {version}")), "{said}");
            assert!(said.contains("run `headcount setup`"), "{said}");
        }
        let done = postgres::set_up(&options).await.unwrap();
        let changes: Vec<_> = done.steps.iter().map(|step| step.change).collect();
        let (kept, updated) = (Change::Unchanged, Change::Updated);
        assert_eq!(changes, [kept, updated, kept, Change::Created]);
        // The same store works without a restart, and has its data.
        assert_eq!(users(&store, "s").await, 1);
        assert_eq!(key_of(&store).await, key_of(&open(&options)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_roles_that_may_only_read_use_the_key_that_exists() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let options = server.options("hc", two_weeks());
    postgres::set_up(&options).await.unwrap();
    let roles = "create role reader login password 'reader'; \
        grant usage on schema hc to reader; \
        grant select on all tables in schema hc to reader; \
        create role standby login password 'standby'; \
        grant usage on schema hc to standby; \
        grant select, insert, update, delete on all tables in schema hc to standby; \
        alter role standby set default_transaction_read_only = on";
    let client = server.client().await;
    client.batch_execute(roles).await.unwrap();
    let as_role = |role: &str| {
        let url = format!(
            "postgres://{role}:{role}@127.0.0.1:{}/postgres",
            server.port()
        );
        open(&PostgresOptions::new(parsed(&url), "hc", two_weeks()))
    };
    let key = key_of(&open(&options)).await;
    let roles = [("reader", "permission denied"), ("standby", "read-only")];
    let mut known = Vec::new();
    for (role, _) in roles {
        let store = as_role(role);
        assert_eq!(key_of(&store).await, key, "{role}");
        known.push(store);
    }
    let gone = "update hc.frame set fingerprint_key = null";
    client.batch_execute(gone).await.unwrap();
    for (role, reason) in roles {
        let error = as_role(role).fingerprint_key().await.unwrap_err();
        assert_eq!(error.name(), "not_set_up", "{error}");
        let said = error.to_string();
        assert!(said.contains("has no fingerprint key"), "{said}");
        assert!(said.contains(reason), "{said}");
        assert!(said.contains("run `headcount setup`"), "{said}");
    }
    // An instance that knows the key can't store it again, and works with it.
    for store in known {
        store.ping().await.unwrap();
        assert_eq!(key_of(&store).await, key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_instances_follow_a_key_that_changes_while_they_run() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let store = server.store("hc", two_weeks()).await;
    let key = key_of(&store).await;
    let client = server.client().await;
    let gone = "update hc.frame set fingerprint_key = null";
    client.batch_execute(gone).await.unwrap();
    store.ping().await.unwrap();
    let late = open(&server.options("hc", two_weeks()));
    assert_eq!(key_of(&late).await, key, "the known key is stored again");

    let restored = "update hc.frame set fingerprint_key = decode(repeat('07', 16), 'hex')";
    client.batch_execute(restored).await.unwrap();
    store.ping().await.unwrap();
    assert_eq!(key_of(&store).await, FingerprintKey::new([7; 16]));
    // The database refuses a value that is no key.
    let wrong = "update hc.frame set fingerprint_key = decode('07', 'hex')";
    client.batch_execute(wrong).await.unwrap_err();
}

/// Options of a Redis store under `prefix`, for a user with its password, or for the default user.
fn redis_options(server: &Redis, user: &str, prefix: &str) -> RedisStoreOptions {
    let url = format!("redis://{user}127.0.0.1:{}", server.port());
    redis_store::options(&url, prefix, two_weeks())
}

fn open_redis(server: &Redis, prefix: &str) -> RedisStore {
    RedisStore::open(redis_options(server, "", prefix)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_instances_agree_on_one_key_per_prefix() {
    let Some(server) = Redis::start().await else {
        return;
    };
    for round in 0..10 {
        server.cli(&["FLUSHALL"]);
        let stores: Vec<_> = (0..8).map(|_| open_redis(&server, "hc")).collect();
        let keys = keys_at_once(&stores).await;
        assert_eq!(keys.len(), 1, "round {round}");
        let late = key_of(&open_redis(&server, "hc")).await;
        assert!(keys.contains(&late.to_hex()), "round {round}");
    }
    let key = key_of(&open_redis(&server, "hc")).await;
    let done = redis::store::set_up(redis_options(&server, "", "hc")).await;
    assert_eq!(change_of_key(&done.unwrap()), Change::Unchanged);
    let other = redis::store::set_up(redis_options(&server, "", "other")).await;
    assert_eq!(change_of_key(&other.unwrap()), Change::Created);
    assert_ne!(key_of(&open_redis(&server, "other")).await, key);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_users_that_may_only_read_use_the_key_that_exists() {
    let Some(server) = Redis::start().await else {
        return;
    };
    let granted = server.cli(&[
        "ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@all", "-@write",
    ]);
    assert_eq!(granted, "OK");
    let reader = || RedisStore::open(redis_options(&server, "reader:pw@", "hc")).unwrap();
    let key = key_of(&open_redis(&server, "hc")).await;
    let known = reader();
    assert_eq!(key_of(&known).await, key);

    server.cli(&["HDEL", "hc:{store}:meta", "fingerprint_key"]);
    let error = reader().fingerprint_key().await.unwrap_err();
    assert_eq!(error.name(), "not_set_up", "{error}");
    let said = error.to_string();
    assert!(
        said.contains("hc:{store}:meta has no fingerprint key"),
        "{said}"
    );
    assert!(said.contains("run `headcount setup`"), "{said}");
    // An instance that knows the key can't store it again, and works with it.
    known.ping().await.unwrap();
    assert_eq!(key_of(&known).await, key);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_instances_follow_a_key_that_changes_while_they_run() {
    let Some(server) = Redis::start().await else {
        return;
    };
    let store = open_redis(&server, "hc");
    let key = key_of(&store).await;
    server.cli(&["FLUSHALL"]);
    store.ping().await.unwrap();
    let late = open_redis(&server, "hc");
    assert_eq!(key_of(&late).await, key, "the known key is stored again");

    let hold = |digits: &str| {
        server.cli(&["HSET", "hc:{store}:meta", "fingerprint_key", digits]);
    };
    hold(&"07".repeat(16));
    store.ping().await.unwrap();
    assert_eq!(key_of(&store).await, FingerprintKey::new([7; 16]));
    hold("no key");
    for error in [
        store.ping().await.err(),
        open_redis(&server, "hc").fingerprint_key().await.err(),
    ] {
        let error = error.unwrap();
        assert_eq!(error.name(), "damaged", "{error}");
    }
}
