//! Requests to Redis: commands, and scripts that the server may not have loaded yet.

use redis::{Cmd, ToRedisArgs};

/// A script, sent as its hash, or in full to a server that has not loaded it yet.
#[derive(Debug)]
pub(crate) struct Script {
    body: String,
    hash: String,
}

impl Script {
    pub(crate) fn new(body: impl Into<String>) -> Self {
        let body = body.into();
        let hash = redis::Script::new(&body).get_hash().to_owned();
        Self { body, hash }
    }
}

/// One request to Redis.
#[derive(Debug, Clone)]
pub(crate) enum Request<'a> {
    /// A plain command.
    Command(Cmd),
    /// A script with its keys and arguments.
    Run(&'a Script, Vec<String>, Vec<String>),
    /// A script with its keys and arguments, and bytes as the last argument.
    RunOn(&'a Script, Vec<String>, Vec<String>, &'a [u8]),
}

impl Request<'_> {
    pub(crate) fn command(name: &'static str, args: impl ToRedisArgs) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(args);
        Self::Command(cmd)
    }

    /// The number of arguments: a measure of the cost for the server.
    pub(crate) fn arguments(&self) -> usize {
        match self {
            Self::Command(cmd) => cmd.args_iter().len(),
            Self::Run(_, keys, args) => keys.len() + args.len(),
            Self::RunOn(_, keys, args, _) => keys.len() + args.len() + 1,
        }
    }

    /// The command for a server that has loaded the script.
    pub(crate) fn short(&self) -> Cmd {
        match self {
            Self::Command(cmd) => cmd.clone(),
            Self::Run(script, keys, args) => run("EVALSHA", &script.hash, keys, args),
            Self::RunOn(script, keys, args, bytes) => {
                let mut cmd = run("EVALSHA", &script.hash, keys, args);
                cmd.arg(bytes);
                cmd
            }
        }
    }

    /// The command for a server that has not loaded the script; `None` when it equals the short one.
    pub(crate) fn full(&self) -> Option<Cmd> {
        match self {
            Self::Command(_) => None,
            Self::Run(script, keys, args) => Some(run("EVAL", &script.body, keys, args)),
            Self::RunOn(script, keys, args, bytes) => {
                let mut cmd = run("EVAL", &script.body, keys, args);
                cmd.arg(bytes);
                Some(cmd)
            }
        }
    }
}

fn run(name: &str, script: &str, keys: &[String], args: &[String]) -> Cmd {
    let mut cmd = redis::cmd(name);
    cmd.arg(script).arg(keys.len()).arg(keys).arg(args);
    cmd
}
