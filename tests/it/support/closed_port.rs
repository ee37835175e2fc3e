//! An address without a listener.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// Bound and not listening: connections are refused, and the system does not assign the port to another process.
#[derive(Debug)]
pub struct ClosedPort(TcpSocket);

impl ClosedPort {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self(socket)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }
}
