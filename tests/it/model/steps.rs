//! The parts of a case: a setup, and steps in any order. Its `Debug` output is Rust, to be pasted into a test.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// The setup of the service.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Instances that share the store and the cache.
    pub instances: usize,
    pub has_spool: bool,
    /// Whether counts are repeated from process memory.
    pub has_memory: bool,
    /// Whether the store is live, like the embedded one.
    pub is_live: bool,
    /// Live processes, which count what the instances append to a change feed. 0 for counts of the store.
    pub live_processes: usize,
}

/// When a user was seen, in seconds from now.
#[derive(Debug, Clone, Copy)]
pub enum Seen {
    Now,
    Ago(u32),
    Ahead(u32),
}

/// The calls that can be disturbed one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Record,
    StoreCount,
    StoreList,
    Erase,
    Members,
    Get,
    Note,
    Put,
    CacheList,
    Complete,
    Remove,
    Lock,
    Unlock,
    Export,
    Append,
    Read,
    Acquire,
    Publish,
    Follow,
    Other,
}

/// The fate of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Refused without an effect.
    Refused,
    /// Executed, but the caller gets no response.
    ResponseLost,
    /// Half of a batch is recorded. Any other call is refused.
    HalfDone,
    /// Waits until it is released, and is executed then.
    HeldBefore,
    /// Is executed, and returns when it is released.
    HeldAfter,
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Up,
    Down,
    Stalled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Store,
    Cache,
    Feed,
    Board,
}

/// One step. `at` is the instance, or from [`PROCESSES`] on a live process where connections change.
#[derive(Debug, Clone)]
pub enum Step {
    Write {
        at: usize,
        pairs: Vec<(usize, usize, Seen)>,
    },
    Count {
        at: usize,
        segment: usize,
        window: usize,
        fresh: bool,
    },
    List {
        at: usize,
    },
    Members {
        at: usize,
        user: usize,
    },
    Trend {
        at: usize,
        segment: usize,
    },
    Refresh {
        at: usize,
        only: Option<usize>,
    },
    Archive {
        at: usize,
    },
    Forget {
        at: usize,
        user: usize,
    },
    Merge {
        at: usize,
        from: usize,
        into: usize,
    },
    /// Advances all clocks by this many seconds.
    Pass(u32),
    /// Milliseconds in which timers run.
    Wait(u32),
    /// Sets the system clock back by this many seconds.
    SetBack(u32),
    SetRight,
    Connection {
        at: usize,
        part: Part,
        mode: Mode,
    },
    /// The next call of this kind.
    Next {
        at: usize,
        call: Call,
        fate: Fate,
    },
    /// Releases the held call with this number, modulo the number of held calls.
    Release(usize),
    /// The cache loses all data.
    Flush,
    /// The cache loses all data because it is killed.
    KillCache,
    /// The store is killed and restarts from its disk.
    KillStore,
    Crash {
        at: usize,
    },
    Restart {
        at: usize,
    },
    /// The feed loses this many of its newest entries.
    LoseEntries(u64),
    /// The feed loses everything.
    EmptyFeed,
    /// An old record is appended again.
    Repeat(usize),
    /// The published counts are lost.
    EmptyBoard,
    SaveBoard,
    /// The published counts go back to those that were saved.
    RestoreBoard,
    CrashProcess {
        at: usize,
        loses_folder: bool,
    },
    RestartProcess {
        at: usize,
    },
    /// No fault for a while, after which everything has to be exact.
    Quiet,
}

/// A setup and its steps.
#[derive(Debug, Clone)]
pub struct Case {
    pub setup: Setup,
    pub steps: Vec<Step>,
}

pub const SEGMENTS: [&str; 3] = ["sports", "a b,c=d\"e\\f", "}{🏀%7B*"];
pub const USERS: [&str; 6] = ["u1", "u2", "in  ner", "{tag}:*?", "Юля🙂", "0"];
/// The full window in slots of a minute, and the other windows that are read.
pub const WINDOWS: [u64; 3] = [10, 3, 1];
/// The number of these that are recounted.
pub const RECOUNTED: usize = 2;
pub const MINUTE: u64 = 60;
/// The number from which steps mean live processes.
pub const PROCESSES: usize = 2;

