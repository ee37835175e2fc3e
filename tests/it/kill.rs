//! kill -9 in the middle of a load, many times: every pair that was answered with 200 is counted afterwards.

use std::collections::{HashMap, HashSet};

use tokio::sync::mpsc;

use crate::support::service::Service;

const ROUNDS: usize = 12;
const WRITERS: usize = 4;

/// What clients were told: the users of each segment whose pairs were answered with 200, and those sent
/// without an answer, which may or may not be counted.
#[derive(Default)]
struct Ledger {
    acknowledged: HashMap<String, HashSet<String>>,
    uncertain: HashMap<String, HashSet<String>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_pair_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    let mut random = fastrand::Rng::with_seed(42);
    for round in 0..ROUNDS {
        let mut server = Service::start(directory.path(), &[]).await;
        let (acknowledgement, mut acknowledgements) = mpsc::unbounded_channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let told = acknowledgement.clone();
                tokio::spawn(write_until_refused(server.url(), round, writer, told))
            })
            .collect();
        // After so many answers, with other requests at any point of their way.
        for _ in 0..random.usize(1..60) {
            acknowledgements.recv().await.unwrap();
        }
        server.kill();
        for writer in writers {
            let (acknowledged, uncertain) = writer.await.unwrap();
            for (segment, user) in acknowledged {
                ledger.acknowledged.entry(segment).or_default().insert(user);
            }
            for (segment, user) in uncertain {
                ledger.uncertain.entry(segment).or_default().insert(user);
            }
        }
        let mut server = Service::start(directory.path(), &[]).await;
        for (segment, users) in &ledger.acknowledged {
            let counted = server.count(segment).await;
            let most: HashSet<_> = users
                .union(ledger.uncertain.get(segment).unwrap_or(&HashSet::new()))
                .cloned()
                .collect();
            assert!(
                counted >= users.len() as u64 && counted <= most.len() as u64,
                "round {round}: {segment} counts {counted}, acknowledged {}, sent {}",
                users.len(),
                most.len()
            );
        }
        server.kill();
    }
    let total: usize = ledger.acknowledged.values().map(HashSet::len).sum();
    assert!(
        total > 1_000,
        "the load must have got through: {total} pairs"
    );
}

type Pairs = Vec<(String, String)>;

async fn write_until_refused(
    url: String,
    round: usize,
    writer: usize,
    told: mpsc::UnboundedSender<()>,
) -> (Pairs, Pairs) {
    let client = reqwest::Client::new();
    let (mut acknowledged, mut uncertain) = (Vec::new(), Vec::new());
    for batch in 0.. {
        let pairs: Pairs = (0..100)
            .map(|n| {
                (
                    format!("s{}", n % 7),
                    format!("r{round}w{writer}b{batch}n{n}"),
                )
            })
            .collect();
        let body: String = pairs
            .iter()
            .map(|(segment, user)| {
                format!("{{\"user_id\":\"{user}\",\"segment\":\"{segment}\"}}\n")
            })
            .collect();
        let answer = client
            .post(format!("{url}/v1/pairs"))
            .header("content-type", "application/x-ndjson")
            .body(body)
            .send()
            .await;
        match answer {
            Ok(answer) if answer.status() == 200 => {
                acknowledged.extend(pairs);
                // The test may have seen enough.
                let _ = told.send(());
            }
            Ok(answer) => panic!("unexpected status {}", answer.status()),
            Err(_) => {
                uncertain.extend(pairs);
                break;
            }
        }
    }
    (acknowledged, uncertain)
}
