//! Live counts through Redis with two services and two live processes: whatever breaks under load, each count has every pair that
//! was answered with 200 before its instant, and in the end all counts are those of InfluxDB and of a ledger of all answers.

mod former;
mod load;
mod repeat;
mod site;

use std::ops::Range;
use std::sync::Arc;

use serde_json::json;

use self::former::Former;
use self::load::{Load, SEGMENTS, expect_exact, expect_exact_once_compared, expect_users};
use self::repeat::expect_no_change_by_repeated_entries;
use self::site::{Servers, Site, seconds};
use crate::support::faketime::library;
use crate::support::redis::Redis;
use crate::support::service::poll;

fn names(prefix: &str, numbers: Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("{prefix} {n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_fail_in_every_way() {
    let Some(mut site) = Site::start().await else {
        return;
    };
    let mut load = Load::start(&site);
    seconds(2).await;

    // It does not respond for a while: pairs are owed, and sent later.
    site.redis.pause();
    seconds(4).await;
    site.redis.resume();
    seconds(2).await;
    let ledger = load.end().await;
    let owed = ledger.lock().statuses().get(&202).copied();
    assert!(owed.is_some(), "{:?}", ledger.lock().statuses());
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after a pause");

    // It has entries twice, and in another order.
    load = Load::continuing(&site, ledger);
    expect_no_change_by_repeated_entries(&site).await;
    let ledger = load.end().await;
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after repetitions");

    // It loses everything while it runs.
    load = Load::continuing(&site, ledger);
    for _ in 0..3 {
        seconds(1).await;
        assert_eq!(site.redis.cli(&["FLUSHALL"]), "OK");
    }
    seconds(1).await;
    let ledger = load.end().await;
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after FLUSHALL");

    // It is killed, and comes back with nothing.
    load = Load::continuing(&site, ledger);
    seconds(1).await;
    site.redis.kill();
    seconds(2).await;
    site.redis.restart();
    seconds(3).await;
    let ledger = load.end().await;
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after a kill");

    // The stream is trimmed before the live processes have read it.
    load = Load::continuing(&site, ledger);
    for live in &site.lives {
        live.service.signal("STOP");
    }
    seconds(2).await;
    site.redis
        .cli(&["XTRIM", "headcount:{live}:feed", "MAXLEN", "3"]);
    for live in &site.lives {
        live.service.signal("CONT");
    }
    seconds(2).await;
    let ledger = load.end().await;
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after a trim");

    // A replica is promoted that lacks the newest second.
    let replica = Redis::start().await.unwrap();
    replica.follow(&site.redis).await;
    load = Load::continuing(&site, ledger);
    seconds(2).await;
    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    seconds(1).await;
    site.redis_proxy.redirect_to(replica.port());
    site.redis.kill();
    site.redis = replica;
    seconds(4).await;
    let ledger = load.end().await;
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after a promotion");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_merged_in_every_replica() {
    let Some(mut site) = Site::start().await else {
        return;
    };
    site.wait_until_live().await;
    crate::merge::merges(&site.services[0].service, true).await;
    assert_eq!(site.compare().await, 0);
    // The other replica ends with the same counts.
    let first = site.publisher().await;
    site.lives[first].kill();
    assert_ne!(site.publisher().await, first);
    site.wait_until_live().await;
    for (segment, users) in [("into_later", 1), ("only_into", 1), ("late", 0)] {
        expect_users(&site, segment, users, "live").await;
    }
    assert_eq!(site.compare().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn live_processes_may_fail_in_every_way() {
    // Services recount soon after the last live process is gone.
    let Some(mut site) = Site::start_with(&[("cache_ttl", "5s")]).await else {
        return;
    };
    let mut load = Load::start(&site);
    seconds(2).await;

    // The one that publishes is killed: the other one takes over.
    let first = site.publisher().await;
    site.lives[first].kill();
    let second = site.publisher().await;
    assert_ne!(first, second);
    site.wait_until_live().await;
    seconds(1).await;
    site.lives[first].restart();
    seconds(2).await;
    let ledger = load.end().await;
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after a kill");

    // The one that publishes pauses for longer than its lock: it is refused afterwards.
    load = Load::continuing(&site, ledger);
    site.lives[second].service.signal("STOP");
    poll(async || (site.publisher_but(second).await).then_some(())).await;
    seconds(1).await;
    site.lives[second].service.signal("CONT");
    seconds(2).await;
    assert_eq!(site.publisher().await, first);
    let ledger = load.end().await;
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after a pause");

    // Both are gone: counts come from elsewhere until one is back, which continues where it was.
    load = Load::continuing(&site, ledger);
    for live in &mut site.lives {
        live.kill();
    }
    poll(async || {
        let count = site.services[0]
            .service
            .get("/v1/segments/news/count")
            .await;
        (count["source"] != "live").then_some(())
    })
    .await;
    expect_recounts(&site).await;
    site.lives[0].restart();
    site.wait_until_live().await;
    expect_users(&site, "meanwhile", 50, "live").await;
    assert_eq!(
        site.lives[0]
            .metric("headcount_live_hydrated_pairs_total")
            .await,
        0.0
    );
    // The other one lost its disk.
    site.lives[1].lose_directory();
    site.lives[1].restart();
    poll(async || {
        let is_complete = site.lives[1].metric("headcount_live_complete").await;
        (is_complete == 1.0).then_some(())
    })
    .await;
    site.lives[0].kill();
    assert_eq!(site.publisher().await, 1);
    seconds(1).await;
    let ledger = load.end().await;
    let statuses = ledger.lock().statuses().clone();
    let is_accepted = |status: &u16| [200, 202].contains(status);
    assert!(statuses.keys().all(is_accepted), "{statuses:?}");
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after a lost disk");
}

/// No live process is left: services recount, so that counts through the load balancer have the pairs of the meantime.
async fn expect_recounts(site: &Site) {
    let users = names("user of the meantime", 0..50);
    site.record(&site.front(), &users, "meanwhile").await;
    let before = site.recounts().await;
    // The first of them may have begun before these users came.
    poll(async || (site.recounts().await >= before + 2.0).then_some(())).await;
    let count = poll(async || {
        let count = site.get_at_front("/v1/segments/meanwhile/count").await?;
        // What a recount has found, not what the store counts for this request.
        let is_recounted = ["cache", "memory"].map(|source| count["source"] == source);
        is_recounted.contains(&true).then_some(count)
    })
    .await;
    assert_eq!(
        (&count["users"], &count["stale"]),
        (&json!(50), &json!(false)),
        "{count}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_influxdb_may_fail_in_every_way() {
    let Some(mut site) = Site::start().await else {
        return;
    };
    let mut load = Load::start(&site);
    seconds(2).await;

    // A killed service may have stored pairs that it did not append. Nobody was told that they are stored.
    for round in 0..4 {
        site.services[round % 2].kill();
        site.services[round % 2].restart();
        seconds(1).await;
    }
    let ledger = load.end().await;
    // So the comparison may find some, in no known number. Accepted users must have been counted without it.
    expect_exact(&site, &ledger).await;

    // Pairs wait in the spools, and are counted when they are delivered.
    load = Load::continuing(&site, ledger);
    site.influx.kill();
    seconds(3).await;
    site.influx.restart().await;
    seconds(3).await;
    let ledger = load.end().await;
    assert!(ledger.lock().statuses().contains_key(&202));
    // Also those that InfluxDB stored just before it was killed: its response was missing, so they went to the spool.
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after an outage");

    // A service that owes entries is gone for good. The store has their pairs.
    site.redis_proxy.cut();
    let lost: Vec<_> = (0..50).map(|n| format!("owed {n}")).collect();
    assert_eq!(site.services[1].service.post(&lost, SEGMENTS[0]).await, 202);
    ledger.lock().note(0, &lost, 202);
    site.services[1].lose_directory();
    site.redis_proxy.restore();
    site.services[1].restart();
    assert_eq!(
        expect_exact_once_compared(&site, &ledger).await,
        1,
        "a comparison finds them"
    );
    // It was of the process that publishes, which told the other one to compare the segment as well.
    let compared = site.publisher().await;
    let differences = "headcount_live_audit_differences_total";
    poll(async || (site.lives[1 - compared].metric(differences).await >= 1.0).then_some(())).await;
    site.lives[compared].kill();
    poll(async || (site.publisher_but(compared).await).then_some(())).await;
    assert_eq!(expect_exact(&site, &ledger).await, 0, "by the other one");
    site.lives[compared].restart();

    // A service that owes entries restarts, and sends them.
    site.redis_proxy.cut();
    let late: Vec<_> = (0..50).map(|n| format!("late {n}")).collect();
    assert_eq!(site.services[0].service.post(&late, SEGMENTS[1]).await, 202);
    ledger.lock().note(1, &late, 202);
    site.services[0].kill();
    site.redis_proxy.restore();
    site.services[0].restart();
    assert_eq!(expect_exact(&site, &ledger).await, 0, "they are sent");

    // A user is erased while another service has the user's pairs in its spool, and a new replica reads the store.
    let twice = ["in a spool".to_owned(), "stays".to_owned()];
    for (service, status) in [(0, 200), (1, 202)] {
        if status == 202 {
            site.influx.kill();
        }
        let service = &site.services[service].service;
        assert_eq!(service.post(&twice, SEGMENTS[2]).await, status);
        ledger.lock().note(2, &twice, status);
    }
    site.influx.restart().await;
    site.lives[0].lose_directory();
    site.lives[0].restart();
    site.erase(0, "in a spool").await;
    ledger.lock().erase("in a spool");
    assert_eq!(expect_exact(&site, &ledger).await, 0, "after an erasure");
    let user = site.services[1]
        .service
        .get("/v1/users/in%20a%20spool")
        .await;
    assert_eq!(user["segments"], json!([]));
    // The one that publishes was compared. Now that is the one that read the store meanwhile.
    site.lives[1].kill();
    assert_eq!(site.publisher().await, 0);
    assert_eq!(expect_exact(&site, &ledger).await, 0, "by the new replica");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_is_upgraded_in_place_under_load() {
    let Some(servers) = Servers::start().await else {
        return;
    };
    // An instance of 0.1.0 writes. Nobody else writes to the segment of the members, so its count is known at each step.
    let former = Former::set_up(&servers.influx).await;
    let members = names("member", 0..300);
    let minute = former::this_minute();
    former.record(&members, "members", minute).await;
    let ledger = Arc::default();
    let former_load = former.start_load(&ledger);
    seconds(1).await;
    assert_eq!(former::installations(&servers.influx).await, 0);
    let printed = servers.set_up();
    assert!(
        printed.contains("created    the installation's key"),
        "{printed}"
    );
    let mut site = Site::without_live_counts(servers).await;
    let load = Load::continuing(&site, ledger);
    expect_users(&site, "members", 300, "store").await;
    seconds(3).await;

    // First the services, one after the other, and then the workers, which become live processes.
    for number in 0..site.services.len() {
        let service = &mut site.services[number];
        service.set("live", "redis");
        service.replace().await;
        // The load balancer sends requests to it again.
        seconds(3).await;
        let again = &members[100 * number..100 * (number + 1)];
        former::see_again(&site, number, again, minute).await;
        expect_users(&site, "members", 300, "store").await;
    }
    former_load.end().await;
    for worker in &mut site.lives {
        worker.set("live", "redis");
        worker.replace().await;
    }
    site.wait_until_live().await;
    expect_users(&site, "members", 300, "live").await;
    former::see_again(&site, 0, &members[200..250], minute).await;
    let others = names("member", 300..310);
    site.record(&site.front(), &others, "members").await;
    expect_users(&site, "members", 310, "live").await;
    seconds(1).await;
    let ledger = load.end().await;
    assert_eq!(expect_exact(&site, &ledger).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_changes_no_count_of_the_others() {
    let Some(ahead) = library() else { return };
    let ahead = ahead.to_str().unwrap().to_owned();
    let Some(mut site) = Site::start().await else {
        return;
    };
    site.services[1].restart_with(&[
        ("LD_PRELOAD", ahead),
        ("FAKETIME", "+10m".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ]);
    site.wait_until_live().await;
    let load = Load::start(&site);
    // In a segment of their own, so that the count is known.
    for service in 0..2 {
        let users = names("user", 40 * service..40 * service + 60);
        let url = site.services[service].service.url();
        site.record(&url, &users, "clocks").await;
    }
    expect_users(&site, "clocks", 100, "live").await;
    let publisher = &site.lives[site.publisher().await];
    assert!(
        publisher
            .metric("headcount_live_clamped_records_total")
            .await
            > 0.0
    );
    seconds(4).await;
    let ledger = load.end().await;
    // The store does not count the pairs of the next ten minutes yet.
    assert_eq!(expect_exact(&site, &ledger).await, 0);
    expect_users(&site, "clocks", 100, "live").await;
    for segment in SEGMENTS.into_iter().chain(["clocks"]) {
        let of_now = site.stored_until_now(segment).await.len() as u64;
        assert_eq!(site.counted_by_influxdb(segment).await, of_now, "{segment}");
        let all = site.stored(segment).await.len() as u64;
        assert!(of_now < all, "{of_now} of {all} users of {segment}");
    }
    assert_eq!(site.stored_until_now("clocks").await.len(), 60);
}

/// Random kills of every role. `HEADCOUNT_TEST_LIVE_ROUNDS` sets their number.
#[tokio::test(flavor = "multi_thread")]
async fn random_kills_of_every_role_change_no_count() {
    let rounds = std::env::var("HEADCOUNT_TEST_LIVE_ROUNDS");
    let rounds: u32 = rounds.map_or(3, |rounds| rounds.parse().unwrap());
    let Some(mut site) = Site::start().await else {
        return;
    };
    let mut ledger = Arc::default();
    for round in 0..rounds {
        let load = Load::continuing(&site, ledger);
        for _ in 0..fastrand::u32(1..4) {
            tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(50..900))).await;
            match fastrand::u32(0..8) {
                number @ 0..2 => site.services[number as usize].restart(),
                number @ 2..4 => site.lives[number as usize - 2].restart(),
                4 => site.redis.restart_from_saved_data(),
                5 => {
                    site.influx.kill();
                    site.influx.restart().await;
                }
                6 => assert_eq!(site.redis.cli(&["FLUSHALL"]), "OK"),
                _ => {
                    site.redis_proxy.stall();
                    seconds(1).await;
                    site.redis_proxy.restore();
                }
            }
        }
        ledger = load.end().await;
        // Those are of requests without a response, by services that were killed. Accepted users must have been counted before.
        let healed = expect_exact(&site, &ledger).await;
        println!("round {round}: {healed} segments were read again");
    }
}
