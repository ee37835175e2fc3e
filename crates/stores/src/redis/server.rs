//! The address of a Redis server or cluster, parsed from a URL, and the prefix of its keys.

use std::net::{IpAddr, ToSocketAddrs, UdpSocket};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use domain::Secret;

/// Long enough for the name of any deployment, short enough that keys stay small.
const MAX_PREFIX_BYTES: usize = 64;

/// The address of a Redis server or cluster, parsed from a URL.
///
/// One server is `redis://[user:password@]host[:port][/db]`, `rediss://` with TLS, `redis+unix:///path?db=1`
/// through a socket. A cluster is `redis+cluster://[user:password@]host[:port][,host[:port]...]`, or
/// `rediss+cluster://`; one reachable node is enough to discover the others. TLS trusts the certificates of the system,
/// or of the file that the variable `SSL_CERT_FILE` names; `#insecure` at the end turns verification off. Special
/// characters in a user or password are percent-encoded.
#[derive(Debug, Clone)]
pub struct RedisServer {
    pub(super) nodes: Vec<ConnectionInfo>,
    pub(crate) is_cluster: bool,
    /// The nodes' addresses without user and password, for logs.
    pub(crate) name: String,
}

/// Why a string is not a valid Redis URL. It never contains the string, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedisUrl {
    /// The scheme is unknown.
    #[error("the scheme must be redis, rediss, redis+cluster, rediss+cluster or redis+unix")]
    Scheme,
    /// Several nodes, but the scheme is not that of a cluster.
    #[error("several nodes need the scheme redis+cluster:// or rediss+cluster://")]
    NotACluster,
    /// A cluster has only database 0.
    #[error("a cluster only has database 0")]
    ClusterDatabase,
    /// Another part of the URL did not parse.
    #[error("{0}")]
    Malformed(String),
}

impl RedisServer {
    /// The addresses of the nodes without user and password, for logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address from which this machine reaches the first node; `None` through a socket or without a route. Sends nothing.
    pub fn source_address(&self) -> Option<IpAddr> {
        let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) =
            self.nodes.first()?.addr()
        else {
            return None;
        };
        let node = (host.as_str(), *port).to_socket_addrs().ok()?.next()?;
        let local = if node.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(local).ok()?;
        socket.connect(node).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }

    /// Parses a URL in one of the forms that [`RedisServer`] lists.
    pub fn parse(url: &Secret) -> Result<Self, InvalidRedisUrl> {
        let url = url.reveal();
        let (scheme, rest) = url.split_once("://").ok_or(InvalidRedisUrl::Scheme)?;
        match scheme {
            "redis" | "rediss" | "redis+unix" => {
                let (_, address) = split_user(authority(rest));
                if scheme != "redis+unix" && address.contains(',') {
                    return Err(InvalidRedisUrl::NotACluster);
                }
                Self::of(vec![node(url)?], false)
            }
            "redis+cluster" | "rediss+cluster" => {
                let plain_scheme = scheme.trim_end_matches("+cluster");
                let (user, addresses) = split_user(authority(rest));
                let tail = &rest[authority(rest).len()..];
                let nodes: Result<Vec<_>, _> = addresses
                    .split(',')
                    .map(|address| node(&format!("{plain_scheme}://{user}{address}{tail}")))
                    .collect();
                let nodes = nodes?;
                if nodes.iter().any(|node| node.redis_settings().db() != 0) {
                    return Err(InvalidRedisUrl::ClusterDatabase);
                }
                Self::of(nodes, true)
            }
            _ => Err(InvalidRedisUrl::Scheme),
        }
    }

    fn of(nodes: Vec<ConnectionInfo>, is_cluster: bool) -> Result<Self, InvalidRedisUrl> {
        let names: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
        let name = format!("redis at {}", names.join(","));
        Ok(Self {
            nodes,
            is_cluster,
            name,
        })
    }
}

/// The part before the path, the query and the fragment.
fn authority(rest: &str) -> &str {
    rest.find(['/', '?', '#']).map_or(rest, |end| &rest[..end])
}

/// The user and password with their `@`, and the rest.
fn split_user(authority: &str) -> (&str, &str) {
    authority
        .rfind('@')
        .map_or(("", authority), |at| authority.split_at(at + 1))
}

