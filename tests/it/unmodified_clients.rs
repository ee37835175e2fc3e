//! Clients of other programs, unmodified: each sends events with its own batches, compression and retry while the service restarts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use http::auth::{self, Scope};
use serde_json::Value;

use crate::support::program::{Run, finish};
use crate::support::servers::{find, find_among, free_port};
use crate::support::service::Service;
use crate::support::tokens::token;

const TOKEN: &str = "hc_0123456789abcdefghijklmnopqrstuvwxyz";

/// The programs of tests/clients, one for each client.
const CLIENTS: [&str; 14] = [
    "cloudevents-node.cjs",
    "influxdb1-node.cjs",
    "influxdb2-node.cjs",
    "influxdb2-python.py",
    "influxdb3-node.cjs",
    "influxdb3-python.py",
    "posthog-node.cjs",
    "posthog-python.py",
    "rudderstack-node.cjs",
    "rudderstack-python.py",
    "segment-legacy-node.cjs",
    "segment-node.cjs",
    "segment-python.py",
    "snowplow-node.cjs",
];

/// The numbers of users in the segments of a client, computed as tests/clients/events.cjs and events.py do.
fn expected() -> [u64; 5] {
    let mut users: [BTreeSet<u64>; 5] = Default::default();
    let mut state: u64 = 1;
    let mut next = || {
        state = state * 48_271 % 2_147_483_647;
        state
    };
    for _ in 0..1000 {
        let user = next() % 300;
        let segment = (next() % 5).min(next() % 5);
        users[usize::try_from(segment).unwrap()].insert(user);
    }
    users.map(|users| users.len() as u64)
}

/// Where the clients are installed; `None` means that the test is to be skipped.
fn installed() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    let mark = find_among("unmodified-clients", "HEADCOUNT_TEST_CLIENTS", &[folder])?;
    Some(mark.parent()?.to_owned())
}

/// Runs a client to its end.
fn run(client: &str, installed: &Path, node: &Path, url: &str) -> Run {
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(client);
    let (name, kind) = client.rsplit_once('.').unwrap();
    let mut command = match kind {
        "cjs" => Command::new(node),
        _ => Command::new(installed.join("python/bin/python")),
    };
    command.arg(program).args([url, TOKEN, name]);
    command.env("NODE_PATH", installed.join("npm/node_modules"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    // Python uses a proxy for loopback addresses too.
    command.env("no_proxy", "*");
    finish(&mut command)
}

async fn users(client: &reqwest::Client, service: &Service, segment: &str) -> Value {
    let url = format!("{}/v1/segments/{segment}/count", service.url());
    let request = client.get(url).bearer_auth(TOKEN);
    let count: Value = request.send().await.unwrap().json().await.unwrap();
    count["users"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_counts_exactly_although_the_service_restarts() {
    let (Some(installed), Some(node)) = (installed(), find("node", "HEADCOUNT_TEST_NODE")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    let scopes = [Scope::Write, Scope::Read];
    auth::edit(&tokens, |file| file.add(token("client", TOKEN, &scopes))).unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let settings = [("tokens_file", tokens.to_str().unwrap())];
    let start = || Service::launch(folder.path(), &settings, &["--listen", &listen]);
    let mut service = start();
    let url = format!("http://{listen}");
    let clients = CLIENTS.map(|client| {
        let (installed, node, url) = (installed.clone(), node.clone(), url.clone());
        tokio::task::spawn_blocking(move || run(client, &installed, &node, &url))
    });
    // The clients send for four seconds and more.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(service.terminate().await, Some(0));
    service = start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    service.kill();
    service = start();
    let http = reqwest::Client::new();
    for (client, running) in CLIENTS.into_iter().zip(clients) {
        let run = running.await.unwrap();
        assert_eq!(run.code, Some(0), "{client}: {run:?}");
        let name = client.rsplit_once('.').unwrap().0;
        for (segment, expected) in expected().into_iter().enumerate() {
            let counted = users(&http, &service, &format!("{name}-{segment}")).await;
            assert_eq!(counted, expected, "{client}: segment {segment}");
        }
    }
}
