//! The model of acknowledged pairs: the last time seen by user and segment, from which every expected count follows.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// The number of segments.
pub(crate) const SEGMENTS: u64 = 100;
/// The number of users that are active at an instant. After a window, all of them are others.
const ABOUT: u64 = 50_000;
/// Slots in a window.
const SLOTS: u64 = 60;
/// The time before and after the run: to measure the capacity, to repeat posts, and to verify.
const SLACK: Duration = Duration::from_secs(300);

/// A post of pairs. Its number seeds everything random about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Post {
    pub(crate) seed: u64,
    pub(crate) pairs: u64,
    /// The time at which the users were seen, in unix seconds.
    pub(crate) at: u64,
}

/// The last time seen of each acknowledged pair.
pub(crate) struct Ledger {
    window: u64,
    /// The slot in which the run began.
    first_slot: u64,
    begin: u64,
    users: u64,
    /// By segment and user: the last slot plus 1, relative to the first slot; 0 for never.
    last: Vec<AtomicU32>,
    under_way: Mutex<HashMap<u64, Post>>,
    /// Posts whose result is unknown.
    unanswered: Mutex<Vec<Post>>,
}

impl Ledger {
    /// For a window in seconds, a multiple of the slot, and the duration of the run.
    pub(crate) fn new(window: u64, run: Duration) -> Self {
        let begin = now();
        let lasts = run + SLACK;
        let users = ABOUT + ABOUT * lasts.as_secs() / window;
        Self {
            window,
            first_slot: begin / (window / SLOTS),
            begin,
            users,
            last: (0..users * SEGMENTS).map(|_| AtomicU32::new(0)).collect(),
            under_way: Mutex::default(),
            unanswered: Mutex::default(),
        }
    }

    /// How long a user stays, in seconds.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// The step of time, in seconds.
    pub(crate) fn resolution(&self) -> u64 {
        self.window / SLOTS
    }

    /// A post that is about to be sent as number `n`. Its users are among those active now.
    pub(crate) fn begin(&self, n: u64, pairs: u64) -> Post {
        let seed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let post = Post {
            seed,
            pairs,
            at: now(),
        };
        self.under_way.lock().unwrap().insert(n, post);
        post
    }

    /// Records the status of post `n`; `None` if it is unknown.
    pub(crate) fn end(&self, n: u64, status: Option<u16>) {
        let Some(post) = self.under_way.lock().unwrap().remove(&n) else {
            return;
        };
        match status {
            Some(200) => self.acknowledge(&post),
            // Refused: none of its pairs counts.
            Some(429 | 503) => {}
            _ => self.unanswered.lock().unwrap().push(post),
        }
    }

    /// Records all pairs of `post` as accepted.
    pub(crate) fn acknowledge(&self, post: &Post) {
        let slot = post.at / self.resolution() - self.first_slot + 1;
        for (user, segment) in self.pairs(post) {
            let place = &self.last[(segment * self.users + user) as usize];
            place.fetch_max(slot as u32, Ordering::Relaxed);
        }
    }

    /// Removes and returns the posts with an unknown result. They must be sent again before counts are compared.
    pub(crate) fn take_unanswered(&self) -> Vec<Post> {
        std::mem::take(&mut self.unanswered.lock().unwrap())
    }

    /// Users and segments of a post, by number.
    pub(crate) fn pairs(&self, post: &Post) -> impl Iterator<Item = (u64, u64)> + use<> {
        let mut random = fastrand::Rng::with_seed(post.seed);
        let oldest = (post.at - self.begin) * ABOUT / self.window;
        let users = oldest..(oldest + ABOUT).min(self.users);
        (0..post.pairs).map(move |_| (random.u64(users.clone()), random.u64(..SEGMENTS)))
    }

    /// The distinct users of a segment in the last `slots` slots as of an instant.
    pub(crate) fn count(&self, segment: u64, slots: u64, as_of: u64) -> u64 {
        let present = as_of / self.resolution() - self.first_slot + 1;
        let users = (segment * self.users) as usize..((segment + 1) * self.users) as usize;
        let is_in = |last: &&AtomicU32| {
            let last = u64::from(last.load(Ordering::Relaxed));
            last > 0 && last <= present && last + slots > present
        };
        self.last[users].iter().filter(is_in).count() as u64
    }

    /// A user that may be active.
    pub(crate) fn some_user(&self, n: u64) -> u64 {
        ((now() - self.begin) * ABOUT / self.window + n % ABOUT).min(self.users - 1)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}
