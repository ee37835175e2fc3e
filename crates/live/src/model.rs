//! Two services, two replicas that publish, and everything that can happen to them, against a ledger of answers.
//!
//! At each step a published count has every user whose pair was answered with 200 before its instant, and perhaps some of those
//! that came since or were answered with 202, and nobody else. A merged user counts as the other one from the answer on. `HEADCOUNT_TEST_LIVE_SEEDS` sets the number of random courses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::publisher::{Publisher, PublisherParts, Role};
use crate::replica::Replica;
use crate::testing::{Bench, Erasing, SEGMENTS, frozen, pause};
use crate::view::View;
use crate::writer::{Delivery, FeedWriter};
use domain::feed::{Append, ChangeFeed, WriterId};
use domain::published::PublishedCounts;
use domain::store::conformance::frame;
use domain::{Clock, Segment, Timestamp, UserId, Window};
use supervisor::Supervisor;
use tokio::sync::watch;

const USERS: u64 = 60;

/// A pair that was sent.
#[derive(Debug)]
struct Sent {
    /// The user as whom it counts.
    user: u64,
    /// The users as whom it counted, until when by the clock of the feed. Without an end, the merge is under way.
    former: Vec<(u64, Option<Timestamp>)>,
    segment: &'static str,
    /// When it was answered with 200, by the clock of the feed.
    answered: Option<Timestamp>,
    /// When its user was erased afterwards, the same way. From the beginning of the erasure the pair may be gone.
    erased: Option<Timestamp>,
    may_be_erased: bool,
}

struct Service {
    writer: FeedWriter,
    supervisor: Supervisor,
    directory: &'static str,
    has_erased: bool,
}

struct Process {
    replica: Arc<Replica>,
    publisher: Publisher,
    supervisor: Supervisor,
    directory: String,
}

struct Site {
    bench: Bench,
    services: Vec<Service>,
    processes: Vec<Process>,
    view: Arc<View>,
    reader: Supervisor,
    sent: Vec<Sent>,
    /// The users who were merged, and into whom.
    became: BTreeMap<u64, u64>,
    /// Records that a service sent before.
    records: Vec<Vec<u8>>,
    /// Whether a service that has erased somebody has ended. If it did not tell a feed that was emptied since, only the replicas know
    /// of the erasure, so a new one may count the user until its audit.
    are_erasures_lost: bool,
    /// Whether the feed has lost entries that services may not have appended again. They have three seconds to do that.
    may_resend: bool,
    checked: u64,
}

impl Sent {
    /// The users as whom a count as of then may have it.
    fn users(&self, as_of: Timestamp) -> BTreeSet<u64> {
        let former = self.former.iter();
        let former = former.filter(|(_, until)| until.is_none_or(|until| until >= as_of));
        let former = former.map(|(user, _)| *user);
        former.chain([self.user]).collect()
    }
}

/// Sets of users, joined where they have a user in common: there is one user of each at least.
fn groups(sets: impl Iterator<Item = BTreeSet<u64>>) -> Vec<BTreeSet<u64>> {
    let mut groups: Vec<BTreeSet<u64>> = Vec::new();
    for mut set in sets {
        let (same, others) = groups.into_iter().partition(|it| !it.is_disjoint(&set));
        groups = others;
        let same: Vec<BTreeSet<u64>> = same;
        set.extend(same.into_iter().flatten());
        groups.push(set);
    }
    groups
}

fn supervisor() -> Supervisor {
    Supervisor::new(Arc::new(|_, _| ()))
}

fn full() -> Window {
    frame(60).full_window()
}

impl Service {
    fn start(bench: &Bench, directory: &'static str) -> Self {
        let supervisor = supervisor();
        Self {
            writer: bench.writer(Some(directory), &supervisor),
            supervisor,
            directory,
            has_erased: false,
        }
    }
}

impl Process {
    fn start(bench: &Bench, directory: String) -> Self {
        let supervisor = supervisor();
        let replica = bench.replica(&directory, &supervisor);
        let parts = PublisherParts {
            replica: Arc::clone(&replica),
            published: Arc::clone(&bench.published) as Arc<dyn PublishedCounts>,
            windows: vec![full(), frame(60).window(Duration::from_mins(7)).unwrap()],
            own_windows: watch::Sender::default().subscribe(),
            address: directory.clone(),
        };
        Self {
            publisher: Publisher::start(parts, &supervisor),
            replica,
            supervisor,
            directory,
        }
    }

    async fn end(&self) {
        frozen(self.supervisor.end()).await;
        frozen(self.replica.close()).await.unwrap();
    }
}