pub fn cases(longest: usize) -> impl Strategy<Value = Case> {
    let live = (1..=2_usize, Just(false), Just(false), Just(true));
    let counted = (1..=2_usize, any::<bool>(), any::<bool>(), Just(false));
    let setup = prop_oneof![1 => live, 6 => counted].prop_map(
        |(instances, has_spool, has_memory, is_live)| Setup {
            instances,
            has_spool,
            has_memory,
            is_live,
            live_processes: 0,
        },
    );
    (setup, vec(step(), 1..longest)).prop_map(|(setup, steps)| Case { setup, steps })
}

pub fn at() -> impl Strategy<Value = usize> {
    0..2_usize
}

fn segment() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0), 2 => Just(1), 1 => Just(2)]
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        6 => Just(Seen::Now),
        2 => (0..700_u32).prop_map(Seen::Ago),
        1 => (0..400_u32).prop_map(Seen::Ahead),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        Just(Call::Record),
        Just(Call::StoreCount),
        Just(Call::StoreList),
        Just(Call::Erase),
        Just(Call::Members),
        Just(Call::Get),
        Just(Call::Note),
        Just(Call::Put),
        Just(Call::CacheList),
        Just(Call::Complete),
        Just(Call::Remove),
        Just(Call::Lock),
        Just(Call::Unlock),
    ]
}

pub fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        1 => Just(Fate::Refused),
        1 => Just(Fate::ResponseLost),
        1 => Just(Fate::HalfDone),
        3 => Just(Fate::HeldBefore),
        3 => Just(Fate::HeldAfter),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let users = 0..USERS.len();
    let pair = (users.clone(), segment(), seen());
    let write = (at(), vec(pair, 1..4)).prop_map(|(at, pairs)| Step::Write { at, pairs });
    let count = (
        at(),
        segment(),
        0..WINDOWS.len(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(at, segment, window, is_other, fresh)| Step::Count {
            at,
            segment,
            window: if is_other { window } else { 0 },
            fresh: fresh && is_other,
        });
    let refresh =
        (at(), option::weighted(0.2, segment())).prop_map(|(at, only)| Step::Refresh { at, only });
    let spans = proptest::sample::select(vec![1, 20, 61, 130, 300, 600, 3 * 86_400]);
    let waits = proptest::sample::select(vec![60, 200, 1_100, 6_000, 31_000]);
    let mode = proptest::sample::select(vec![Mode::Up, Mode::Down, Mode::Stalled]);
    let part = proptest::sample::select(vec![Part::Store, Part::Cache]);
    let own = prop_oneof![
        16 => write,
        16 => count,
        1 => at().prop_map(|at| Step::List { at }),
        1 => (at(), users.clone()).prop_map(|(at, user)| Step::Members { at, user }),
        1 => (at(), segment()).prop_map(|(at, segment)| Step::Trend { at, segment }),
        7 => refresh,
        1 => at().prop_map(|at| Step::Archive { at }),
        2 => (at(), users.clone()).prop_map(|(at, user)| Step::Forget { at, user }),
        4 => (at(), users.clone(), users).prop_map(|(at, from, into)| Step::Merge { at, from, into }),
    ];
    let happens = prop_oneof![
        6 => spans.prop_map(Step::Pass),
        4 => waits.prop_map(Step::Wait),
        1 => (1..1_000_u32).prop_map(Step::SetBack),
        1 => Just(Step::SetRight),
        6 => (at(), part, mode).prop_map(|(at, part, mode)| Step::Connection { at, part, mode }),
        10 => (at(), call(), fate()).prop_map(|(at, call, fate)| Step::Next { at, call, fate }),
        8 => (0..4_usize).prop_map(Step::Release),
        2 => Just(Step::Flush),
        1 => Just(Step::KillCache),
        1 => Just(Step::KillStore),
        2 => at().prop_map(|at| Step::Crash { at }),
        2 => at().prop_map(|at| Step::Restart { at }),
        1 => Just(Step::Quiet),
    ];
    prop_oneof![own, happens]
}
