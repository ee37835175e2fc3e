//! A connection to one server or to a cluster, behind one interface.

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

use super::{ClientOptions, Request};

/// Cheap to clone; requests of all clones share the sockets.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects, and checks with round trips that the server responds and can take writes.
    pub(super) async fn open(options: &ClientOptions) -> RedisResult<Self> {
        let mut connection = if options.server.is_cluster {
            let wait = u64::try_from(options.cluster_retry_wait.as_millis()).unwrap_or(u64::MAX);
            let client = ClusterClient::builder(options.server.nodes.clone())
                .retries(options.cluster_retries)
                .min_retry_wait(wait)
                .max_retry_wait(wait.saturating_mul(2))
                .connection_timeout(options.connect_timeout)
                .response_timeout(
                    options
                        .connect_timeout
                        .max(options.limits.longest_timeout()),
                )
                .build()?;
            Self::Cluster(client.get_async_connection().await?)
        } else {
            let client = Client::open(options.server.nodes[0].clone())?;
            // Every caller sets its own timeout.
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

    /// Rejects a single server that responds but can't take all writes: a replica, for example after a failover, or a
    /// node of a cluster, which has only a part of the keys. An old server or a proxy may not report its role; then
    /// the first request fails instead.
    async fn check_role(&mut self) -> RedisResult<()> {
        let Self::Single(connection) = self else {
            // The driver queries the roles of the nodes.
            return Ok(());
        };
        let Some(hello) = query_optional(connection, &redis::cmd("HELLO")).await else {
            return Ok(());
        };
        let hello: HashMap<String, Value> = redis::from_redis_value(hello).unwrap_or_default();
        let field = |name| match hello.get(name) {
            Some(Value::BulkString(text)) => String::from_utf8_lossy(text).into_owned(),
            Some(Value::SimpleString(text)) => text.clone(),
            _ => String::new(),
        };
        if matches!(&*field("role"), "replica" | "slave") {
            let kind = ErrorKind::Server(ServerErrorKind::ReadOnly);
            return Err((kind, "it is a replica").into());
        }
        if field("mode") != "cluster" {
            return Ok(());
        }
        let mut info = redis::cmd("CLUSTER");
        info.arg("INFO");
        let info = query_optional(connection, &info).await;
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

    /// A round trip. On a cluster any node will do: it knows the state of the whole cluster.
    pub(super) async fn ping(&mut self) -> RedisResult<()> {
        match self {
            Self::Single(connection) => {
                let response = connection.req_packed_command(&redis::cmd("PING")).await?;
                response.extract_error().map(drop)
            }
            Self::Cluster(connection) => {
                let mut info = redis::cmd("CLUSTER");
                info.arg("INFO");
                let anywhere = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                let response = connection
                    .route_command(info, anywhere)
                    .await?
                    .extract_error()?;
                let info: String = redis::from_redis_value(response)?;
                if info.contains("cluster_state:ok") {
                    return Ok(());
                }
                Err((ErrorKind::ClusterConnectionNotFound, "the cluster is down").into())
            }
        }
    }

    /// Sends all requests at once and returns the responses, in order. Fails with the first error; the other requests
    /// may have taken effect.
    pub(super) async fn send(&mut self, requests: &[Request<'_>]) -> RedisResult<Vec<Value>> {
        let short: Vec<_> = requests.iter().map(Request::short).collect();
        let mut responses = self.send_commands(&short).await?;
        // A restarted server, or a new node of a cluster, has not loaded the scripts yet.
        let unknown: Vec<(usize, Cmd)> = responses
            .iter()
            .enumerate()
            .filter(|(_, response)| matches!(response, Err(error) if is_unknown_script(error)))
            .filter_map(|(index, _)| Some((index, requests[index].full()?)))
            .collect();
        if !unknown.is_empty() {
            let (indexes, full): (Vec<_>, Vec<_>) = unknown.into_iter().unzip();
            for (index, response) in indexes.into_iter().zip(self.send_commands(&full).await?) {
                responses[index] = response;
            }
        }
        responses.into_iter().collect()
    }

    /// Returns the response of the server, or of each master of a cluster, to the same command.
    pub(super) async fn send_to_masters(&mut self, command: &Cmd) -> RedisResult<Vec<Value>> {
        match self {
            Self::Single(connection) => {
                let response = connection.req_packed_command(command).await?;
                Ok(vec![response.extract_error()?])
            }
            Self::Cluster(connection) => {
                let masters = MultipleNodeRoutingInfo::AllMasters;
                let response = connection
                    .route_command(command.clone(), RoutingInfo::MultiNode((masters, None)))
                    .await?
                    .extract_error()?;
                match response {
                    Value::Map(responses) => responses
                        .into_iter()
                        .map(|(_, it)| it.extract_error())
                        .collect(),
                    other => Ok(vec![other]),
                }
            }
        }
    }

    async fn send_commands(&mut self, commands: &[Cmd]) -> RedisResult<Vec<RedisResult<Value>>> {
        match self {
            Self::Single(connection) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command.clone());
                }
                let responses = connection
                    .req_packed_commands(&pipeline, 0, commands.len())
                    .await?;
                Ok(responses.into_iter().map(Value::extract_error).collect())
            }
            // The driver sends a pipeline to one node only. Sent concurrently, the commands still take one round trip.
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

/// Returns the response, or `None` on any error.
async fn query_optional(connection: &mut MultiplexedConnection, command: &Cmd) -> Option<Value> {
    let response = connection.req_packed_command(command).await.ok()?;
    response.extract_error().ok()
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