impl Site {
    async fn start() -> Self {
        let bench = Bench::new();
        let reader = supervisor();
        let published = Arc::clone(&bench.published) as Arc<dyn PublishedCounts>;
        Self {
            services: ["first", "second"]
                .map(|it| Service::start(&bench, it))
                .into(),
            processes: ["a", "b"]
                .map(|it| Process::start(&bench, it.to_owned()))
                .into(),
            view: View::start(published, full(), &reader),
            reader,
            bench,
            sent: Vec::new(),
            became: BTreeMap::new(),
            records: Vec::new(),
            are_erasures_lost: false,
            may_resend: false,
            checked: 0,
        }
    }

    /// Lets time pass, by all clocks.
    async fn pass(&mut self, times: u32) {
        for _ in 0..times {
            let step = Duration::from_millis(25);
            self.bench.pass(step);
            pause().await;
            self.check();
        }
    }

    /// The time by the clock of the feed, which may be unavailable.
    async fn now(&self) -> Option<Timestamp> {
        self.bench.sources().feed_now().await.ok()
    }

    async fn write(&mut self, service: usize, users: &[u64], segment: &'static str, ago: u64) {
        let first = self.sent.len();
        let users: Vec<u64> = users.iter().map(|user| self.current(*user)).collect();
        for &user in &users {
            self.sent.push(Sent {
                user,
                former: Vec::new(),
                segment,
                answered: None,
                erased: None,
                may_be_erased: false,
            });
        }
        let batch = self.bench.batch(users.iter().copied(), segment, ago);
        let at = self.bench.clock.now();
        self.records
            .extend(state::received(&batch, self.bench.key, at));
        let writer = &self.services[service].writer;
        let delivery = frozen(self.bench.record_with(writer, &batch)).await;
        if delivery == Delivery::InFeed {
            let now = self.now().await;
            for sent in &mut self.sent[first..] {
                sent.answered = now;
            }
        }
    }

    fn current(&self, user: u64) -> u64 {
        let mut user = user;
        while let Some(into) = self.became.get(&user) {
            user = *into;
        }
        user
    }

    /// Merges a user into another one as an instance does: the pairs are recorded for the other one, then erased.
    async fn merge(&mut self, service: usize, from: u64, into: u64) {
        if from == into {
            return;
        }
        self.became.remove(&from);
        if self.current(into) == from {
            self.became.remove(&into);
        }
        self.became.insert(from, into);
        let into = self.current(into);
        let numbers = (0..self.sent.len()).filter(|number| self.sent[*number].user == from);
        let moved: Vec<usize> = numbers.collect();
        for &number in &moved {
            self.sent[number].former.push((from, None));
            self.sent[number].user = into;
        }
        self.services[service].has_erased = true;
        let writer = &self.services[service].writer;
        let (batch, at) = (self.bench.moved(from, into).await, self.bench.clock.now());
        if !batch.is_empty() {
            self.records
                .extend(state::received(&batch, self.bench.key, at));
            let delivery = frozen(self.bench.record_with(writer, &batch)).await;
            if delivery == Delivery::Owed {
                for &number in &moved {
                    self.sent[number].answered = None;
                }
            }
        }
        self.bench.erase_from(writer, Erasing::User(from)).await;
        let now = self.now().await;
        for &number in &moved {
            for (_, until) in &mut self.sent[number].former {
                *until = until.or(now);
            }
        }
    }

    async fn erase(&mut self, service: usize, erasing: Erasing) {
        let is_erased = |sent: &&mut Sent| erasing.removes(sent.segment, sent.user);
        for sent in self.sent.iter_mut().filter(is_erased) {
            sent.may_be_erased = true;
        }
        self.services[service].has_erased = true;
        let writer = &self.services[service].writer;
        self.bench.erase_from(writer, erasing).await;
        let now = self.now().await;
        for sent in self.sent.iter_mut().filter(is_erased) {
            sent.erased = sent.erased.or(now);
        }
    }

