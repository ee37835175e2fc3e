//! Erasing users from a real InfluxDB: the remaining points have neither a name nor an instant that identifies a user.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::time::Duration;

use domain::store::PairStore;
use domain::store::conformance::{HOSTILE_NAMES, batch};
use domain::{FingerprintKey, Segment, Slot, Timestamp, UserId};
use siphasher::sip::SipHasher13;
use stores::influx::{InfluxOptions, InfluxStore, set_up};

use crate::support::fault_server::{FaultServer, Reply};
use crate::support::influxd::Influxd;
use crate::support::two_weeks;

fn back(minutes: u64) -> Slot {
    let present = two_weeks().resolution().slot_of(Timestamp::now());
    Slot::new(present.number() - minutes)
}

/// All points of the measurement `pair`, by time and value.
async fn points(server: &Influxd) -> BTreeSet<(String, String)> {
    let query = "from(bucket: \"b\") |> range(start: -16d, stop: 2d) |> filter(fn: (r) => r._measurement == \
                 \"pair\") |> group() |> keep(columns: [\"_time\", \"_value\"])";
    let rows = server.flux(query).await;
    let cells = rows.into_iter().map(|row| {
        let [.., time, value] = &row[..] else {
            panic!("{row:?}");
        };
        (time.clone(), value.clone())
    });
    cells.collect()
}

/// The time of a user's point in version 0.1.0: an unkeyed hash.
fn former_nanos(user: &str, slot: Slot) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(user.as_bytes());
    slot.number() * 60_000_000_000 + hasher.finish() % 60_000_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_leaves_no_point() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    let made = set_up(&options, true).await.unwrap();
    // Use the permissions of the service's own token.
    let store = InfluxStore::open(InfluxOptions {
        token: made.tokens[0].token.clone(),
        ..options
    });
    let store = store.unwrap();
    // Fix the present slot, because a minute may end during the test.
    let now = back(0);
    let back = |minutes: u64| Slot::new(now.number() - minutes);
    let mut stays: Vec<(&str, &str, Slot)> = HOSTILE_NAMES
        .iter()
        .flat_map(|name| [("stays", *name, back(0)), ("stays", *name, back(700))])
        .collect();
    stays.push(("stays", "s", back(20)));
    store.record(&batch(stays.clone())).await.unwrap();
    let others = points(&server).await;
    assert_eq!(others.len(), 3, "one user at three instants");

    let gone = stays
        .iter()
        .map(|(_, segment, slot)| ("gone", *segment, *slot));
    store.record(&batch(gone)).await.unwrap();
    // Add a point of a former version, with neighbours a nanosecond away.
    let nanos = former_nanos("gone", back(3 * 24 * 60));
    let lines = format!(
        "pair,segment=s user=\"gone\" {nanos}\npair,segment=s user=\"before\" {}\npair,segment=s user=\"after\" {}\n\
         pair,segment=t user=\"beside\" {nanos}",
        nanos - 1,
        nanos + 1
    );
    assert_eq!(server.write_raw("b", lines).await, 204);
    let before = points(&server).await;
    let user = UserId::new("gone").unwrap();
    let erased = store.forget(&user, Timestamp::now()).await.unwrap();
    assert_eq!(erased, HOSTILE_NAMES.len() as u64 + 1);

    let after = points(&server).await;
    let lost: BTreeSet<_> = before
        .difference(&after)
        .map(|(_, user)| user.clone())
        .collect();
    assert_eq!(lost, BTreeSet::from(["gone".to_owned()]), "no other user");
    assert_eq!(
        after.len(),
        others.len() + 3,
        "no sentinel and no other trace: {after:?}"
    );
    // No `erased` point, so that counts stay as cheap.
    let marks = "from(bucket: \"b\") |> range(start: -16d, stop: 2d) |> filter(fn: (r) => r._measurement == \"erased\")";
    assert_eq!(server.flux(marks).await.len(), 0);
    for name in HOSTILE_NAMES {
        let counted = store
            .count(
                &Segment::new(name).unwrap(),
                two_weeks().full_window(),
                Timestamp::now(),
            )
            .await;
        assert_eq!(counted.unwrap().users, 1, "{name}");
    }
    assert_eq!(store.forget(&user, Timestamp::now()).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn points_of_an_erased_user_are_anonymized_at_once_and_removed_by_archive() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    let store = InfluxStore::open(InfluxOptions {
        // Too short to delete all points.
        delete_deadline: Duration::from_millis(1),
        ..options.clone()
    });
    let store = store.unwrap();
    let pairs = (0..80).flat_map(|n| [("gone", "s", back(n * 90)), ("stays", "s", back(n * 90))]);
    store.record(&batch(pairs)).await.unwrap();
    let user = UserId::new("gone").unwrap();
    assert_eq!(store.forget(&user, Timestamp::now()).await.unwrap(), 1);
    let left = points(&server).await;
    assert!(left.iter().all(|(_, name)| name != "gone"), "{left:?}");
    assert!(left.len() > 80, "the deadline left some points for archive");
    let counted = store
        .count(
            &Segment::new("s").unwrap(),
            two_weeks().full_window(),
            Timestamp::now(),
        )
        .await;
    assert_eq!(counted.unwrap().users, 1);

    let store = InfluxStore::open(options).unwrap();
    let mut removed = 0;
    loop {
        let step = store.archive(Timestamp::now(), 20).await.unwrap();
        removed += step.removed;
        if step.done {
            break;
        }
    }
    assert_eq!(removed, left.len() as u64 - 80);
    let left = points(&server).await;
    assert_eq!(left.len(), 80);
    assert!(left.iter().all(|(_, name)| name == "stays"), "{left:?}");
}

/// The server, or a proxy in front of it, does not delete.
#[tokio::test]
async fn points_that_can_not_be_deleted_are_overwritten() {
    for delete in [
        Reply::status(403, "", ""),
        Reply::status(404, "", ""),
        // Reports success without deleting.
        Reply::written(),
    ] {
        let server = FaultServer::start(move |_, request| {
            let at = "2026-11-28T10:00:00.000000007Z";
            let row = format!(
                "#datatype,string,long,string,dateTime:RFC3339\r\n,result,table,segment,_time\r\n,_result,0,s,{at}\r\n\r\n"
            );
            match request.target.split('?').next().unwrap() {
                "/query" => Reply::status(200, "", r#"{"results":[{"statement_id":0}]}"#),
                "/api/v2/query" => Reply::csv(&row),
                "/api/v2/delete" => delete.clone(),
                _ => Reply::written(),
            }
        })
        .await;
        let store = InfluxStore::open(InfluxOptions {
            key: Some(FingerprintKey::new([7; 16])),
            ..InfluxOptions::new(&server.url(), "o", "b", "token", two_weeks())
        });
        let as_of: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let user = UserId::new("gone").unwrap();
        assert_eq!(store.unwrap().forget(&user, as_of).await.unwrap(), 1);
        let requests = server.requests();
        let written: Vec<&str> = requests
            .iter()
            .filter(|request| request.target.starts_with("/api/v2/write"))
            .map(|request| request.text())
            .collect();
        let nanos = "1795860000000000007";
        assert_eq!(
            written,
            [
                "erased,segment=s points=1i 1795860000000000000\n".to_owned(),
                format!("pair,segment=s user=\"\u{1}erased\" {nanos}\n"),
            ]
        );
    }
}
