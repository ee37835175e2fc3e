//! A connection to one server or to a cluster, behind one face.

use std::collections::HashMap;

use futures::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value,
};

use super::{LinkOptions, Request};

/// Cheap to clone; requests of all clones share the sockets.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects and proves by round trips that the server serves, and that it is the right one.
    pub(super) async fn open(options: &LinkOptions) -> RedisResult<Self> {
        let mut connection = if options.server.is_cluster {
            let wait = u64::try_from(options.cluster_retry_wait.as_millis()).unwrap_or(u64::MAX);
            let client = ClusterClient::builder(options.server.nodes.clone())
                .retries(options.cluster_retries)
                .min_retry_wait(wait)
                .max_retry_wait(wait.saturating_mul(2))
                .connection_timeout(options.connect_timeout)
                .response_timeout(options.connect_timeout.max(options.pieces.longest()))
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
        connection.check_role().await?;
        Ok(connection)
    }

    /// Refuses one server that answers but can't take writes: the replica that a failover made of it, or a node of a
    /// cluster, which has a part of the keys. What an old server or a proxy does not tell is left to the first
    /// request.
    async fn check_role(&mut self) -> RedisResult<()> {
        let Self::Single(connection) = self else {
            // The driver asks the nodes who they are.
            return Ok(());
        };
        let Some(told) = ask_quietly(connection, &redis::cmd("HELLO")).await else {
            return Ok(());
        };
        let told: HashMap<String, Value> = redis::from_redis_value(told).unwrap_or_default();
        let text = |name| match told.get(name) {
            Some(Value::BulkString(text)) => String::from_utf8_lossy(text).into_owned(),
            Some(Value::SimpleString(text)) => text.clone(),
            _ => String::new(),
        };
        if matches!(&*text("role"), "replica" | "slave") {
            let kind = ErrorKind::Server(ServerErrorKind::ReadOnly);
            return Err((kind, "it is a replica").into());
        }
        if text("mode") != "cluster" {
            return Ok(());
        }
        let mut info = redis::cmd("CLUSTER");
        info.arg("INFO");
        let info = ask_quietly(connection, &info).await;
        let info: String = info
            .and_then(|info| redis::from_redis_value(info).ok())
            .unwrap_or_default();
        let masters = info
            .lines()
            .find_map(|line| line.strip_prefix("cluster_size:"));
        match masters.and_then(|masters| masters.trim().parse::<u32>().ok()) {
            None | Some(0 | 1) => Ok(()),
            Some(_) => Err((
                ErrorKind::InvalidClientConfig,
                "it is one node of a cluster: the URL must begin with redis+cluster:// or rediss+cluster://",
            )
                .into()),
        }
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

    /// The answers of the server, or of each master of a cluster, to the same question.
    pub(super) async fn ask_masters(&mut self, command: &Cmd) -> RedisResult<Vec<Value>> {
        match self {
            Self::Single(connection) => {
                let answer = connection.req_packed_command(command).await?;
                Ok(vec![answer.extract_error()?])
            }
            Self::Cluster(connection) => {
                let masters = MultipleNodeRoutingInfo::AllMasters;
                let answer = connection
                    .route_command(command.clone(), RoutingInfo::MultiNode((masters, None)))
                    .await?
                    .extract_error()?;
                match answer {
                    Value::Map(answers) => answers
                        .into_iter()
                        .map(|(_, it)| it.extract_error())
                        .collect(),
                    other => Ok(vec![other]),
                }
            }
        }
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

/// The answer; nothing where the server refuses to give it.
async fn ask_quietly(connection: &mut MultiplexedConnection, command: &Cmd) -> Option<Value> {
    let answer = connection.req_packed_command(command).await.ok()?;
    answer.extract_error().ok()
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
