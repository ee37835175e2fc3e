//! The acknowledged changes, recorded outside the killed service, and their comparison with what the service returns.

use std::collections::{BTreeSet, HashMap, HashSet};

use domain::Timestamp;
use serde_json::Value;

/// The window in seconds, with a resolution of one second.
pub const WINDOW: i64 = 30;
/// A shorter window that is counted as well.
const SHORT: i64 = 10;
pub const SEGMENTS: u8 = 5;
/// The number of users that each check looks up.
const SAMPLE: usize = 40;

pub type User = u32;
type Pair = (User, u8);

/// A request that modifies pairs.
#[derive(Debug, Clone)]
pub enum Change {
    /// Users seen in segments, each at a second.
    Post(Vec<(User, u8, i64)>),
    Erase(User),
}

/// The pairs that must be counted, and those that may be.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The last seen second of each pair that was acknowledged or found afterwards.
    seen: HashMap<Pair, i64>,
    /// Pairs in an unknown state: before or after a request without a response.
    doubts: HashMap<Pair, Doubt>,
    /// Users whose erasure was acknowledged and that were not seen since.
    erased: BTreeSet<User>,
    unanswered: usize,
    /// Whether a request without a response may have been applied in part. An erasure may have reached the spool but
    /// not the store. A post may have been applied up to any of its pairs, because a remote store receives them in
    /// pieces.
    may_be_partial: bool,
}

#[derive(Debug)]
struct Doubt {
    request: usize,
    before: Option<i64>,
    after: Option<i64>,
    /// All instants at which the request records the pair.
    of_request: Vec<i64>,
}

/// The outcome of requests without a response.
#[derive(Debug, Default)]
pub struct Settled {
    pub kept: usize,
    pub lost: usize,
}

pub fn user_name(user: User) -> String {
    format!("user {user}")
}

pub fn segment_name(segment: u8) -> String {
    format!("segment{segment}")
}

impl Ledger {
    /// Creates the ledger of a service with or without a spool.
    pub fn new(has_spool: bool) -> Self {
        Self {
            may_be_partial: has_spool,
            ..Self::default()
        }
    }

    /// Records a change that was acknowledged.
    pub fn acknowledge(&mut self, change: &Change) {
        let after = self.after(change);
        for (pair, seen) in after {
            self.set(pair, seen);
        }
        match change {
            Change::Erase(user) => {
                self.erased.insert(*user);
            }
            Change::Post(pairs) => {
                for (user, _, _) in pairs {
                    self.erased.remove(user);
                }
            }
        }
    }

    /// Records a change that may have been applied, in whole or in part. Its users must not change until it is settled.
    pub fn doubt(&mut self, change: &Change) {
        self.unanswered += 1;
        for (pair, after) in self.after(change) {
            let before = self.seen.get(&pair).copied();
            self.erased.remove(&pair.0);
            let request = self.unanswered;
            let doubt = Doubt {
                request,
                before,
                after,
                of_request: instants(change, pair),
            };
            self.doubts.insert(pair, doubt);
        }
    }

    /// The users that must not change until their requests are settled.
    pub fn in_doubt(&self) -> HashSet<User> {
        self.doubts.keys().map(|(user, _)| *user).collect()
    }

    /// The number of known pairs.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    fn after(&self, change: &Change) -> HashMap<Pair, Option<i64>> {
        match change {
            Change::Post(pairs) => {
                let mut after = HashMap::new();
                for &(user, segment, at) in pairs {
                    let pair = (user, segment);
                    let latest = after
                        .entry(pair)
                        .or_insert_with(|| self.seen.get(&pair).copied());
                    *latest = (*latest).max(Some(at));
                }
                after
            }
            Change::Erase(user) => (0..SEGMENTS)
                .map(|segment| (*user, segment))
                .filter(|pair| self.seen.contains_key(pair))
                .map(|pair| (pair, None))
                .collect(),
        }
    }

    fn set(&mut self, pair: Pair, seen: Option<i64>) {
        match seen {
            Some(at) => self.seen.insert(pair, at),
            None => self.seen.remove(&pair),
        };
    }

    /// Finds out the outcome of requests without a response. Each pair is as before or as after the request, and stays
    /// so.
    pub async fn settle(&mut self, service: &Reader) -> Settled {
        let users = self.in_doubt();
        let mut kept = HashMap::new();
        for user in users {
            let found = service.memberships(user).await;
            self.check_user(user, &found);
            for segment in 0..SEGMENTS {
                let pair = (user, segment);
                let Some(doubt) = self.doubts.remove(&pair) else {
                    continue;
                };
                let is = found.segments.get(&segment).copied();
                let is_partly_erased = doubt.after.is_none() && is < doubt.before;
                let in_part = is.filter(|is| is_partly_erased || doubt.of_request.contains(is));
                let in_part = in_part.filter(|_| self.may_be_partial);
                let choices = [doubt.before, doubt.after, in_part];
                let choice = choices.into_iter().find(|choice| found.agrees(*choice, is));
                let choice = choice.unwrap_or_else(|| {
                    panic!("user {user} in segment {segment} was {doubt:?} and is {is:?}")
                });
                if doubt.before != doubt.after {
                    *kept.entry(doubt.request).or_insert(false) |= choice == doubt.after;
                }
                self.set(pair, choice);
            }
        }
        let kept_requests = kept.values().filter(|kept| **kept).count();
        Settled {
            kept: kept_requests,
            lost: kept.len() - kept_requests,
        }
    }

    /// Checks that every count is exact and that a sample of users is in the expected segments. No pair may be in
    /// doubt.
    pub async fn check(&self, service: &Reader, random: &mut fastrand::Rng) {
        for segment in 0..SEGMENTS {
            for window in [WINDOW, SHORT] {
                let (users, as_of) = service.count(segment, window).await;
                let due = |at: i64| as_of - window < at && at <= as_of;
                let pairs = self.seen.iter();
                let expected = pairs
                    .filter(|((_, of), at)| *of == segment && due(**at))
                    .count();
                assert_eq!(
                    users, expected as u64,
                    "users of segment {segment} as of {as_of} over {window} s"
                );
            }
        }
        let users: BTreeSet<User> = self.seen.keys().map(|(user, _)| *user).collect();
        let known = random.choose_multiple(users.iter().copied(), SAMPLE);
        let erased = random.choose_multiple(self.erased.iter().copied(), SAMPLE);
        for user in known.into_iter().chain(erased) {
            let found = service.memberships(user).await;
            self.check_user(user, &found);
        }
    }

    /// Checks that the pairs of a user that are not in doubt match what was found.
    fn check_user(&self, user: User, found: &Memberships) {
        for segment in 0..SEGMENTS {
            let pair = (user, segment);
            let (must, is) = (
                self.seen.get(&pair).copied(),
                found.segments.get(&segment).copied(),
            );
            assert!(
                self.doubts.contains_key(&pair) || found.agrees(must, is),
                "user {user} in segment {segment}: must be {must:?}, is {is:?}, {}",
                if self.erased.contains(&user) {
                    "erased"
                } else {
                    ""
                }
            );
        }
    }
}

