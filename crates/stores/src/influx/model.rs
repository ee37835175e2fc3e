//! Tests of delivery against a model of the server, which shows every observed kind of server behaviour in any order.
//! Tokio's time is paused: it advances only when all tasks are idle.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::deliver::{Delivery, Wire};
use super::error::{Error, ErrorResponse};
use super::lines::{Lines, line_ranges, timestamp};
use super::options::InfluxOptions;
use super::stats::Counters;
use super::writer::Writer;
use domain::store::StoreError;

const DAY: i64 = 86_400;
/// The time of the lines of day 0, in seconds since 1970. A line of day n is n days older.
const NOW: i64 = 1_800_000_000;

/// How the server handles a write, apart from judging its lines.
#[derive(Debug, Clone)]
enum Behaviour {
    /// It responds after this many milliseconds.
    Takes(u64),
    /// It responds with this status and this `Retry-After` in seconds, and writes nothing.
    Responds(u16, Option<u64>),
    /// It writes the lines, and the response is lost.
    TakesAndStalls,
    /// It writes nothing and does not respond.
    Stalls,
}

/// The lines that the server never accepts.
#[derive(Debug, Clone, Default)]
struct Rules {
    /// A body with one of these users is refused as a whole, like a body with a malformed line.
    malformed: BTreeSet<usize>,
    /// Days in which the field has a conflicting type.
    spoilt: BTreeSet<i64>,
    /// A body with one of these users gets status 500.
    poison: BTreeSet<usize>,
}

#[derive(Debug)]
struct Model {
    rules: Rules,
    behaviours: Mutex<Vec<Behaviour>>,
    taken: Mutex<BTreeSet<usize>>,
    sent: Mutex<HashMap<usize, usize>>,
}

fn line(user: usize, day: i64) -> String {
    let second = NOW - day * DAY;
    format!("pair,segment=s user=\"u{user}\" {second}{user:09}\n")
}

/// The user and the day of each line.
fn read(body: &[u8]) -> Vec<(usize, i64)> {
    let lines = line_ranges(body).map(|range| &body[range]);
    lines
        .map(|line| {
            let nanos = timestamp(line).unwrap();
            let user = usize::try_from(nanos % 1_000_000_000).unwrap();
            (user, (NOW - nanos / 1_000_000_000) / DAY)
        })
        .collect()
}

fn status(status: u16, message: &str, retry_after: Option<u64>) -> Error {
    Error::Status(Box::new(ErrorResponse {
        status,
        message: message.to_owned(),
        retry_after: retry_after.map(Duration::from_secs),
        ..ErrorResponse::default()
    }))
}

impl Model {
    fn new(rules: Rules, behaviours: Vec<Behaviour>) -> Arc<Self> {
        Arc::new(Self {
            rules,
            behaviours: Mutex::new(behaviours),
            taken: Mutex::default(),
            sent: Mutex::default(),
        })
    }

    /// Whether the server ever accepts this line.
    fn takes(&self, user: usize, day: i64) -> bool {
        let rules = &self.rules;
        !rules.malformed.contains(&user)
            && !rules.spoilt.contains(&day)
            && !rules.poison.contains(&user)
    }

    /// Judges lines like InfluxDB 2.9.1: first each line before anything is written, then each shard. The response names
    /// the first shard that fails, whatever happened to the others.
    fn judge(&self, lines: &[(usize, i64)]) -> Result<(), Error> {
        let has = |users: &BTreeSet<usize>| lines.iter().any(|(user, _)| users.contains(user));
        if has(&self.rules.malformed) {
            return Err(status(400, "unable to parse", None));
        }
        if has(&self.rules.poison) {
            return Err(status(500, "unexpected error", None));
        }
        let is_spoilt = |day: &i64| self.rules.spoilt.contains(day);
        let spoilt = lines.iter().find(|(_, day)| is_spoilt(day));
        let Some((_, bad)) = spoilt else {
            self.taken
                .lock()
                .extend(lines.iter().map(|(user, _)| *user));
            return Ok(());
        };
        // The server may have written some of the other shards: here those of earlier days.
        let others = lines.iter().filter(|(_, day)| day > bad && !is_spoilt(day));
        self.taken.lock().extend(others.map(|(user, _)| *user));
        let dropped = lines.iter().filter(|(_, day)| day == bad).count();
        let message = format!("partial write: field type conflict: x dropped={dropped}");
        Err(status(422, &message, None))
    }
}