    /// Checks the published counts.
    fn check(&mut self) {
        for name in SEGMENTS {
            let segment = Segment::new(name).unwrap();
            let Some(count) = self.view.count(&segment, full()) else {
                continue;
            };
            let as_of = count.as_of;
            let of_segment = || self.sent.iter().filter(|sent| sent.segment == name);
            let is_due =
                |sent: &&Sent| sent.answered.is_some_and(|at| at < as_of) && !sent.may_be_erased;
            let is_possible = |sent: &&Sent| sent.erased.is_none_or(|erased| erased >= as_of);
            let due: Vec<_> = of_segment().filter(is_due).collect();
            let due = groups(due.into_iter().map(|sent| sent.users(as_of)));
            let possible = of_segment().filter(is_possible);
            let possible: BTreeSet<_> = possible.flat_map(|sent| sent.users(as_of)).collect();
            let range = due.len() as u64..=possible.len() as u64;
            assert!(
                range.contains(&count.users),
                "{name} has {} users as of {as_of}: {due:?} are due, {possible:?} possible; the replicas have {:?}",
                count.users,
                (
                    self.held(name),
                    self.processes
                        .iter()
                        .map(|it| it.replica.status())
                        .collect::<Vec<_>>()
                )
            );
            self.checked += 1;
        }
    }

    /// The users that each replica has in a segment, and the instant of its counts.
    fn held(&self, name: &str) -> Vec<(Option<Timestamp>, Option<Vec<u64>>)> {
        let has = |process: &Process, user: u64| {
            let user = UserId::new(format!("u{user}")).unwrap();
            let memberships = process.replica.memberships(&user)?;
            Some(memberships.iter().any(|it| it.segment.as_str() == name))
        };
        let held = self.processes.iter().map(|process| {
            let all: Option<Vec<_>> = (0..USERS)
                .map(|user| Some((user, has(process, user)?)))
                .collect();
            let users = all.map(|all| all.into_iter().filter(|it| it.1).map(|it| it.0).collect());
            (process.replica.as_of(), users)
        });
        held.collect()
    }

    /// Waits until the published counts are those of the store.
    async fn expect_exact(&mut self) {
        let mut last = None;
        for _ in 0..3_000 {
            self.pass(1).await;
            let owed: u64 = self.services.iter().map(|it| it.writer.status().owed).sum();
            let (Some(list), Some(tick)) = (self.view.list(full()), self.view.tick()) else {
                continue;
            };
            let found = crate::testing::numbers(&list);
            let truth = self.bench.truth(full(), tick.as_of).await;
            if owed == 0 && found == truth {
                self.may_resend = false;
                return;
            }
            last = Some((found, truth, owed));
        }
        let status = self.processes.iter().map(|it| it.replica.status());
        panic!("{last:?}, {:?}", status.collect::<Vec<_>>());
    }

    async fn end(self) {
        for service in &self.services {
            frozen(service.supervisor.end()).await;
        }
        for process in &self.processes {
            process.end().await;
        }
        frozen(self.reader.end()).await;
    }

    /// Restarts a service, as after a crash. What the feed lost before, this service sends no more, so the replicas must have it.
    async fn restart_service(&mut self, number: usize) {
        self.expect_exact().await;
        let service = &self.services[number];
        self.are_erasures_lost |= service.has_erased;
        frozen(service.supervisor.end()).await;
        self.services[number] = Service::start(&self.bench, service.directory);
    }

    async fn restart_process(&mut self, number: usize, loses_disk: bool) {
        self.processes[number].end().await;
        let mut directory = self.processes[number].directory.clone();
        if loses_disk && !self.are_erasures_lost {
            directory.push('+');
        }
        self.processes[number] = Process::start(&self.bench, directory);
    }

    async fn step(&mut self, random: &mut fastrand::Rng) {
        let service = random.usize(0..2);
        let segment = SEGMENTS[random.usize(0..3)];
        let users: Vec<_> = (0..random.u64(1..9))
            .map(|_| random.u64(0..USERS))
            .collect();
        let first = users[0];
        let kind = random.u32(0..35);
        self.trace(format!("{kind} {service} {users:?} {segment}"));
        match kind {
            0..12 => {
                self.write(service, &users, segment, random.u64(0..50))
                    .await
            }
            12..14 => self.erase(service, Erasing::User(first)).await,
            30 => self.erase(service, Erasing::Segment(segment)).await,
            32..35 => self.merge(service, first, random.u64(0..USERS)).await,
            31 => self.erase(service, Erasing::Pair(segment, first)).await,
            14 => {
                self.may_resend = true;
                let end = self.bench.feed.end().await.map_or(0, |end| end.number);
                let lost = random.u64(0..4);
                self.bench.feed.lose_after(end.saturating_sub(lost));
            }
            15 => {
                self.may_resend = true;
                self.bench.feed.empty();
            }
            16 => self.bench.published.empty(),
            17 => self.bench.published.save(),
            18 => self.bench.published.restore(),
            19 => {
                self.bench.feed.set_unavailable(true);
                self.bench.published.set_unavailable(random.bool());
                self.write(service, &users, segment, 0).await;
                self.pass(random.u32(0..150)).await;
                self.bench.feed.set_unavailable(false);
                self.bench.published.set_unavailable(false);
            }
            20 if !self.may_resend => {
                self.bench.feed.set_loses_responses(true);
                self.bench.published.set_loses_responses(true);
                self.write(service, &users, segment, 0).await;
                self.pass(random.u32(0..20)).await;
                self.bench.feed.set_loses_responses(false);
                self.bench.published.set_loses_responses(false);
            }
            21 => self.restart_service(service).await,
            22 => self.restart_process(service, false).await,
            23 => self.restart_process(service, true).await,
            24 => self.repeat(random).await,
            25 => self
                .bench
                .clock
                .advance(Duration::from_secs(random.u64(0..4))),
            26 => self
                .bench
                .feed_clock
                .advance(Duration::from_secs(random.u64(0..4))),
            _ => self.pass(random.u32(1..40)).await,
        }
        self.check();
    }

