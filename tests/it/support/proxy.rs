//! A TCP proxy that can be cut, stalled, restored, and redirected.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

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
    /// Open connections are closed, and new ones are closed immediately.
    Broken,
}

/// The number of bytes received from the server, and the number that may pass.
#[derive(Debug)]
struct Meter {
    passed: AtomicU64,
    allowed: watch::Sender<u64>,
}

impl Meter {
    /// Waits until this many more bytes may pass.
    async fn take(&self, bytes: usize) {
        let bytes = bytes as u64;
        let after = self.passed.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let mut allowed = self.allowed.subscribe();
        // The channel can't be closed while `self` exists.
        let _ = allowed.wait_for(|allowed| *allowed >= after).await;
    }
}

/// Forwards connections from clients to a server until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    port: Arc<AtomicU16>,
    /// Each open connection holds a clone.
    open: Arc<()>,
    meter: Arc<Meter>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// A proxy to a server on this port of 127.0.0.1.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Restored);
        let port = Arc::new(AtomicU16::new(port));
        let open = Arc::new(());
        let meter = Arc::new(Meter {
            passed: AtomicU64::new(0),
            allowed: watch::Sender::new(u64::MAX),
        });
        let shared = Shared {
            port: Arc::clone(&port),
            modes,
            open: Arc::clone(&open),
            meter: Arc::clone(&meter),
        };
        let accepting = accept(listener, shared);
        let task = AbortOnDropHandle::new(tokio::spawn(accepting));
        Self {
            address,
            mode,
            port,
            open,
            meter,
            _task: task,
        }
    }

    /// The number of open connections. Bytes of their clients may still be in transit.
    pub fn connections(&self) -> usize {
        // Without this clone and that of the accepting task.
        Arc::strong_count(&self.open) - 2
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards new connections to another port. Open ones keep their server.
    pub fn redirect_to(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// Closes open connections and refuses new ones.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Broken);
    }

    /// Keeps connections open, and forwards nothing.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stalled);
    }

    /// Forwards bytes again.
    pub fn restore(&self) {
        self.meter.allowed.send_replace(u64::MAX);
        self.mode.send_replace(Mode::Restored);
    }

    /// From here on only the bytes that [`allow`](Self::allow) permits pass from the server.
    pub fn meter(&self) {
        let passed = self.meter.passed.load(Ordering::SeqCst);
        self.meter.allowed.send_replace(passed);
    }

    /// Allows this many more bytes.
    pub fn allow(&self, bytes: u64) {
        self.meter.allowed.send_modify(|allowed| *allowed += bytes);
    }
}

/// The state that every connection needs.
#[derive(Clone)]
struct Shared {
    port: Arc<AtomicU16>,
    modes: watch::Receiver<Mode>,
    open: Arc<()>,
    meter: Arc<Meter>,
}

async fn accept(listener: TcpListener, shared: Shared) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        connections.spawn(async move {
            let Shared {
                port,
                modes,
                open,
                meter,
            } = shared;
            if *modes.borrow() == Mode::Broken {
                return;
            }
            let port = port.load(Ordering::Relaxed);
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = carry(from_client, to_server, modes.clone(), None) => {}
                () = carry(from_server, to_client, modes.clone(), Some(&meter)) => {}
                () = broken(modes) => {}
            }
            drop(open);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn broken(mut modes: watch::Receiver<Mode>) {
    // An error means that the proxy was dropped, which has the same effect.
    let _ = modes.wait_for(|mode| *mode == Mode::Broken).await;
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut modes: watch::Receiver<Mode>,
    meter: Option<&Meter>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if modes.wait_for(|mode| *mode != Mode::Stalled).await.is_err() {
            return;
        }
        if let Some(meter) = meter {
            meter.take(length).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