/// The instants at which a change records a pair.
fn instants(change: &Change, (user, segment): Pair) -> Vec<i64> {
    let Change::Post(pairs) = change else {
        return Vec::new();
    };
    let of_pair = |(of, within, _): &&(User, u8, i64)| (*of, *within) == (user, segment);
    pairs.iter().filter(of_pair).map(|(_, _, at)| *at).collect()
}

/// The segments of a user, read between the seconds `from` and `to`.
struct Memberships {
    segments: HashMap<u8, i64>,
    from: i64,
    to: i64,
}

impl Memberships {
    /// Whether a pair last seen at `must` may be returned as `is`, which is `None` once the pair has expired.
    fn agrees(&self, must: Option<i64>, is: Option<i64>) -> bool {
        match (must, is) {
            (None, is) => is.is_none(),
            (Some(at), None) => at <= self.to - WINDOW,
            (Some(at), Some(is)) => at == is && at > self.from - WINDOW,
        }
    }
}

/// Reads counts and users from a service.
pub struct Reader {
    url: String,
    client: reqwest::Client,
}

impl Reader {
    pub fn new(url: String) -> Self {
        let client = reqwest::Client::new();
        Self { url, client }
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.client.get(format!("{}{path}", self.url)).send().await;
        response.unwrap().json().await.unwrap()
    }

    /// The users of a segment, and the second of `as_of`.
    async fn count(&self, segment: u8, window: i64) -> (u64, i64) {
        let segment = segment_name(segment);
        let path = format!("/v1/segments/{segment}/count?window={window}s&fresh=true");
        let response = self.get(&path).await;
        let as_of: Timestamp = response["as_of"]
            .as_str()
            .unwrap_or_else(|| panic!("no count: {response}"))
            .parse()
            .unwrap();
        (response["users"].as_u64().unwrap(), as_of.as_second())
    }

    async fn memberships(&self, user: User) -> Memberships {
        let from = Timestamp::now().as_second();
        let name = user_name(user).replace(' ', "%20");
        let response = self.get(&format!("/v1/users/{name}")).await;
        let stay = |stay: &Value| {
            let segment = stay["segment"].as_str()?.strip_prefix("segment")?.parse();
            let last_seen: Timestamp = stay["last_seen"].as_str()?.parse().ok()?;
            Some((segment.ok()?, last_seen.as_second()))
        };
        let stays = response["segments"].as_array();
        let stays = stays.unwrap_or_else(|| panic!("no segments: {response}"));
        Memberships {
            segments: stays
                .iter()
                .map(|found| stay(found).expect("a segment of ours"))
                .collect(),
            from,
            to: Timestamp::now().as_second(),
        }
    }
}

#[test]
fn only_an_expired_pair_may_be_missing() {
    let found = |is: Option<i64>| Memberships {
        segments: is.map(|at| (0, at)).into_iter().collect(),
        from: 100,
        to: 102,
    };
    let agrees = |must, is| found(is).agrees(must, is);
    assert!(agrees(Some(80), Some(80)) && !agrees(Some(80), None) && !agrees(None, Some(80)));
    assert!(agrees(Some(71), Some(71)) && agrees(Some(71), None) && agrees(Some(70), None));
    assert!(!agrees(Some(73), None) && !agrees(Some(80), Some(79)) && agrees(None, None));
}