    /// Prints a step, for the output of a test that fails.
    fn trace(&self, what: String) {
        let (clock, feed) = (self.bench.clock.now(), self.view.tick().map(|it| it.as_of));
        println!("{clock} {feed:?} {what}");
    }

    /// Appends an earlier record again, as a writer does that got no response and restarted.
    async fn repeat(&mut self, random: &mut fastrand::Rng) {
        let Some(record) = random.choice(&self.records) else {
            return;
        };
        let mut joined = Vec::new();
        state::join(&mut joined, record);
        let append = Append {
            writer: WriterId::random(),
            sequence: 1,
            skips: false,
            record: joined,
        };
        self.bench.feed.append(None, &append).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn published_counts_keep_their_promise_in_every_course() {
    let seeds = std::env::var("HEADCOUNT_TEST_LIVE_SEEDS");
    let seeds: u64 = seeds.map_or(10, |seeds| seeds.parse().unwrap());
    let first = std::env::var("HEADCOUNT_TEST_LIVE_SEED");
    let first: u64 = first.map_or(0, |first| first.parse().unwrap());
    let mut checked = 0;
    for seed in first..first + seeds {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut site = Site::start().await;
        for _ in 0..60 {
            site.step(&mut random).await;
        }
        site.expect_exact().await;
        checked += site.checked;
        site.end().await;
    }
    assert!(checked > 20 * seeds, "{checked} counts were checked");
}

#[tokio::test(start_paused = true)]
async fn the_standby_takes_over_and_the_former_publisher_is_refused() {
    let mut site = Site::start().await;
    site.write(0, &[1, 2, 3], "news", 0).await;
    site.expect_exact().await;
    let publishing = |site: &Site| -> Vec<usize> {
        let roles = site.processes.iter().map(|it| it.publisher.role());
        let all = roles.enumerate();
        all.filter(|(_, role)| *role == Role::Publisher)
            .map(|(number, _)| number)
            .collect()
    };
    let first = publishing(&site);
    assert_eq!(first.len(), 1, "one of both publishes");
    site.processes[first[0]].end().await;
    site.write(1, &[4], "news", 0).await;
    site.expect_exact().await;
    let second = 1 - first[0];
    assert_eq!(site.processes[second].publisher.role(), Role::Publisher);
    assert_eq!(
        site.view.tick().unwrap().address,
        site.processes[second].directory
    );
    site.restart_process(first[0], false).await;
    site.write(0, &[5], "sports", 0).await;
    site.expect_exact().await;
    assert_eq!(publishing(&site), [second]);
    site.end().await;
}

/// A live process with a shorter window publishes nothing of a segment whose users are all older, which looked like no users.
#[tokio::test(start_paused = true)]
async fn counts_of_a_publisher_with_another_window_are_not_used() {
    let mut site = Site::start().await;
    site.write(0, &[1, 2, 3], "news", 0).await;
    site.expect_exact().await;
    let published = Arc::clone(&site.bench.published) as Arc<dyn PublishedCounts>;
    let wider = frame(61).full_window();
    let view = View::start(published, wider, &site.reader);
    while view.other_window().is_none() {
        site.pass(1).await;
    }
    assert_eq!(view.other_window(), Some(full().seconds()));
    for name in ["news", "unknown"] {
        let segment = Segment::new(name).unwrap();
        assert_eq!(view.count(&segment, full()), None);
        assert_eq!(view.last_known(&segment, full()), None);
    }
    assert_eq!((view.list(full()), view.tick()), (None, None));
    site.pass(200).await;
    assert!(view.silent_for() > Duration::ZERO);
    assert_eq!(site.view.other_window(), None);
    site.end().await;
}
