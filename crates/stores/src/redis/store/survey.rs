//! What a server says of its own durability: a pair that it acknowledged lives as long as that makes it.

use std::collections::HashMap;

use redis::Cmd;

/// How a server keeps what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persistence {
    /// In an append-only file, synced before it answers: a 200 survives the server's end and a power cut.
    Always,
    /// In an append-only file, synced once a second: a crash of the machine costs up to the last second or two.
    EverySecond,
    /// In an append-only file that the system writes out when it likes; or synced in a way that it does not tell.
    AppendOnly,
    /// In snapshots alone: a crash costs everything since the last one.
    Snapshots,
    /// Nowhere.
    Nothing,
    /// It has no append-only file and does not tell whether it takes snapshots.
    NoAppendOnly,
    /// It does not tell.
    Unknown,
}

/// What a server may remove when its memory is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// Nothing: writes are refused then.
    Nothing,
    /// Keys that expire by themselves: the trend, and a cache beside the store.
    Volatile,
    /// Any key: whole segments.
    Anything,
    /// It does not tell.
    Unknown,
}

/// The answers of the server; on a cluster those of its weakest master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// How it keeps what it was told.
    pub persistence: Persistence,
    /// What it may remove.
    pub eviction: Eviction,
}

impl Persistence {
    /// A short name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "every_second",
            Self::AppendOnly => "append_only",
            Self::Snapshots => "snapshots",
            Self::Nothing => "nothing",
            Self::NoAppendOnly => "no_append_only",
            Self::Unknown => "unknown",
        }
    }

    /// What it means, in a sentence.
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::Always => "appendonly yes, appendfsync always: a 200 means on disk",
            Self::EverySecond => {
                "appendonly yes, appendfsync everysec: a 200 survives the server's end, and a crash of its machine but \
                 for the last second or two"
            }
            Self::AppendOnly => {
                "appendonly yes, but not known to be synced: a 200 survives the server's end, and a crash of its \
                 machine but for what the system had not written"
            }
            Self::Snapshots => {
                "snapshots alone: a crash loses every pair since the last one, though it was answered with 200; set \
                 appendonly yes"
            }
            Self::Nothing => {
                "persistence is off: every pair is lost when the server ends, though it was answered with 200; set \
                 appendonly yes"
            }
            Self::NoAppendOnly => {
                "appendonly is off: a crash loses pairs that were answered with 200; set appendonly yes"
            }
            Self::Unknown => {
                "whether it keeps pairs on disk is not known: its user may run neither INFO nor CONFIG GET"
            }
        }
    }

    /// How little it promises, to find the weakest of several.
    fn weakness(&self) -> u8 {
        match self {
            Self::Always => 0,
            Self::EverySecond => 1,
            Self::AppendOnly => 2,
            Self::Unknown => 3,
            Self::NoAppendOnly => 4,
            Self::Snapshots => 5,
            Self::Nothing => 6,
        }
    }
}

impl Survey {
    /// A line for what there is to know, a warning for what somebody should change.
    pub(super) fn tell(&self, server: &str) {
        let meaning = self.persistence.meaning();
        match self.persistence {
            Persistence::Always | Persistence::EverySecond => tracing::info!(server, "{meaning}"),
            _ => tracing::warn!(server, "{meaning}"),
        }
        match self.eviction {
            Eviction::Anything => tracing::warn!(
                server,
                "maxmemory-policy lets it evict whole segments when its memory is full; set maxmemory-policy noeviction"
            ),
            Eviction::Volatile => tracing::warn!(
                server,
                "maxmemory-policy lets it evict the trend when its memory is full; set maxmemory-policy noeviction"
            ),
            Eviction::Nothing | Eviction::Unknown => {}
        }
    }
}

/// What to ask each master: two may be forbidden to a user who may run the rest.
pub(super) fn questions() -> [Cmd; 3] {
    let config = |name| {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(name);
        get
    };
    [redis::cmd("INFO"), config("appendfsync"), config("save")]
}

