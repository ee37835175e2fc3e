//! `headcount archive` on stores that keep what expired until they are told.

use std::sync::Arc;

use domain::store::conformance::batch;
use domain::{Segment, Slot, Timestamp};
use headcount::config::{Settings, StoreKind};
use headcount::wiring::open_store_of;

use crate::support::postgres::Postgres;
use crate::support::program::run;
use crate::support::redis::Redis;

/// Users seen an hour ago, with a window of four minutes.
const OLD: usize = 25_000;
/// So many of them come back while they are being removed.
const BACK: usize = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_goes_once_beside_live_writes_and_no_count_changes() {
    let (Some(redis), Some(postgres)) = (Redis::start().await, Postgres::start().await) else {
        return;
    };
    let (redis_url, postgres_url) = (redis.url(), postgres.url());
    for (name, kind) in [
        ("redis", StoreKind::Redis),
        ("postgres", StoreKind::Postgres),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (url_of, url) = match kind {
            StoreKind::Redis => ("redis_url", redis_url.as_str()),
            _ => ("postgres_url", postgres_url.as_str()),
        };
        let settings = [
            ("store", name),
            (url_of, url),
            ("window", "4m"),
            ("resolution", "1s"),
            ("cache_ttl", "10m"),
        ];
        let set_up = run(folder.path(), &settings, &["setup"]);
        assert_eq!(set_up.code, Some(0), "{set_up:?}");
        let typed = Settings::with(settings).unwrap();
        let opened = open_store_of(&typed, kind, &Arc::default()).await;
        let store = opened.unwrap().store;
        let present = || typed.frame.resolution().slot_of(Timestamp::now());
        let back = |slots| Slot::new(present().number() - slots);

        let names: Vec<_> = (0..OLD).map(|n| format!("u{n}")).collect();
        let old = names.iter().map(|name| (name.as_str(), "s", back(3_600)));
        store.record(&batch(old)).await.unwrap();
        let lately = back(300);
        let expired = [("just gone", "s", lately), ("gone too", "s", lately)];
        store.record(&batch(expired)).await.unwrap();
        let (writing, returning) = (Arc::clone(&store), names[..BACK].to_vec());
        let slot = present();
        let writer = tokio::spawn(async move {
            for some in returning.chunks(100) {
                let pairs = some.iter().map(|name| (name.as_str(), "s", slot));
                writing.record(&batch(pairs)).await.unwrap();
            }
        });
        let archive = || run(folder.path(), &settings, &["archive", "--json"]);
        let first = archive();
        writer.await.unwrap();
        assert_eq!(first.code, Some(0), "{first:?}");
        assert_eq!(first.err, "", "no progress where nobody looks");
        let removed = first.json()["removed"].as_u64().unwrap();
        assert!(
            removed >= (OLD - BACK) as u64 && removed <= OLD as u64,
            "{removed}"
        );
        assert_eq!(archive().json()["removed"], 0, "{name}: twice is once");

        let segment = Segment::new("s").unwrap();
        let left = store
            .export(&segment, back(4_000)..=present())
            .await
            .unwrap();
        let (returned, gone): (Vec<_>, Vec<_>) = left
            .pairs()
            .map(|pair| pair.slot)
            .partition(|seen| *seen == slot);
        assert_eq!(returned.len(), BACK, "{name}: who came back stays");
        assert_eq!(gone, [lately, lately], "{name}: what an audit needs stays");
        store.close().await.unwrap();
    }
}
