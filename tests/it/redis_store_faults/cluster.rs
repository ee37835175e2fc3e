//! A cluster that loses a node, or moves slots between nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::Timestamp;
use domain::store::conformance::frame;
use domain::store::{PairStore, StoreError};
use stores::redis::store::Persistence;

use super::{DURABLE, RECOVERY};
use crate::redis_store::{batch, present, segment, store, users};
use crate::support::redis::RedisCluster;
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_a_lost_node_serves_the_segments_of_the_others() {
    // Otherwise the other nodes stop as well, which is the server's default.
    let args = [&DURABLE[2..], &["--cluster-require-full-coverage", "no"]].concat();
    let Some(mut cluster) = RedisCluster::start_with(&args).await else {
        return;
    };
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let store = store(&cluster.url(), "hc");
    store
        .record(&batch(NAMES.map(|name| ("first", name, present()))))
        .await
        .unwrap();
    assert_eq!(store.survey().unwrap().persistence, Persistence::Always);

    let running = Arc::new(AtomicBool::new(true));
    let [written, failed] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = NAMES
        .into_iter()
        .map(|name| {
            let (store, running) = (Arc::clone(&store), Arc::clone(&running));
            let (written, failed) = (Arc::clone(&written), Arc::clone(&failed));
            tokio::spawn(async move {
                let mut acknowledged = vec!["first".to_owned()];
                let mut number = 0;
                while running.load(Ordering::Relaxed) {
                    let user = format!("u{number}");
                    number += 1;
                    match store.record(&batch([(&user, name, present())])).await {
                        Ok(()) => {
                            acknowledged.push(user);
                            written.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(StoreError::Unavailable(_) | StoreError::Timeout(_)) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{name}: {other:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (name, acknowledged)
            })
        })
        .collect();
    // Not the node that holds the list: without it no write succeeds, which another test covers.
    let slot = cluster.nodes()[0].cli(&["CLUSTER", "KEYSLOT", "hc:{store}:segments"]);
    let slot: usize = slot.parse().unwrap();
    let of_the_list = slot * 3 / 16_384;
    let victim = (of_the_list + 1) % 3;
    until("all write", async || written.load(Ordering::Relaxed) > 200).await;
    cluster.nodes()[victim].kill();
    // Until a segment of another node was written several times, and read, and a write to the lost node failed.
    let began = Instant::now();
    let mut served = 0;
    while served < 100 || failed.load(Ordering::Relaxed) == 0 {
        assert!(
            began.elapsed() < RECOVERY,
            "the other nodes' segments are not served"
        );
        for name in NAMES {
            let pair = batch([("while away", name, present())]);
            let (segment, window) = (segment(name), frame(60).full_window());
            let count = store.count(&segment, window, Timestamp::now()).await;
            if store.record(&pair).await.is_ok() && count.is_ok() {
                served += 1;
            }
        }
    }
    cluster.nodes()[victim].restart();
    let began = Instant::now();
    for name in NAMES {
        while store
            .record(&batch([("last", name, present())]))
            .await
            .is_err()
        {
            assert!(began.elapsed() < RECOVERY, "{name} does not recover");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    running.store(false, Ordering::Relaxed);
    for writer in writers {
        let (name, acknowledged) = writer.await.unwrap();
        let slots = domain::Slot::new(0)..=present();
        let kept = store.export(&segment(name), slots).await.unwrap();
        let kept: std::collections::HashSet<_> = kept
            .pairs()
            .map(|pair| pair.user.as_str().to_owned())
            .collect();
        for user in &acknowledged {
            assert!(kept.contains(user), "{name} lost an acknowledged pair");
        }
    }
    let listed = store.segments(Timestamp::now()).await.unwrap();
    assert_eq!(listed.len(), NAMES.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_slots_between_nodes_loses_nothing() {
    let Some(mut cluster) = RedisCluster::start().await else {
        return;
    };
    let store = store(&cluster.url(), "hc");
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let running = Arc::new(AtomicBool::new(true));
    let writing = {
        let (store, running) = (Arc::clone(&store), Arc::clone(&running));
        tokio::spawn(async move {
            let mut written = 0_u64;
            let (mut failed, mut number) = (0, 0);
            while running.load(Ordering::Relaxed) {
                let pairs = NAMES.map(|name| (format!("u{number}"), name, present()));
                // A failed batch is sent again, as the spool or a client does.
                match store.record(&batch(pairs)).await {
                    Ok(()) => {
                        written += 1;
                        number += 1;
                    }
                    Err(_) => failed += 1,
                }
            }
            (written, failed)
        })
    };
    let address = format!("127.0.0.1:{}", cluster.nodes()[0].port());
    let ids: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| node.cli(&["CLUSTER", "MYID"]))
        .collect();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let moved = std::process::Command::new("redis-cli")
            .args([
                "--cluster",
                "reshard",
                &address,
                "--cluster-yes",
                "--cluster-slots",
                "5000",
            ])
            .args(["--cluster-from", &ids[from], "--cluster-to", &ids[to]])
            .output()
            .unwrap();
        assert!(
            moved.status.success(),
            "{}",
            String::from_utf8_lossy(&moved.stdout)
        );
    }
    running.store(false, Ordering::Relaxed);
    let (written, failed) = writing.await.unwrap();
    for name in NAMES {
        let counted = users(&store, name).await;
        assert!(
            counted == written || counted == written + 1,
            "{counted} of {written}"
        );
    }
    assert!(
        failed * 20 <= written,
        "{failed} of {written} writes failed"
    );
}