fn node(url: &str) -> Result<ConnectionInfo, InvalidRedisUrl> {
    // The driver replaces an empty host with its default. Here it is an error, because a typo would lead to another
    // server.
    if url.starts_with("redis") && !url.starts_with("redis+unix") {
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        if split_user(authority(rest)).1.is_empty() {
            return Err(InvalidRedisUrl::Malformed("the host is missing".to_owned()));
        }
    }
    url.into_connection_info().map_err(|error| {
        // The detail may repeat a part of the URL; the description is a fixed string.
        let text = error.to_string();
        let fixed = text.split(" - ").next().unwrap_or_default().to_lowercase();
        InvalidRedisUrl::Malformed(fixed)
    })
}

/// The prefix of every key of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// The string is not a valid [`Prefix`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the prefix must be 1 to {MAX_PREFIX_BYTES} printable ASCII characters without blanks and braces"
)]
pub struct InvalidPrefix;

impl Prefix {
    /// Validates `text`. Braces are invalid: they would move the hash tag that keeps a segment's keys on one node.
    pub fn new(text: &str) -> Result<Self, InvalidPrefix> {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'{' && byte != b'}';
        if text.is_empty() || text.len() > MAX_PREFIX_BYTES || !text.bytes().all(fits) {
            return Err(InvalidPrefix);
        }
        Ok(Self(text.to_owned()))
    }

    /// The prefix as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<RedisServer, InvalidRedisUrl> {
        RedisServer::parse(&Secret::new(url))
    }

    #[test]
    fn one_server() {
        let server = parse("redis://joe:p%40ss@db.example:7000/3").unwrap();
        assert!(!server.is_cluster);
        assert_eq!(server.name, "redis at db.example:7000");
        let settings = server.nodes[0].redis_settings();
        assert_eq!(settings.db(), 3);
        assert_eq!(settings.username(), Some("joe"));
        assert_eq!(settings.password(), Some("p@ss"));
        assert_eq!(parse("redis://h").unwrap().name, "redis at h:6379");
        assert_eq!(
            parse("rediss://h/#insecure").unwrap().name,
            "redis at h:6379"
        );
        assert_eq!(parse("redis://[::1]:7").unwrap().name, "redis at ::1:7");
        assert!(parse("redis+unix:///run/redis.sock?db=2").is_ok());
    }

    #[test]
    fn a_cluster() {
        let server = parse("redis+cluster://joe:a,b@one:7000,two,[::1]:7001").unwrap();
        assert!(server.is_cluster);
        assert_eq!(server.name, "redis at one:7000,two:6379,::1:7001");
        for node in &server.nodes {
            assert_eq!(node.redis_settings().username(), Some("joe"));
            assert_eq!(node.redis_settings().password(), Some("a,b"));
        }
        assert!(
            parse("rediss+cluster://one:7000/#insecure")
                .unwrap()
                .is_cluster
        );
        assert!(parse("redis+cluster://one:7000/0").is_ok());
    }

    #[test]
    fn slips_are_named_and_secrets_kept() {
        assert_eq!(
            parse("localhost:6379").unwrap_err(),
            InvalidRedisUrl::Scheme
        );
        assert_eq!(
            parse("http://localhost").unwrap_err(),
            InvalidRedisUrl::Scheme
        );
        assert_eq!(
            parse("redis://a:1,b:2").unwrap_err(),
            InvalidRedisUrl::NotACluster
        );
        assert_eq!(
            parse("redis+cluster://a/1").unwrap_err(),
            InvalidRedisUrl::ClusterDatabase
        );
        for bad in [
            "redis://",
            "redis:///1",
            "redis://u:hunter2@",
            "redis://u:hunter2@h:port",
            "redis://u:hunter2@h/hunter2",
            "redis+cluster://",
            "redis+cluster://u:hunter2@a,,b",
            "rediss://u:hunter2@h/#hunter2",
            "redis://u:hunter2@h/0?protocol=hunter2",
        ] {
            let error = parse(bad).unwrap_err();
            assert!(
                matches!(error, InvalidRedisUrl::Malformed(_)),
                "{bad}: {error:?}"
            );
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let shown = format!("{:?}", parse("redis://u:hunter2@h").unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn prefixes() {
        assert_eq!(
            Prefix::new("head:count-1").unwrap().as_str(),
            "head:count-1"
        );
        for bad in ["", "a b", "a{b", "}", "ü", "a\n", &"x".repeat(65)] {
            assert_eq!(Prefix::new(bad).unwrap_err(), InvalidPrefix, "{bad:?}");
        }
    }
}
