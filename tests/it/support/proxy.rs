//! A TCP proxy that can be cut, stalled, restored, and led elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Bytes pass.
    Restored,
    /// Connections stay open and no byte passes, as when a host drops packets.
    Stalled,
    /// Open connections are closed, new ones at once.
    Broken,
}

/// Stands between a client and a server until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    port: Arc<AtomicU16>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// A proxy to a server on this port of 127.0.0.1.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Restored);
        let port = Arc::new(AtomicU16::new(port));
        let accepting = accept(listener, Arc::clone(&port), modes);
        let task = AbortOnDropHandle::new(tokio::spawn(accepting));
        Self {
            address,
            mode,
            port,
            _task: task,
        }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to another port; open ones stay where they are.
    pub fn lead_to(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// Closes what is open and refuses what comes.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Broken);
    }

    /// Keeps connections open, and lets nothing pass.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stalled);
    }

    /// Lets bytes pass again.
    pub fn restore(&self) {
        self.mode.send_replace(Mode::Restored);
    }
}

async fn accept(listener: TcpListener, port: Arc<AtomicU16>, modes: watch::Receiver<Mode>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (modes, port) = (modes.clone(), port.load(Ordering::Relaxed));
        connections.spawn(async move {
            if *modes.borrow() == Mode::Broken {
                return;
            }
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = carry(from_client, to_server, modes.clone()) => {}
                () = carry(from_server, to_client, modes.clone()) => {}
                () = broken(modes) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn broken(mut modes: watch::Receiver<Mode>) {
    // An error means that the proxy was dropped: the same.
    let _ = modes.wait_for(|mode| *mode == Mode::Broken).await;
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if modes.wait_for(|mode| *mode != Mode::Stalled).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
