//! The persistence and eviction settings of a server: they determine how durable an acknowledged pair is.

use std::collections::HashMap;

use redis::Cmd;

/// How a server persists writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persistence {
    /// An append-only file, synced before each response: a 200 survives a crash of the server and a power failure.
    Always,
    /// An append-only file, synced once a second: a crash of the machine loses up to the last two seconds.
    EverySecond,
    /// An append-only file that the operating system flushes at its own pace, or with an unknown sync policy.
    AppendOnly,
    /// Snapshots only: a crash loses all writes since the last one.
    Snapshots,
    /// No persistence.
    Nothing,
    /// No append-only file; whether there are snapshots is unknown.
    NoAppendOnly,
    /// The server did not report it.
    Unknown,
}

/// Which keys a server may evict when its memory is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// None: writes are refused then.
    Nothing,
    /// Keys with a TTL: the trend, and a cache beside the store.
    Volatile,
    /// Any key: whole segments.
    Anything,
    /// The server did not report it.
    Unknown,
}

/// The settings of the server; on a cluster those of its weakest master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// How the server persists writes.
    pub persistence: Persistence,
    /// Which keys the server may evict.
    pub eviction: Eviction,
}

impl Persistence {
    /// The name in metrics, in snake case.
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

    /// What it means for a pair that was acknowledged with 200, for logs and `headcount setup`.
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::Always => {
                "appendonly yes, appendfsync always: a 200 means that the pairs are on disk"
            }
            Self::EverySecond => {
                "appendonly yes, appendfsync everysec: a 200 survives a crash of the server; a crash of its machine loses \
                 at most the last second or two"
            }
            Self::AppendOnly => {
                "appendonly yes, but with an unknown or no sync policy: a 200 survives a crash of the server, but a \
                 crash of its machine loses what the system had not flushed"
            }
            Self::Snapshots => {
                "snapshots only: a crash loses all pairs since the last one, although they were acknowledged with 200; \
                 set appendonly yes"
            }
            Self::Nothing => {
                "persistence is off: all pairs are lost when the server stops, although they were acknowledged with \
                 200; set appendonly yes"
            }
            Self::NoAppendOnly => {
                "appendonly is off: a crash loses pairs that were acknowledged with 200; set appendonly yes"
            }
            Self::Unknown => {
                "persistence is unknown: the user has no permission for INFO and CONFIG GET"
            }
        }
    }

    /// A rank, to find the weakest of several: higher is weaker.
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
    /// Logs the settings: a warning for those that an operator should change.
    pub(super) fn log(&self, server: &str) {
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

/// The commands to send to each master. They are separate, because a user may lack permission for some of them.
pub(super) fn queries() -> [Cmd; 3] {
    let config = |name| {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(name);
        get
    };
    [redis::cmd("INFO"), config("appendfsync"), config("save")]
}

/// Parses the responses of all masters to [`queries`]. An empty response means that the command was not permitted.
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
        let setting = |responses: &[Vec<String>]| Some(responses.get(node)?.get(1)?.clone());
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
