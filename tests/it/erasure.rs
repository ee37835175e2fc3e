//! An erased user is removed from the disk of every instance and is not delivered from any spool.

use std::path::Path;
use std::time::Duration;

use domain::Timestamp;
use serde_json::{Value, json};
use stores::influx::set_up;

use crate::support::influxd::{Influxd, settings_at};
use crate::support::proxy::Proxy;
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

/// A name that does not occur on a disk by chance.
const GONE: &str = "gone-3f9c1e";

async fn start(directory: &Path, url: &str) -> Service {
    // Long enough for direct writes on a busy machine. A cut connection is detected sooner.
    let settings = settings_at(url, &[("write_deadline", "1m")]);
    Service::start(directory, &settings).await
}

async fn erase(service: &Service, user: &str) -> Value {
    let client = reqwest::Client::new();
    let request = client.delete(format!("{}/v1/users/{user}", service.url()));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

/// The state of a place in the receipt.
fn state<'a>(receipt: &'a Value, place: &str) -> &'a str {
    let places = receipt["places"].as_array().unwrap();
    let found = places.iter().find(|it| it["place"] == place);
    found.map_or("", |it| it["state"].as_str().unwrap())
}

/// Whether any file below `directory` contains this string: the spool, refused lines, logs.
fn is_on_disk(directory: &Path, text: &str) -> bool {
    let has_text = |path: &Path| {
        // The file may have been removed since it was listed.
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|it| it == text.as_bytes())
    };
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => is_on_disk(&path, text),
            false => has_text(&path),
        }
    })
}

fn names(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_not_delivered_from_the_spool_of_another_instance() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    let (near, far) = (
        Proxy::to(server.port()).await,
        Proxy::to(server.port()).await,
    );
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [at_near, at_far] = [near.address(), far.address()].map(|it| format!("http://{it}"));
    let one = start(directories[0].path(), &at_near).await;
    let two = start(directories[1].path(), &at_far).await;
    near.cut();
    far.cut();
    assert_eq!(one.post(&names(&[GONE, "stays"]), "s").await, 202);
    assert_eq!(two.post(&names(&[GONE, "stays too"]), "s").await, 202);
    near.restore();
    one.wait_until_drained().await;
    assert!(is_on_disk(directories[1].path(), GONE));

    let receipt = erase(&one, GONE).await;
    assert_eq!(receipt["erased"], 1, "{receipt}");
    assert_eq!(state(&receipt, "store"), "erased");
    assert_eq!(state(&receipt, "spool"), "erased");
    assert_eq!(state(&receipt, "influxdb_files"), "remains");
    assert_eq!(state(&receipt, "other_instances"), "pending");
    assert_eq!(state(&receipt, "erasure_note"), "remains");
    assert!(!is_on_disk(directories[0].path(), GONE));

    far.restore();
    two.wait_until_drained().await;
    assert_eq!(
        two.fresh_count("s").await,
        2,
        "the erased user is not counted, and no other user is lost"
    );
    assert!(!is_on_disk(directories[1].path(), GONE));
    // The user counts again when seen after the erasure.
    assert_eq!(two.post(&names(&[GONE]), "s").await, 200);
    assert_eq!(one.fresh_count("s").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_removed_from_the_refused_lines_of_each_instance() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let options = server.options("b", two_weeks());
    set_up(&options, false).await.unwrap();
    // Another program wrote integer users for a day, so that InfluxDB refuses the strings of that day.
    let day = Timestamp::now() - Duration::from_hours(3 * 24);
    let foreign = format!("pair,segment=x user=1i {}", day.as_nanosecond());
    assert_eq!(server.write_raw("b", foreign).await, 204);
    let url = server.url();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let refused = json!([
        {"user_id": GONE, "segment": "s", "at": day.to_string()},
        {"user_id": "stays-3f9c1e", "segment": "s", "at": day.to_string()},
    ]);
    let mut running = Vec::new();
    for directory in &directories {
        let service = start(directory.path(), &url).await;
        let client = reqwest::Client::new();
        let post = client.post(format!("{}/v1/pairs", service.url()));
        let response = post.json(&refused).send().await.unwrap();
        assert_eq!(response.status(), 422);
        assert!(is_on_disk(directory.path(), GONE));
        running.push(service);
    }
    // One instance is stopped during the erasure.
    let stopped = running.pop().unwrap();
    assert_eq!(stopped.terminate().await, Some(0));

    let receipt = erase(&running[0], GONE).await;
    assert_eq!(state(&receipt, "refused_pairs"), "erased", "{receipt}");
    assert!(!is_on_disk(directories[0].path(), GONE));
    assert!(is_on_disk(directories[0].path(), "stays-3f9c1e"));

    let _again = start(directories[1].path(), &url).await;
    poll(async || (!is_on_disk(directories[1].path(), GONE)).then_some(())).await;
    assert!(is_on_disk(directories[1].path(), "stays-3f9c1e"));
}
