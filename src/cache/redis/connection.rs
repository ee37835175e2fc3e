//! A connection to one server or to a cluster, behind one face, and what its errors mean.

use futures::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value,
};

use super::options::RedisCacheOptions;
use super::scripts::Request;
use crate::cache::CacheError;

/// A request that meets a moved slot is sent again to where it went; more is left to the caller's time-out.
const CLUSTER_RETRIES: u32 = 2;
/// Milliseconds before such a repetition.
const CLUSTER_RETRY_WAIT: u64 = 5;

/// Cheap to clone; requests of all clones share the sockets.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects and proves by a round trip that the server serves.
    pub(super) async fn open(options: &RedisCacheOptions) -> RedisResult<Self> {
        let mut connection = if options.server.is_cluster {
            let client = ClusterClient::builder(options.server.nodes.clone())
                .retries(CLUSTER_RETRIES)
                .min_retry_wait(CLUSTER_RETRY_WAIT)
                .max_retry_wait(2 * CLUSTER_RETRY_WAIT)
                .connection_timeout(options.connect_timeout)
                .response_timeout(options.connect_timeout)
                .build()?;
            Self::Cluster(client.get_async_connection().await?)
        } else {
            let client = Client::open(options.server.nodes[0].clone())?;
            // Whoever calls has a time limit of their own.
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None);
            Self::Single(
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?,
            )
        };
        connection.ping().await?;
        Ok(connection)
    }

    /// A round trip. Any node of a cluster answers for all: it knows whether the cluster serves.
    pub(super) async fn ping(&mut self) -> RedisResult<()> {
        match self {
            Self::Single(connection) => {
                let answer = connection.req_packed_command(&redis::cmd("PING")).await?;
                answer.extract_error().map(drop)
            }
            Self::Cluster(connection) => {
                let mut info = redis::cmd("CLUSTER");
                info.arg("INFO");
                let anywhere = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                let answer = connection
                    .route_command(info, anywhere)
                    .await?
                    .extract_error()?;
                let text: String = redis::from_redis_value(answer)?;
                if text.contains("cluster_state:ok") {
                    return Ok(());
                }
                Err((ErrorKind::ClusterConnectionNotFound, "the cluster is down").into())
            }
        }
    }

    /// Sends all requests at once and waits for the answers, in order. The first error is the error of all, but
    /// that the others may have taken effect.
    pub(super) async fn ask(&mut self, requests: &[Request<'_>]) -> RedisResult<Vec<Value>> {
        let short: Vec<_> = requests.iter().map(Request::short).collect();
        let mut answers = self.send(&short).await?;
        // A server that restarted, or a new node of a cluster, does not know the scripts yet.
        let unknown: Vec<(usize, Cmd)> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| matches!(answer, Err(error) if is_unknown_script(error)))
            .filter_map(|(index, _)| Some((index, requests[index].full()?)))
            .collect();
        if !unknown.is_empty() {
            let (indexes, full): (Vec<_>, Vec<_>) = unknown.into_iter().unzip();
            for (index, answer) in indexes.into_iter().zip(self.send(&full).await?) {
                answers[index] = answer;
            }
        }
        answers.into_iter().collect()
    }

    async fn send(&mut self, commands: &[Cmd]) -> RedisResult<Vec<RedisResult<Value>>> {
        match self {
            Self::Single(connection) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command.clone());
                }
                let answers = connection
                    .req_packed_commands(&pipeline, 0, commands.len())
                    .await?;
                Ok(answers.into_iter().map(Value::extract_error).collect())
            }
            // The driver sends a pipeline to one node only. Sent one by one but all at once, the commands share a
            // round trip just as well.
            Self::Cluster(connection) => {
                let sent = commands.iter().map(|command| {
                    let mut connection = connection.clone();
                    async move {
                        connection
                            .req_packed_command(command)
                            .await?
                            .extract_error()
                    }
                });
                Ok(join_all(sent).await)
            }
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single(_) => "Single(..)",
            Self::Cluster(_) => "Cluster(..)",
        })
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// What an error means for the caller. `server` is the name of the server for the text.
pub(super) fn meaning(error: &RedisError, server: &str) -> CacheError {
    if error.is_timeout() {
        return CacheError::Timeout;
    }
    let refused = error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
    if refused {
        return CacheError::Misconfigured(format!(
            "{server} refuses the user, the password or a command: {error}"
        ));
    }
    match error.kind() {
        ErrorKind::InvalidClientConfig => CacheError::Misconfigured(format!("{server}: {error}")),
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot)
        | ErrorKind::Parse
        | ErrorKind::UnexpectedReturnType => CacheError::Protocol(format!("{server}: {error}")),
        _ => CacheError::Unavailable(format!("{server}: {error}")),
    }
}

/// Whether an error says that further calls would fail as well.
pub(super) fn is_about_the_server(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        ),
        // The connection works, the command does not: out of memory, a failed snapshot, a wrong type.
        ErrorKind::Extension => error.code() == Some("NOAUTH"),
        ErrorKind::UnexpectedReturnType => false,
        _ => true,
    }
}
