//! The service and its client commands, as in a first session.

use std::io::Write;

use serde_json::Value;

use crate::support::program::{headcount, output_of, run};
use crate::support::service::Service;

/// Runs a client command against `service`. Returns its exit code and its output.
fn ask(service: &Service, arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = service.url();
    let (code, out, _) = output_of(&mut headcount(folder.path(), &[("url", &url)], arguments));
    (code, out)
}

/// The JSON document that it printed.
fn json(service: &Service, arguments: &[&str]) -> Value {
    let (code, text) = ask(service, &[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{arguments:?}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn loaded_pairs_are_counted_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]).await;
    let file = folder.path().join("pairs.csv");
    let mut csv = std::fs::File::create(&file).unwrap();
    csv.write_all(
        "user_id,segment\nu1,../../etc\nu2,../../etc\nu1,%2F\nu1,🏀 a/b\nu1, \n".as_bytes(),
    )
    .unwrap();
    let loaded = json(&service, &["load", file.to_str().unwrap()]);
    assert_eq!(
        (loaded["accepted"].as_u64(), loaded["rejected"].as_u64()),
        (Some(4), Some(1))
    );
    assert_eq!(
        loaded["rejected_by_code"]["invalid_segment"]["examples"][0]["line"],
        6
    );
    let spec = "pairs=20000,users=300,segments=5";
    assert_eq!(
        json(&service, &["load", "--generate", spec])["accepted"],
        20_000
    );

    let check = |service: &Service| {
        for (segment, users) in [
            ("../../etc", 2),
            ("%2F", 1),
            ("🏀 a/b", 1),
            ("segment-000", 300),
            ("none", 0),
        ] {
            assert_eq!(
                json(service, &["count", segment])["users"],
                users,
                "{segment}"
            );
            assert_eq!(
                json(service, &["count", segment, "--fresh", "--window", "1h"])["users"],
                users
            );
        }
        let listed = json(
            service,
            &[
                "segments", "--prefix", "segment-", "--sort", "users", "--limit", "3",
            ],
        );
        assert_eq!(listed["segments"].as_array().unwrap().len(), 3);
        assert_eq!(
            json(service, &["segments"])["segments"]
                .as_array()
                .unwrap()
                .len(),
            8
        );
    };
    check(&service);
    assert_eq!(ask(&service, &["count", "sports", "--window", "15d"]).0, 1);
    assert!(
        ask(&service, &["count", "%2F"])
            .1
            .starts_with("%2F: 1 user in the last 14d as of ")
    );
    assert!(ask(&service, &["segments"]).1.contains("SEGMENT\n"));
    assert_eq!(
        json(&service, &["refresh", "--segment", "segment-000"])["failed"],
        0
    );
    assert_eq!(json(&service, &["refresh"])["failed"], 0);
    assert_eq!(json(&service, &["archive"])["removed"], 0);

    // The directory and the address are in use.
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    assert_eq!(run(folder.path(), &[], &serve).code, Some(1));
    let elsewhere = tempfile::tempdir().unwrap();
    let taken = service.address().to_string();
    let second = run(elsewhere.path(), &[], &["serve", "--listen", &taken]);
    assert_eq!(second.code, Some(1));
    assert!(second.err.contains("can't listen on"), "{second:?}");

    assert_eq!(service.terminate().await, Some(0));
    let service = Service::start(folder.path(), &[]).await;
    check(&service);
    assert_eq!(service.terminate().await, Some(0));
}

#[test]
fn invalid_settings_prevent_the_start_before_any_file_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, text) = output_of(&mut headcount(
        folder.path(),
        &[],
        &["serve", "--resolution", "7h"],
    ));
    assert_eq!(code, 2);
    assert_eq!(
        text,
        "error: setting `resolution` is \"7h\" (--resolution): give whole seconds from 1s to 1h\n"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
