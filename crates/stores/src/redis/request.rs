//! What is asked of Redis: commands, and scripts that it may not know yet.

use redis::{Cmd, ToRedisArgs};

/// A script, sent by its hash, or in full to a server that does not know it yet.
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

/// One thing to ask of Redis.
#[derive(Debug, Clone)]
pub(crate) enum Request<'a> {
    /// A plain command.
    Command(Cmd),
    /// A script with its keys and arguments.
    Run(&'a Script, Vec<String>, Vec<String>),
}

impl Request<'_> {
    /// A plain command.
    pub(crate) fn command(name: &'static str, args: impl ToRedisArgs) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(args);
        Self::Command(cmd)
    }

    /// How many arguments it has: a measure of what it costs the server.
    pub(crate) fn arguments(&self) -> usize {
        match self {
            Self::Command(cmd) => cmd.args_iter().len(),
            Self::Run(_, keys, args) => keys.len() + args.len(),
        }
    }

    /// The command that a server understands which has seen the script before.
    pub(crate) fn short(&self) -> Cmd {
        match self {
            Self::Command(cmd) => cmd.clone(),
            Self::Run(script, keys, args) => run("EVALSHA", &script.hash, keys, args),
        }
    }

    /// The command that every server understands; `None` when it is no other than the short one.
    pub(crate) fn full(&self) -> Option<Cmd> {
        match self {
            Self::Command(_) => None,
            Self::Run(script, keys, args) => Some(run("EVAL", &script.body, keys, args)),
        }
    }
}

fn run(name: &str, script: &str, keys: &[String], args: &[String]) -> Cmd {
    let mut cmd = redis::cmd(name);
    cmd.arg(script).arg(keys.len()).arg(keys).arg(args);
    cmd
}
