//! `headcount copy` between real stores.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::store::PairStore;
use domain::store::conformance::{HOSTILE_NAMES, batch};
use domain::{BatchBuilder, Slot, Timestamp, UserId};
use headcount::config::{Settings, StoreKind};
use headcount::wiring::open_store_of;
use stores::influx::set_up;

use crate::support::influxd::{Influxd, ORG, TOKEN};
use crate::support::postgres::Postgres;
use crate::support::program::{run, start};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::wait::until;

/// Settings of stores that a test needs, by name.
struct Stores {
    folder: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Stores {
    fn new(settings: Vec<(&'static str, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data").to_str().unwrap().to_owned();
        let mut all = vec![("data_dir", data_dir), ("spool_dir", "off".to_owned())];
        all.extend(settings);
        Self {
            folder,
            settings: all,
        }
    }

    fn given(&self) -> Vec<(&str, &str)> {
        let given = self.settings.iter();
        given.map(|(name, value)| (*name, value.as_str())).collect()
    }

    fn settings(&self) -> Settings {
        Settings::with(self.given()).unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn open(&self, kind: StoreKind) -> Arc<dyn PairStore> {
        let settings = self.settings();
        let opened = open_store_of(&settings, kind, &Arc::default()).await;
        opened.unwrap().store
    }

    fn copy(&self, arguments: &[&str]) -> crate::support::program::Run {
        let mut all = vec!["copy", "--json"];
        all.extend(arguments);
        run(self.folder.path(), &self.given(), &all)
    }

    fn present(&self) -> Slot {
        self.settings().frame.resolution().slot_of(Timestamp::now())
    }

    /// Both stores count the same, everywhere, over several windows.
    async fn assert_equal(&self, one: &dyn PairStore, other: &dyn PairStore) {
        let frame = self.settings().frame;
        let now = Timestamp::now();
        let segments = one.segments(now).await.unwrap();
        assert!(!segments.is_empty());
        assert_eq!(segments, other.segments(now).await.unwrap());
        for segment in segments {
            for hours in [1, 7, 24, 14 * 24] {
                let window = frame.window(Duration::from_hours(hours)).unwrap();
                // Of one slot, as long as none passes in between.
                loop {
                    let now = Timestamp::now();
                    let ours = one.count(&segment, window, now).await.unwrap();
                    let theirs = other.count(&segment, window, now).await.unwrap();
                    if frame.resolution().slot_of(ours.as_of)
                        == frame.resolution().slot_of(theirs.as_of)
                    {
                        assert_eq!(ours.users, theirs.users, "{segment} over {hours} h");
                        break;
                    }
                }
            }
        }
    }
}

async fn influx_stores(server: &Influxd, url: &str) -> Stores {
    let stores = Stores::new(vec![
        ("influx_url", url.to_owned()),
        ("influx_org", ORG.to_owned()),
        ("influx_bucket", "pairs".to_owned()),
        ("influx_token", TOKEN.to_owned()),
    ]);
    let options = server.options("pairs", stores.settings().frame);
    set_up(&options, false).await.unwrap();
    stores
}

/// Pairs over almost the whole window: one large segment and many small ones, of hostile names.
async fn fill(store: &dyn PairStore, present: Slot, large: u64) {
    let mut random = fastrand::Rng::with_seed(5);
    let mut builder = BatchBuilder::default();
    let mut push = |name: String, segment: &str, slot| {
        let user = UserId::new(name).unwrap();
        builder.push_pair(&user, segment, slot).unwrap();
    };
    let mut slot = || Slot::new(present.number() - random.u64(..20_000));
    for n in 0..large {
        push(format!("u{}", n % (large - large / 10)), "large", slot());
    }
    for segment in HOSTILE_NAMES {
        for name in HOSTILE_NAMES.iter().chain(&[" outer ", "trailing\\"]) {
            push((*name).to_owned(), segment, slot());
            push((*name).to_owned(), segment, slot());
        }
    }
    let pairs = builder.finish();
    store.record(&pairs).await.unwrap();
}

fn log_bytes(dir: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(dir) else {
        return 0;
    };
    let files = files.map(|file| file.unwrap());
    let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
    logs.map(|log| log.metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_influx_into_the_embedded_store_killed_in_the_middle() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let proxy = Proxy::to(server.port()).await;
    let stores = influx_stores(&server, &format!("http://{}", proxy.address())).await;
    let source = stores.open(StoreKind::Influx).await;
    fill(&*source, stores.present(), 200_000).await;
    let way = ["copy", "--from", "influx", "--to", "embedded"];
    // It gets what it reads piece by piece, so that it is in the middle for certain, whatever this machine does.
    proxy.meter();
    let mut copying = start(stores.folder.path(), &stores.given(), &way);
    until("the copy gets going", async || {
        proxy.allow(64 * 1024);
        log_bytes(&stores.path("data")) >= 400_000
    })
    .await;
    assert!(copying.try_wait().unwrap().is_none(), "it was too quick");
    copying.kill().unwrap();
    copying.wait().unwrap();
    proxy.restore();
    assert!(stores.path("headcount-copy.json").exists());

    let other = stores.copy(&["--from", "influx", "--to", "embedded", "--window", "7d"]);
    assert_eq!(other.code, Some(1), "{other:?}");
    assert!(other.err.contains("--checkpoint"), "{other:?}");

    let done = stores.copy(&way[1..]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let document = done.json();
    assert_eq!(document["resumed"], true);
    assert_eq!(document["segments"], HOSTILE_NAMES.len() + 1);
    assert_eq!(document["differences"], serde_json::json!([]));
    assert_eq!(done.err, "", "no progress where nobody looks");
    assert!(!stores.path("headcount-copy.json").exists());
    let target = stores.open(StoreKind::Embedded).await;
    stores.assert_equal(&*source, &*target).await;
    target.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn from_store_to_store_nobody_is_lost() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let Some(redis) = Redis::start().await else {
        return;
    };
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    let mut stores = influx_stores(&server, &server.url()).await;
    stores.settings.push(("redis_url", redis.url()));
    stores.settings.push(("postgres_url", postgres.url()));
    let early = stores.copy(&["--from", "influx", "--to", "postgres"]);
    assert_eq!(early.code, Some(1), "{early:?}");
    assert!(early.err.contains("headcount setup"), "{early:?}");
    assert!(
        !stores.path("headcount-copy.json").exists(),
        "nothing was begun"
    );
    let set_up = ["setup", "--store", "postgres"];
    let set_up = run(stores.folder.path(), &stores.given(), &set_up);
    assert_eq!(set_up.code, Some(0), "{set_up:?}");
    let influx = stores.open(StoreKind::Influx).await;
    fill(&*influx, stores.present(), 60_000).await;
    let way = [
        "influx", "redis", "postgres", "influx", "postgres", "embedded",
    ];
    for (from, to) in way.iter().zip(&way[1..]) {
        let done = stores.copy(&["--from", from, "--to", to]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(done.json()["differences"], serde_json::json!([]));
    }
    for kind in [StoreKind::Redis, StoreKind::Postgres, StoreKind::Embedded] {
        let store = stores.open(kind).await;
        stores.assert_equal(&*influx, &*store).await;
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_writes_meanwhile_are_copied_too() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let stores = influx_stores(&server, &server.url()).await;
    let source = stores.open(StoreKind::Influx).await;
    fill(&*source, stores.present(), 50_000).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (writing, told) = (Arc::clone(&source), Arc::clone(&stop));
    let present = stores.present();
    // Users of now and late ones, into old segments and new ones.
    let writer = tokio::spawn(async move {
        let mut round = 0;
        while !told.load(Ordering::Relaxed) {
            let names: Vec<_> = (0..50).map(|n| format!("live {round} {n}")).collect();
            let new = format!("new {}", round % 5);
            let pairs = names.iter().zip(0..).flat_map(|(name, late)| {
                let slot = Slot::new(present.number() - late * 300);
                [(name.as_str(), "large", slot), (name, new.as_str(), slot)]
            });
            writing.record(&batch(pairs)).await.unwrap();
            round += 1;
        }
        round
    });
    let way = ["--from", "influx", "--to", "embedded"];
    let first = stores.copy(&way);
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0);
    assert_eq!(first.code, Some(0), "{first:?}");
    let again = stores.copy(&way);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(again.json()["differences"], serde_json::json!([]));
    let target = stores.open(StoreKind::Embedded).await;
    stores.assert_equal(&*source, &*target).await;
    target.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let stores = influx_stores(&server, &server.url()).await;
    std::fs::create_dir(stores.path("data")).unwrap();
    let service = Service::start(&stores.path("data"), &[("data_dir", ".")]).await;
    let refused = stores.copy(&["--from", "influx", "--to", "embedded"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("another process"), "{refused:?}");
    assert_eq!(service.terminate().await, Some(0));
}

#[test]
fn what_can_not_be_copied_is_said_before_anything_connects() {
    let stores = Stores::new(Vec::new());
    for (arguments, named) in [
        (
            &["--from", "embedded", "--to", "influx"][..],
            "fingerprints",
        ),
        (&["--from", "influx", "--to", "embedded"], "`influx_url`"),
        (&["--from", "influx", "--to", "influx"], "the same store"),
        (&["--from", "influx"], "--to"),
        (&["--from", "nosql", "--to", "influx"], "nosql"),
    ] {
        let refused = stores.copy(arguments);
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
        assert!(refused.err.contains(named), "{arguments:?}: {refused:?}");
    }
    let left: BTreeSet<_> = std::fs::read_dir(stores.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, BTreeSet::new(), "nothing was made");
}