#[async_trait]
impl Wire for Model {
    async fn write(&self, _bucket: &str, body: Bytes, within: Duration) -> Result<(), Error> {
        let lines = read(&body);
        for (user, _) in &lines {
            *self.sent.lock().entry(*user).or_default() += 1;
        }
        let behaviour = self.behaviours.lock().pop().unwrap_or(Behaviour::Takes(20));
        let result = async {
            match behaviour {
                Behaviour::Takes(millis) => {
                    sleep(Duration::from_millis(millis)).await;
                    self.judge(&lines)
                }
                Behaviour::Responds(code, retry_after) => Err(status(code, "", retry_after)),
                Behaviour::TakesAndStalls => {
                    drop(self.judge(&lines));
                    std::future::pending().await
                }
                Behaviour::Stalls => std::future::pending().await,
            }
        };
        let result = tokio::time::timeout(within, result).await;
        result.unwrap_or(Err(Error::TimedOut(within)))
    }
}

fn writer(model: &Arc<Model>) -> Writer {
    writer_of(model, InfluxOptions::for_tests())
}

fn writer_of(model: &Arc<Model>, options: InfluxOptions) -> Writer {
    let wire = Arc::clone(model) as Arc<dyn Wire>;
    let delivery = Delivery::new(wire, &options, Arc::new(Counters::default()));
    Writer::start(Arc::new(delivery), &options)
}

fn body(lines: &[(usize, i64)]) -> Lines {
    let mut body = Lines::default();
    for (user, day) in lines {
        body.push(|text| std::io::Write::write_all(text, line(*user, *day).as_bytes()));
    }
    body
}

/// Retries a request like the spool, until no line is open. Returns the refused users.
async fn settle(writer: &Writer, lines: Vec<(usize, i64)>, rounds: usize) -> BTreeSet<usize> {
    let mut open = lines;
    let mut refused = BTreeSet::new();
    for _ in 0..rounds {
        match writer.write(vec![body(&open)]).await {
            Ok(()) => return refused,
            Err(StoreError::Partly(partly)) => {
                refused.extend(partly.refused.iter().map(|place| open[*place].0));
                open = partly.open.iter().map(|place| open[*place]).collect();
                if open.is_empty() {
                    return refused;
                }
            }
            Err(error) => {
                assert_ne!(error.name(), "rejected", "no request is refused as a whole");
                sleep(Duration::from_secs(5)).await;
            }
        }
    }
    refused
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        4 => (0u64..9_000).prop_map(Behaviour::Takes),
        2 => (prop::sample::select(vec![408, 429, 500, 503]), prop::option::of(prop_oneof![0u64..40, Just(u64::MAX)]))
            .prop_map(|(status, after)| Behaviour::Responds(status, after)),
        1 => Just(Behaviour::TakesAndStalls),
        1 => Just(Behaviour::Stalls),
    ]
}

fn requests() -> impl Strategy<Value = Vec<Vec<i64>>> {
    prop::collection::vec(prop::collection::vec(0i64..14, 1..40), 1..12)
}

