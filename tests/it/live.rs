//! Live counts over a real InfluxDB: every accepted pair is counted at once, and whatever fails, the counts become those
//! of the store.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use stores::influx::set_up;
use stores::postgres::set_up as set_up_postgres;

use crate::support::influxd::{Influxd, settings_at};
use crate::support::postgres::Postgres;
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

const LIVE: (&str, &str) = ("live", "here");

fn users(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("{prefix}{n}")).collect()
}

async fn server() -> Option<Influxd> {
    let server = Influxd::start().await?;
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    Some(server)
}

async fn live(url: &str, directory: &Path) -> Service {
    let service = Service::start(directory, &settings_at(url, &[LIVE])).await;
    wait_until_live(&service).await;
    service
}

async fn wait_until_live(service: &Service) {
    poll(async || {
        let (_, ready) = service.try_get("/readyz").await;
        (ready["components"]["live"]["ok"] == Value::Bool(true)).then_some(())
    })
    .await;
}

/// The live count of a segment; waits until counts are live.
async fn live_count(service: &Service, segment: &str) -> u64 {
    poll(async || {
        let count = service.get(&format!("/v1/segments/{segment}/count")).await;
        (count["source"] == "live").then(|| count["users"].as_u64().unwrap())
    })
    .await
}

/// Waits until the live count is `users`.
async fn expect(service: &Service, segment: &str, users: u64) {
    let mut last = 0;
    for _ in 0..600 {
        last = live_count(service, segment).await;
        if last == users {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{segment} has {last} users, not {users}");
}

async fn metric(service: &Service, name: &str) -> f64 {
    let metrics = service.text("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_includes_every_pair_that_was_accepted() {
    let Some(mut server) = server().await else {
        return;
    };
    let (url, directory) = (server.url(), tempfile::tempdir().unwrap());
    // An installation without live counts is upgraded in place.
    let before = Service::start(directory.path(), &settings_at(&url, &[])).await;
    assert_eq!(before.post(&users("old", 0..700), "news").await, 200);
    assert_eq!(before.terminate().await, Some(0));
    let mut service = live(&url, directory.path()).await;
    expect(&service, "news", 700).await;
    for round in 0..10 {
        let from = round * 20;
        assert_eq!(
            service.post(&users("u", from..from + 30), "sports").await,
            200
        );
        let fresh = service.get("/v1/segments/sports/count?fresh=true").await;
        assert_eq!(
            (&fresh["users"], &fresh["source"]),
            (&(from + 30).into(), &"live".into())
        );
    }
    let list = service.get("/v1/segments").await;
    let listed = list["segments"].as_array().unwrap().iter();
    let counts: Vec<_> = listed.map(|it| (&it["segment"], &it["users"])).collect();
    assert_eq!(
        counts,
        [
            (&"news".into(), &700.into()),
            (&"sports".into(), &210.into())
        ]
    );
    let hour = service.get("/v1/segments/sports/count?window=1h").await;
    assert_eq!(
        (&hour["users"], &hour["source"]),
        (&210.into(), &"live".into())
    );

    for (expr, users) in [
        ("news%20OR%20sports", 910),
        ("*%20NOT%20news", 210),
        ("news%20AND%20sports", 0),
    ] {
        let set = service.get(&format!("/v1/count?expr={expr}&fresh")).await;
        assert_eq!(
            (&set["users"], &set["source"]),
            (&users.into(), &"live".into()),
            "{expr}"
        );
    }

    // A restart after a crash reads nothing from the store again.
    service.kill();
    let service = live(&url, directory.path()).await;
    expect(&service, "sports", 210).await;
    assert_eq!(
        metric(&service, "headcount_live_hydrated_pairs_total ").await,
        0.0
    );

    // While InfluxDB is unavailable, counts stay live; they lack what waits in the spool.
    server.kill();
    assert_eq!(service.post(&users("late", 0..40), "sports").await, 202);
    assert_eq!(live_count(&service, "sports").await, 210);
    server.restart().await;
    service.wait_until_drained().await;
    expect(&service, "sports", 250).await;

    // Without its directory the replica reads everything again.
    assert_eq!(service.terminate().await, Some(0));
    std::fs::remove_dir_all(directory.path().join("headcount-live")).unwrap();
    let service = live(&url, directory.path()).await;
    expect(&service, "sports", 250).await;
    assert_eq!(
        metric(&service, "headcount_live_hydrated_pairs_total ").await,
        950.0
    );
    let without =
        Service::start(tempfile::tempdir().unwrap().path(), &settings_at(&url, &[])).await;
    assert_eq!(without.fresh_count("sports").await, 250);
    let (status, _) = without.try_get("/v1/count?expr=news%20OR%20sports").await;
    assert_eq!(status, 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_leaves_live_counts_at_once() {
    let Some(server) = server().await else {
        return;
    };
    let (url, directory) = (server.url(), tempfile::tempdir().unwrap());
    let service = live(&url, directory.path()).await;
    assert_eq!(service.post(&users("u", 0..9), "news").await, 200);
    expect(&service, "news", 9).await;
    let erased = reqwest::Client::new()
        .delete(format!("{}/v1/users/u3", service.url()))
        .send()
        .await
        .unwrap();
    let receipt: Value = erased.json().await.unwrap();
    for place in ["replica_files", "change_feed"] {
        assert!(receipt.to_string().contains(place), "{receipt}");
    }
    expect(&service, "news", 8).await;
    let memberships = service.get("/v1/users/u3").await;
    assert_eq!(memberships["segments"], Value::Array(Vec::new()));
    // The user may come again.
    assert_eq!(service.post(&users("u", 3..4), "news").await, 200);
    expect(&service, "news", 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_pair_is_missing_after_kills_at_any_instant() {
    let Some(server) = server().await else {
        return;
    };
    let (url, directory) = (server.url(), tempfile::tempdir().unwrap());
    let settings = settings_at(&url, &[LIVE]);
    let (mut acknowledged, mut sent) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..8 {
        let mut service = Service::start(directory.path(), &settings).await;
        let address = service.url();
        let posting = tokio::spawn(async move {
            let client = reqwest::Client::new();
            let (mut acknowledged, mut sent) = (Vec::new(), Vec::new());
            for number in 0.. {
                let user = format!("u{round}-{number}");
                let body = serde_json::json!({"user_id": user, "segment": "news"});
                let posted = client
                    .post(format!("{address}/v1/pairs"))
                    .json(&body)
                    .send()
                    .await;
                sent.push(user.clone());
                match posted {
                    Ok(response) if response.status().is_success() => acknowledged.push(user),
                    _ => break,
                }
            }
            (acknowledged, sent)
        });
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..600))).await;
        service.kill();
        let (more, tried) = posting.await.unwrap();
        acknowledged.extend(more);
        sent.extend(tried);
    }
    let service = live(&url, directory.path()).await;
    service.wait_until_drained().await;
    let counted = live_count(&service, "news").await;
    let range = acknowledged.len() as u64..=sent.len() as u64;
    assert!(range.contains(&counted), "{counted}, not in {range:?}");
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    for user in acknowledged.iter().take(200) {
        let memberships = service.get(&format!("/v1/users/{user}")).await;
        assert_eq!(
            memberships["segments"].as_array().unwrap().len(),
            1,
            "{user}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_over_postgres_are_live_too() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let url = server.url();
    set_up_postgres(&server.options("headcount", two_weeks()))
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = [("store", "postgres"), ("postgres_url", &*url)];
    let before = Service::start(directory.path(), &settings).await;
    assert_eq!(before.post(&users("old", 0..300), "news").await, 200);
    assert_eq!(before.terminate().await, Some(0));
    let settings = [settings[0], settings[1], LIVE, ("refresh_interval", "1s")];
    let service = Service::start(directory.path(), &settings).await;
    wait_until_live(&service).await;
    expect(&service, "news", 300).await;
    assert_eq!(service.post(&users("u", 0..20), "news").await, 200);
    let fresh = service.get("/v1/segments/news/count?fresh=true").await;
    assert_eq!(
        (&fresh["users"], &fresh["source"]),
        (&320.into(), &"live".into())
    );
    // Trend points come from the replica, without a recount.
    poll(async || {
        let trend = service.get("/v1/segments/news/trend").await;
        let points = trend["points"].as_array()?;
        (points.last()?["users"] == 320).then_some(())
    })
    .await;
    let metrics = service.text("/metrics").await;
    let recounts = metrics.lines().find(|line| {
        line.starts_with("headcount_store_call_duration_seconds_count")
            && line.contains("operation=\"count\"")
    });
    assert_eq!(recounts, None);
}
