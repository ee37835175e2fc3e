//! How many files the process may have open, and so how many connections it can hold.
//!
//! A process begins with a soft limit that is often 1,024, far below `max_connections`. The soft limit is there for programs
//! that use `select`, which this one does not; a process may raise it to the hard limit by itself, and servers should
//! (<https://0pointer.net/blog/file-descriptor-limits.html>). Where even the hard limit is too low, fewer connections are
//! held: one that waits to be accepted loses nothing, while a snapshot, or a connection to the store, that finds no
//! descriptor fails.

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for all that is no client: the log, snapshots, the spool, the tokens file, connections to Redis,
/// InfluxDB and Postgres (10 there by default), those of the runtime. About 30 were seen open.
const OWN: u64 = 256;

/// Raises the limit to the highest that the process may set; what it is then. `None` when there is none or none is known.
#[cfg(unix)]
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let highest = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, highest) {
        Ok(()) => limit.maximum,
        // A sandbox may forbid it. Then what was is what is.
        Err(_) => limit.current,
    }
}

/// Nothing is known of other systems.
#[cfg(not(unix))]
pub fn raise() -> Option<u64> {
    None
}

/// The most connections that `limit` leaves room for: all but `OWN`, or half of a limit that is smaller than twice that.
pub fn connections_within(limit: u64) -> usize {
    let own = OWN.min(limit / 2);
    usize::try_from(limit - own).unwrap_or(usize::MAX).max(1)
}

/// Raises the limit, and lowers `max_connections` to what it leaves room for, with a warning that names both.
pub fn make_room_for(max_connections: &mut usize) {
    let Some(limit) = raise() else {
        return;
    };
    let possible = connections_within(limit);
    if possible < *max_connections {
        tracing::warn!(
            "max_connections is {max_connections}, but this process may have no more than {limit} files open: at most \
             {possible} connections are held at once, and more wait; raise the limit (ulimit -Hn, LimitNOFILE=)"
        );
        *max_connections = possible;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_what_is_no_client() {
        for (limit, connections) in [
            (1_048_576, 1_048_320),
            (20_000, 19_744),
            (1_024, 768),
            (512, 256),
            (256, 128),
            (2, 1),
            (1, 1),
            (0, 1),
        ] {
            assert_eq!(connections_within(limit), connections, "{limit}");
        }
    }
}
