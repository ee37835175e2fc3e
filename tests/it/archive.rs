//! `headcount archive` on stores that keep expired pairs until they are archived.

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
/// The number of old users that are seen again while `archive` removes them.
const BACK: usize = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn archive_removes_expired_pairs_once_and_keeps_live_ones_during_writes() {
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
        assert_eq!(first.err, "", "no progress output without a terminal");
        let removed = first.json()["removed"].as_u64().unwrap();
        assert!(
            removed >= (OLD - BACK) as u64 && removed <= OLD as u64,
            "{removed}"
        );
        assert_eq!(
            archive().json()["removed"],
            0,
            "{name}: the second run removes nothing"
        );

        let segment = Segment::new("s").unwrap();
        let left = store
            .export(&segment, back(4_000)..=present())
            .await
            .unwrap();
        let (returned, gone): (Vec<_>, Vec<_>) = left
            .pairs()
            .map(|pair| pair.slot)
            .partition(|seen| *seen == slot);
        assert_eq!(returned.len(), BACK, "{name}: users seen again stay");
        assert_eq!(
            gone,
            [lately, lately],
            "{name}: pairs that an audit needs stay"
        );
        store.close().await.unwrap();
    }
}