fn run(future: impl Future<Output = Result<(), TestCaseError>>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Numbers the users of all requests.
fn numbered(requests: Vec<Vec<i64>>) -> Vec<Vec<(usize, i64)>> {
    let mut user = 0;
    let mut number = |day| {
        user += 1;
        (user, day)
    };
    requests
        .into_iter()
        .map(|days| days.into_iter().map(&mut number).collect())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Under any server behaviour and any rules: at the end the server has every line that it accepts, exactly the lines
    /// that it refuses are named, and the result of each request names only lines of that request.
    #[test]
    fn every_line_is_taken_or_named(
        requests in requests(),
        malformed in prop::collection::btree_set(1usize..200, 0..20),
        spoilt in prop::collection::btree_set(0i64..14, 0..4),
        behaviours in prop::collection::vec(behaviour(), 0..12),
    ) {
        let rules = Rules { malformed, spoilt, ..Rules::default() };
        run(async move {
            let model = Model::new(rules, behaviours);
            let writer = writer(&model);
            let requests = numbered(requests);
            let settled = requests.iter().map(|lines| settle(&writer, lines.clone(), 60));
            let refused = join_all(settled).await;
            for (lines, refused) in requests.iter().zip(refused) {
                for (user, day) in lines {
                    prop_assert_eq!(model.taken.lock().contains(user), model.takes(*user, *day), "u{} of day {}", user, day);
                    prop_assert_eq!(refused.contains(user), !model.takes(*user, *day), "u{} of day {}", user, day);
                }
            }
            prop_assert_eq!(writer.waiting(), 0);
            Ok(())
        })?;
    }

    /// Requests without a bad line succeed in one call and quickly, whatever lines share their body.
    #[test]
    fn nobody_pays_for_the_lines_of_others(
        good in prop::collection::vec(prop::collection::vec(0i64..14, 1..40), 1..20),
        bad in prop::collection::vec(0i64..14, 1..400),
        share in 1usize..4,
    ) {
        let mut requests = good;
        requests.push(bad);
        let requests = numbered(requests);
        let malformed = requests.last().unwrap().iter().step_by(share).map(|(user, _)| *user).collect();
        run(async move {
            let model = Model::new(Rules { malformed, ..Rules::default() }, Vec::new());
            let writer = writer(&model);
            let began = Instant::now();
            let (bad, good) = requests.split_last().unwrap();
            let good = join_all(good.iter().map(|lines| async {
                let result = writer.write(vec![body(lines)]).await;
                (result, began.elapsed())
            }));
            let (good, bad) = tokio::join!(good, writer.write(vec![body(bad)]));
            for (result, took) in good {
                prop_assert!(result.is_ok(), "{result:?}");
                prop_assert!(took < Duration::from_secs(1), "{took:?}");
            }
            prop_assert!(matches!(bad, Err(StoreError::Partly(_)) | Err(StoreError::Timeout(_))));
            Ok(())
        })?;
    }

    /// A server that needs up to 9 s per write gets each line at most three times, although clients wait 6 s and the spool
    /// then sends the lines again.
    #[test]
    fn slow_is_not_dead(millis in prop::collection::vec(100u64..9_000, 400), requests in requests()) {
        run(async move {
            let behaviours = millis.into_iter().map(Behaviour::Takes).collect();
            let model = Model::new(Rules::default(), behaviours);
            let writer = writer(&model);
            let requests = numbered(requests);
            let each = requests.iter().map(|lines| async {
                let client = tokio::time::timeout(Duration::from_secs(6), writer.write(vec![body(lines)]));
                if client.await.is_err() {
                    assert!(settle(&writer, lines.clone(), 1).await.is_empty());
                }
            });
            join_all(each).await;
            for (user, _) in requests.iter().flatten() {
                prop_assert!(model.taken.lock().contains(user));
                prop_assert!(model.sent.lock()[user] <= 3, "sent {} times", model.sent.lock()[user]);
            }
            Ok(())
        })?;
    }
}

/// 5,000 lines over 14 days; one day has a conflicting field type.
#[tokio::test(start_paused = true)]
async fn a_spoilt_day_costs_a_few_writes_and_nobody_elses_pairs() {
    let spoilt = BTreeSet::from([5]);
    let model = Model::new(
        Rules {
            spoilt,
            ..Rules::default()
        },
        Vec::new(),
    );
    let writer = writer(&model);
    let many: Vec<_> = (0..5_000)
        .map(|user| (user, i64::try_from(user % 14).unwrap()))
        .collect();
    let result = writer.write(vec![body(&many)]).await;
    let Err(StoreError::Partly(partly)) = result else {
        panic!("{result:?}");
    };
    let refused: Vec<usize> = (0..5_000).filter(|user| user % 14 == 5).collect();
    assert_eq!(partly.refused, refused);
    assert!(partly.open.is_empty());
    assert_eq!(model.taken.lock().len(), 5_000 - refused.len());
    assert!(
        model.sent.lock().values().all(|sent| *sent <= 2),
        "once in all, once by day"
    );
}

/// A server that needs longer for a write than the initial timeout, and longer than a client waits.
#[tokio::test(start_paused = true)]
async fn a_time_out_grows_until_the_server_has_time_enough() {
    let behaviours = vec![Behaviour::Takes(21_000); 40];
    let model = Model::new(Rules::default(), behaviours);
    let writer = writer(&model);
    let lines: Vec<_> = (0..10).map(|user| (user, 0)).collect();
    let refused = settle(&writer, lines, 5).await;
    assert!(refused.is_empty());
    assert_eq!(model.taken.lock().len(), 10);
    assert!(model.sent.lock().values().all(|sent| *sent <= 3));
    assert!(writer.batch_lines() < 5_000, "bodies are smaller");
}

/// With one write at a time, writes that settle other requests still get a permit.
#[tokio::test(start_paused = true)]
async fn one_write_at_a_time_is_enough() {
    let malformed = BTreeSet::from([2]);
    let rules = Rules {
        malformed,
        ..Rules::default()
    };
    let model = Model::new(rules, Vec::new());
    let options = InfluxOptions {
        writes_in_flight: 1,
        ..InfluxOptions::for_tests()
    };
    let writer = writer_of(&model, options);
    let (first, bad, last) = tokio::join!(
        writer.write(vec![body(&[(1, 0)])]),
        writer.write(vec![body(&[(2, 0)])]),
        writer.write(vec![body(&[(3, 0)])]),
    );
    first.unwrap();
    last.unwrap();
    assert_eq!(bad.unwrap_err().name(), "partly");
}

/// A line that always gets status 500 leaves only its own request undecided.
#[tokio::test(start_paused = true)]
async fn a_poisonous_line_is_never_called_refused() {
    let poison = BTreeSet::from([3]);
    let model = Model::new(
        Rules {
            poison,
            ..Rules::default()
        },
        Vec::new(),
    );
    let writer = writer(&model);
    let error = writer
        .write(vec![body(&[(2, 0), (3, 0)])])
        .await
        .unwrap_err();
    assert_eq!(error.name(), "unavailable");
    writer.write(vec![body(&[(4, 0)])]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_kept_by_everybody_and_passed_on() {
    let model = Model::new(Rules::default(), vec![Behaviour::Responds(429, Some(30))]);
    let writer = writer(&model);
    let throttled = |error: StoreError| match error {
        StoreError::Throttled { retry_after, .. } => retry_after,
        other => panic!("{other}"),
    };
    let first = writer.write(vec![body(&[(0, 0)])]).await.unwrap_err();
    assert_eq!(throttled(first), Duration::from_secs(30));
    sleep(Duration::from_secs(10)).await;
    for user in 1..100 {
        let error = writer.write(vec![body(&[(user, 0)])]).await.unwrap_err();
        assert_eq!(throttled(error), Duration::from_secs(20));
    }
    assert_eq!(
        model.sent.lock().len(),
        1,
        "nothing is sent during the pause"
    );
    sleep(Duration::from_secs(18)).await;
    // The rest of the pause is shorter than a client waits.
    writer.write(vec![body(&[(1, 0)])]).await.unwrap();
}
