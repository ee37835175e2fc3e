//! The limit of open files (`RLIMIT_NOFILE`), which bounds the number of connections.
//!
//! A process starts with a soft limit that is often 1,024, far below `max_connections`. The soft limit exists for programs
//! that use `select`, which this one does not. A process may raise its soft limit to the hard limit, and servers should
//! (<https://0pointer.net/blog/file-descriptor-limits.html>). If the hard limit is too low as well, `max_connections` is
//! lowered: a connection that waits to be accepted loses nothing, but a snapshot or a connection to the store fails if no
//! descriptor is left.

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors reserved for everything except client connections: the log, snapshots, the spool, the tokens file,
/// connections to Redis, InfluxDB and Postgres (10 to Postgres by default), and the runtime. About 30 were observed in use.
const OWN: u64 = 256;

/// Raises the soft limit to the hard limit and returns the new soft limit. `None` if there is no limit or it is unknown.
#[cfg(unix)]
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let highest = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, highest) {
        Ok(()) => limit.maximum,
        // A sandbox may forbid it. The current limit stays.
        Err(_) => limit.current,
    }
}

/// Always `None`: the limit is unknown on other systems.
#[cfg(not(unix))]
pub fn raise() -> Option<u64> {
    None
}

/// The most client connections under `limit`: the limit less `OWN`, or half the limit if it is below `2 * OWN`. At least 1.
pub fn connections_within(limit: u64) -> usize {
    let own = OWN.min(limit / 2);
    usize::try_from(limit - own).unwrap_or(usize::MAX).max(1)
}

/// Raises the limit. If `max_connections` still exceeds it, lowers `max_connections` and logs a warning with both values.
pub fn limit_connections(max_connections: &mut usize) {
    let Some(limit) = raise() else {
        return;
    };
    let possible = connections_within(limit);
    if possible < *max_connections {
        tracing::warn!(
            "max_connections is {max_connections}, but this process may have only {limit} files open: it accepts at most \
             {possible} connections at once, and others wait; raise the limit (ulimit -Hn, LimitNOFILE=)"
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
