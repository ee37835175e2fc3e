//! The real program while the system clock jumps back and forth by hours, across restarts.

use std::io::Write;
use std::path::{Path, PathBuf};

use domain::Timestamp;
use serde_json::Value;

use crate::support::faketime::library;
use crate::support::service::{Service, poll};
use crate::support::stderr::print_line;

const HOUR: i64 = 3600;
const WINDOW: i64 = 4 * HOUR;
const STEPS: usize = 60;

/// The system clock as the service sees it through libfaketime.
struct SystemClock {
    library: PathBuf,
    folder: tempfile::TempDir,
    offset: i64,
    /// The latest second that the running process may have seen.
    latest: i64,
}

impl SystemClock {
    /// Returns `None` and prints one line if libfaketime is not installed.
    fn new() -> Option<Self> {
        let library = library()?;
        let folder = tempfile::tempdir().unwrap();
        let mut clock = Self {
            library,
            folder,
            offset: 0,
            latest: 0,
        };
        clock.step(0);
        Some(clock)
    }

    fn now(&self) -> i64 {
        Timestamp::now().as_second() + self.offset
    }

    /// Sets the clock forward or back.
    fn step(&mut self, seconds: i64) {
        self.latest = self.latest.max(self.now());
        self.offset += seconds;
        let (new, path) = (
            self.folder.path().join("new"),
            self.folder.path().join("offset"),
        );
        let mut file = std::fs::File::create(&new).unwrap();
        write!(file, "{:+}", self.offset).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// Resets `latest` for a new process, which knows only the instants of the newest pair and of the last request with pairs.
    fn forget(&mut self, known: i64) {
        self.latest = known;
    }

    /// The latest second that the process may have seen by now.
    fn latest(&self) -> i64 {
        self.latest.max(self.now())
    }

    fn start(&self, data: &Path) -> Service {
        let settings = [("WINDOW", "4h"), ("RESOLUTION", "1s")];
        let offset = self.folder.path().join("offset");
        let variables = [
            ("LD_PRELOAD", self.library.as_os_str()),
            ("FAKETIME_TIMESTAMP_FILE", offset.as_os_str()),
            ("FAKETIME_NO_CACHE", "1".as_ref()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
            ("NO_FAKE_STAT", "1".as_ref()),
        ];
        Service::start_with_env(data, &settings, &variables)
    }
}

fn second(value: &Value) -> i64 {
    let instant: Timestamp = value.as_str().unwrap().parse().unwrap();
    instant.as_second()
}

/// The recorded pairs, and the bounds of the service's clock.
struct Story {
    clock: SystemClock,
    seen: Vec<i64>,
    /// The latest second that the service's clock is known to have reached.
    reached: i64,
    /// The same at the last request with pairs.
    posted: i64,
}

impl Story {
    /// Checks that the count is exact as of its `as_of`, and that `as_of` neither goes back nor exceeds any time that
    /// the system clock showed.
    async fn check(&mut self, server: &Service) {
        let before = self.clock.now();
        let response = server.get("/v1/segments/s/count").await;
        let (as_of, users) = (
            second(&response["as_of"]),
            response["users"].as_u64().unwrap(),
        );
        let due = self.seen.iter();
        let due = due.filter(|at| as_of - WINDOW < **at && **at <= as_of);
        assert_eq!(users, due.count() as u64, "as of {as_of}: {:?}", self.seen);
        assert!(as_of >= self.reached, "the service's clock went back");
        assert!(
            as_of >= before,
            "{as_of} is behind the system clock at {before}"
        );
        assert!(
            as_of <= self.clock.latest(),
            "{as_of} is ahead of every time that the system clock showed"
        );
        let newest = self.seen.iter().max().copied().unwrap_or(0);
        assert!(newest <= as_of, "a pair is newer than the count");
        self.reached = as_of;
    }

    /// Posts a new user, seen now or `ago` seconds ago.
    async fn post(&mut self, server: &Service, ago: Option<i64>) {
        let user = format!("u{}", self.seen.len());
        let at = ago.map_or(String::new(), |ago| {
            format!(", \"at\": {}", self.reached - ago)
        });
        let response = reqwest::Client::new()
            .post(format!("{}/v1/pairs", server.url()))
            .header("content-type", "application/json")
            .body(format!(
                "{{\"user_id\": \"{user}\", \"segment\": \"s\"{at}}}"
            ))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        let response = server.get(&format!("/v1/users/{user}")).await;
        let at = second(&response["segments"][0]["last_seen"]);
        match ago {
            Some(ago) => assert_eq!(at, self.reached - ago),
            None => assert!(
                self.reached <= at && at <= self.clock.latest(),
                "seen at {at}"
            ),
        }
        self.seen.push(at);
        self.posted = self.clock.latest();
    }

    fn note_restart(&mut self) {
        let newest = self.seen.iter().max().copied().unwrap_or(0);
        self.clock.forget(newest.max(self.posted));
        self.reached = newest;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_exact_while_the_clock_steps_by_hours_and_across_restarts() {
    let Some(clock) = SystemClock::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let seed = fastrand::u64(..1_000_000);
    print_line(&format!("clock: seed {seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut story = Story {
        clock,
        seen: Vec::new(),
        reached: 0,
        posted: 0,
    };
    let mut server = story.clock.start(folder.path());
    story.check(&server).await;
    for _ in 0..STEPS {
        match random.u8(..8) {
            0..=2 => story.clock.step(random.i64(-6 * HOUR..6 * HOUR)),
            3 | 4 => story.post(&server, None).await,
            5 => {
                let ago = random.i64(0..3 * HOUR);
                story.post(&server, Some(ago)).await;
            }
            6 => {
                server.kill();
                story.note_restart();
                server = story.clock.start(folder.path());
            }
            _ => {
                assert_eq!(server.terminate().await, Some(0));
                story.note_restart();
                server = story.clock.start(folder.path());
            }
        }
        story.check(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_keeps_all_users_until_it_catches_up() {
    let Some(clock) = SystemClock::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut story = Story {
        clock,
        seen: Vec::new(),
        reached: 0,
        posted: 0,
    };
    let mut server = story.clock.start(folder.path());
    story.check(&server).await;
    story.post(&server, None).await;
    for restart in [false, true] {
        story.clock.step(-3 * HOUR);
        if restart {
            server.kill();
            story.note_restart();
            server = story.clock.start(folder.path());
        }
        story.check(&server).await;
        story.post(&server, None).await;
        story.check(&server).await;
        let users = story.seen.len() as u64;
        assert_eq!(server.count("s").await, users, "no user is lost");
    }
    // The clock is six hours behind. Step it to a minute before the newest pair expires, then past its expiry.
    let newest = story.seen.iter().max().copied().unwrap();
    story.clock.step(newest + WINDOW - 60 - story.clock.now());
    story.check(&server).await;
    assert!(server.count("s").await >= 1);
    story.clock.step(61);
    story.check(&server).await;
    assert_eq!(server.count("s").await, 0, "every user has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_years_ahead_is_reported_by_readyz_log_and_metrics() {
    const YEARS: i64 = 5 * 365 * 24 * HOUR;
    let Some(clock) = SystemClock::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut story = Story {
        clock,
        seen: Vec::new(),
        reached: 0,
        posted: 0,
    };
    let server = story.clock.start(folder.path());
    story.check(&server).await;
    let ready = server.get("/readyz").await;
    assert_eq!(ready["components"]["clock"]["ok"], true, "{ready}");
    assert_eq!(server.terminate().await, Some(0));

    story.clock.step(YEARS);
    let server = story.clock.start(folder.path());
    story.check(&server).await;
    story.post(&server, None).await;
    assert_eq!(server.terminate().await, Some(0));

    story.clock.step(-YEARS);
    let server = story.clock.start(folder.path());
    let ready = server.get("/readyz").await;
    assert_eq!(ready["status"], "degraded", "{ready}");
    let detail = ready["components"]["clock"]["detail"].as_str().unwrap();
    assert!(detail.contains("ahead of the system clock"), "{detail}");
    poll(async || (!server.logged("HeadcountClockAhead").is_empty()).then_some(())).await;
    let errors = server.logged("HeadcountClockAhead");
    assert!(errors[0].contains("ERROR"), "{errors:?}");
    let metrics = server.text("/metrics").await;
    let name = "headcount_clock_ahead_seconds ";
    let ahead = metrics.lines().find_map(|line| line.strip_prefix(name));
    let ahead: f64 = ahead.unwrap().parse().unwrap();
    assert!(ahead > (YEARS - HOUR) as f64, "{ahead}");
    assert_eq!(server.terminate().await, Some(0));
}