/// Reads the answers of all masters to [`questions`]; a question without an answer was not allowed.
pub(super) fn read(
    info: Vec<Vec<String>>,
    appendfsync: Vec<Vec<String>>,
    save: Vec<Vec<String>>,
) -> Survey {
    let nodes = info.len().max(appendfsync.len()).max(save.len());
    let each = (0..nodes).map(|node| {
        let info: HashMap<&str, &str> = info
            .get(node)
            .and_then(|texts| texts.first())
            .map(|text| {
                text.lines()
                    .filter_map(|line| line.trim().split_once(':'))
                    .collect()
            })
            .unwrap_or_default();
        let setting = |answers: &[Vec<String>]| Some(answers.get(node)?.get(1)?.clone());
        Survey {
            persistence: persistence(
                info.get("aof_enabled").copied(),
                setting(&appendfsync).as_deref(),
                setting(&save).as_deref(),
            ),
            eviction: eviction(
                info.get("maxmemory").copied(),
                info.get("maxmemory_policy").copied(),
            ),
        }
    });
    let unknown = Survey {
        persistence: Persistence::Unknown,
        eviction: Eviction::Unknown,
    };
    let weaker = |one: Survey, other: Survey| Survey {
        eviction: match (one.eviction, other.eviction) {
            (Eviction::Anything, _) | (_, Eviction::Anything) => Eviction::Anything,
            (Eviction::Volatile, _) | (_, Eviction::Volatile) => Eviction::Volatile,
            (Eviction::Unknown, _) | (_, Eviction::Unknown) => Eviction::Unknown,
            (Eviction::Nothing, Eviction::Nothing) => Eviction::Nothing,
        },
        persistence: if one.persistence.weakness() < other.persistence.weakness() {
            other.persistence
        } else {
            one.persistence
        },
    };
    each.reduce(weaker).unwrap_or(unknown)
}

fn persistence(aof: Option<&str>, appendfsync: Option<&str>, save: Option<&str>) -> Persistence {
    match (aof, appendfsync, save) {
        (Some("1"), Some("always"), _) => Persistence::Always,
        (Some("1"), Some("everysec"), _) => Persistence::EverySecond,
        (Some("1"), _, _) => Persistence::AppendOnly,
        (Some(_), _, Some("")) => Persistence::Nothing,
        (Some(_), _, Some(_)) => Persistence::Snapshots,
        (Some(_), _, None) => Persistence::NoAppendOnly,
        (None, _, _) => Persistence::Unknown,
    }
}

fn eviction(maxmemory: Option<&str>, policy: Option<&str>) -> Eviction {
    match (maxmemory, policy) {
        (Some("0"), _) | (_, Some("noeviction")) => Eviction::Nothing,
        (_, Some(policy)) if policy.starts_with("volatile") => Eviction::Volatile,
        (_, Some(_)) => Eviction::Anything,
        (_, None) => Eviction::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn one(info: &str, appendfsync: Option<&str>, save: Option<&str>) -> Survey {
        let setting =
            |value: Option<&str>| value.map_or_else(Vec::new, |it| vec![texts(&["x", it])]);
        read(vec![texts(&[info])], setting(appendfsync), setting(save))
    }

    #[test]
    fn a_server_is_taken_by_its_word() {
        let aof =
            "# Persistence\r\naof_enabled:1\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n";
        let none = "aof_enabled:0\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n";
        let found = one(aof, Some("always"), Some(""));
        assert_eq!(found.persistence, Persistence::Always);
        assert_eq!(found.eviction, Eviction::Nothing, "memory has no limit");
        assert_eq!(
            one(aof, Some("everysec"), None).persistence,
            Persistence::EverySecond
        );
        assert_eq!(
            one(aof, Some("no"), None).persistence,
            Persistence::AppendOnly
        );
        assert_eq!(one(aof, None, None).persistence, Persistence::AppendOnly);
        let found = one(none, Some("everysec"), Some(""));
        assert_eq!(found.persistence, Persistence::Nothing);
        assert_eq!(found.eviction, Eviction::Anything);
        assert_eq!(
            one(none, None, Some("3600 1")).persistence,
            Persistence::Snapshots
        );
        assert_eq!(one(none, None, None).persistence, Persistence::NoAppendOnly);
        let unknown = read(Vec::new(), Vec::new(), Vec::new());
        assert_eq!(unknown.persistence, Persistence::Unknown);
        let volatile = "maxmemory:9\nmaxmemory_policy:volatile-ttl";
        assert_eq!(one(volatile, None, None).eviction, Eviction::Volatile);
    }

    #[test]
    fn the_weakest_master_speaks_for_all() {
        let info = |aof: &str| texts(&[&format!("aof_enabled:{aof}\r\nmaxmemory:0\r\n")]);
        let sync = vec![texts(&["appendfsync", "always"]); 3];
        let save = vec![texts(&["save", ""]); 3];
        let survey = read(vec![info("1"), info("0"), info("1")], sync, save);
        assert_eq!(survey.persistence, Persistence::Nothing);
        assert_eq!(survey.eviction, Eviction::Nothing);
    }
}
