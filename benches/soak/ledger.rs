//! A model of the acknowledged pairs: when each user was last seen in each segment. Expected counts are computed from it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// The number of segments.
pub(crate) const SEGMENTS: u64 = 100;
/// The number of users that are active at an instant. After one window, all of them have been replaced by new users.
const ACTIVE_USERS: u64 = 50_000;
/// Slots in a window.
const SLOTS: u64 = 60;
/// The time before and after the run for measuring the capacity, repeating posts and verifying counts.
const SLACK: Duration = Duration::from_secs(300);

/// A post of pairs. Its random users and segments are derived from its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Post {
    pub(crate) seed: u64,
    pub(crate) pairs: u64,
    /// The time at which the users were seen, in seconds since the Unix epoch.
    pub(crate) at: u64,
}

/// The last time seen of each acknowledged pair.
pub(crate) struct Ledger {
    window: u64,
    /// The slot in which the run began.
    first_slot: u64,
    begin: u64,
    users: u64,
    /// By segment and user: the last slot in which the user was seen, relative to the first slot, plus 1. 0 means never.
    last: Vec<AtomicU32>,
    in_flight: Mutex<HashMap<u64, Post>>,
    /// Posts whose result is unknown.
    unresolved: Mutex<Vec<Post>>,
}

impl Ledger {
    /// `window` is in seconds and a multiple of the slot; `run` is the duration of the run.
    pub(crate) fn new(window: u64, run: Duration) -> Self {
        let begin = now();
        let covered = run + SLACK;
        let users = ACTIVE_USERS + ACTIVE_USERS * covered.as_secs() / window;
        Self {
            window,
            first_slot: begin / (window / SLOTS),
            begin,
            users,
            last: (0..users * SEGMENTS).map(|_| AtomicU32::new(0)).collect(),
            in_flight: Mutex::default(),
            unresolved: Mutex::default(),
        }
    }

    /// How long a user is active, in seconds.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// The duration of a slot, in seconds.
    pub(crate) fn resolution(&self) -> u64 {
        self.window / SLOTS
    }

    /// Creates post number `n`, which is about to be sent. Its users are active now.
    pub(crate) fn begin(&self, n: u64, pairs: u64) -> Post {
        let seed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let post = Post {
            seed,
            pairs,
            at: now(),
        };
        self.in_flight.lock().unwrap().insert(n, post);
        post
    }

    /// Records the status of post `n`; `None` if it is unknown.
    pub(crate) fn end(&self, n: u64, status: Option<u16>) {
        let Some(post) = self.in_flight.lock().unwrap().remove(&n) else {
            return;
        };
        match status {
            Some(200) => self.acknowledge(&post),
            // Rejected: none of its pairs is stored.
            Some(429 | 503) => {}
            _ => self.unresolved.lock().unwrap().push(post),
        }
    }

    /// Records all pairs of `post` as accepted.
    pub(crate) fn acknowledge(&self, post: &Post) {
        let slot = post.at / self.resolution() - self.first_slot + 1;
        for (user, segment) in self.pairs(post) {
            let last = &self.last[(segment * self.users + user) as usize];
            last.fetch_max(slot as u32, Ordering::Relaxed);
        }
    }

    /// Removes and returns the posts with an unknown result. They must be repeated before counts are compared.
    pub(crate) fn take_unresolved(&self) -> Vec<Post> {
        std::mem::take(&mut self.unresolved.lock().unwrap())
    }

    /// The numbers of the users and segments of a post.
    pub(crate) fn pairs(&self, post: &Post) -> impl Iterator<Item = (u64, u64)> + use<> {
        let mut random = fastrand::Rng::with_seed(post.seed);
        let oldest = (post.at - self.begin) * ACTIVE_USERS / self.window;
        let users = oldest..(oldest + ACTIVE_USERS).min(self.users);
        (0..post.pairs).map(move |_| (random.u64(users.clone()), random.u64(..SEGMENTS)))
    }

    /// The distinct users of a segment in the last `slots` slots as of an instant.
    pub(crate) fn count(&self, segment: u64, slots: u64, as_of: u64) -> u64 {
        let current = as_of / self.resolution() - self.first_slot + 1;
        let users = (segment * self.users) as usize..((segment + 1) * self.users) as usize;
        let in_window = |last: &&AtomicU32| {
            let last = u64::from(last.load(Ordering::Relaxed));
            last > 0 && last <= current && last + slots > current
        };
        self.last[users].iter().filter(in_window).count() as u64
    }

    /// One of the users that are active now.
    pub(crate) fn active_user(&self, n: u64) -> u64 {
        ((now() - self.begin) * ACTIVE_USERS / self.window + n % ACTIVE_USERS).min(self.users - 1)
    }
}

fn now() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.unwrap().as_secs()
}
