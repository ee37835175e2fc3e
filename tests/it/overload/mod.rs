//! More load than the service can handle, and malicious clients. The service continues to serve other clients, in
//! bounded memory.

mod file_descriptors;
mod frames;
mod http1;
mod http2;
mod load;
mod slow_readers;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::service::Service;

/// The timeout of every wait, long enough for a machine under load.
const DEADLINE: Duration = Duration::from_secs(120);

/// Waits for a future, and fails the test at the deadline.
async fn within<T>(what: &str, happening: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(DEADLINE, happening).await;
    happened.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// A client with a small receive buffer: the service has to hold what the client does not read.
async fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

/// Sends a request without a body on an open connection. Returns the status, and the head and body.
async fn get(stream: &mut TcpStream, target: &str) -> std::io::Result<(u16, String)> {
    let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    read_response(stream).await
}

/// The next response on an open connection: its status, and its head and body.
async fn read_response(stream: &mut TcpStream) -> std::io::Result<(u16, String)> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    let status = head[9..12].parse().unwrap();
    Ok((status, head + &String::from_utf8_lossy(&body)))
}

/// Waits until the peer closes the connection, and reads until then.
async fn closes(stream: &mut TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    // A reset ends the connection, too.
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// Asserts that the service serves a new client immediately while others misbehave.
async fn assert_serves(server: &Service) {
    let asked = async {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        get(&mut stream, "/v1/segments/any/count").await.unwrap()
    };
    let (status, text) = within("a response to another client", asked).await;
    assert_eq!(status, 200, "{text}");
}

/// The growth of memory since `before`, in MiB.
fn growth_mib(server: &Service, before: u64) -> u64 {
    server.process().resident_bytes().saturating_sub(before) >> 20
}

/// Prints visibly that a test is skipped, and why: the harness hides the output of tests.
fn skip(why: &str) {
    use std::io::Write;
    let line = format!("SKIPPED: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
