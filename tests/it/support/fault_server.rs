//! A small HTTP server that returns wrong responses on purpose.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A received request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path and query.
    pub target: String,
    /// The request line and the headers.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The body as a string.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The value of the header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines
            .filter(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim());
        found.next_back()
    }
}

/// The reaction to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Sends these bytes, then closes the connection.
    Bytes(Vec<u8>),
    /// Forwards the request to this port of 127.0.0.1, and sends its response.
    Pass(u16),
    /// Sends nothing until the client closes the connection.
    Stall,
    /// Sends these bytes, then nothing until the client closes the connection.
    BytesThenStall(Vec<u8>),
    /// Sends the other reply after this time.
    After(Duration, Box<Reply>),
}

impl Reply {
    /// A complete response with a status, additional header lines and a body.
    pub fn status(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::text(&format!(
            "HTTP/1.1 {status} Some\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    }

    /// The response of InfluxDB to a successful write.
    pub fn written() -> Self {
        Self::text("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    }

    /// The response of InfluxDB to a query, in one chunk, with a proper end.
    pub fn csv(body: &str) -> Self {
        let length = body.len();
        Self::text(&format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        ))
    }

    /// The same reply, after `time`.
    pub fn after(self, time: Duration) -> Self {
        Self::After(time, Box::new(self))
    }

    /// Sends these characters, then closes the connection.
    pub fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

type Behaviour = dyn Fn(usize, &Request) -> Reply + Send + Sync;

/// The server. It stops on drop.
pub struct FaultServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

impl FaultServer {
    /// Starts a server that calls `behaviour` for the n-th request, counted from 0.
    pub async fn start(
        behaviour: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&requests), Arc::new(behaviour)));
        Self {
            address,
            requests,
            accepting,
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    requests: Arc<Mutex<Vec<Request>>>,
    behaviour: Arc<Behaviour>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve(stream, Arc::clone(&requests), Arc::clone(&behaviour)));
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: Arc<Mutex<Vec<Request>>>,
    behaviour: Arc<Behaviour>,
) {
    let Some((head, request)) = read_request(&mut stream).await else {
        return;
    };
    let number = {
        let mut requests = requests.lock().unwrap();
        requests.push(request.clone());
        requests.len() - 1
    };
    let mut reply = behaviour(number, &request);
    while let Reply::After(time, then) = reply {
        tokio::time::sleep(time).await;
        reply = *then;
    }
    match reply {
        Reply::Pass(port) => pass(stream, port, &head, &request.body).await,
        Reply::Bytes(bytes) => {
            // The client may have closed the connection.
            drop(stream.write_all(&bytes).await);
            drop(stream.shutdown().await);
        }
        Reply::BytesThenStall(bytes) => {
            drop(stream.write_all(&bytes).await);
            until_closed(&mut stream).await;
        }
        Reply::Stall | Reply::After(..) => until_closed(&mut stream).await,
    }
}

async fn pass(mut client: TcpStream, port: u16, head: &str, body: &[u8]) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    // The end of the connection ends the reply.
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let request = [head.as_bytes(), body].concat();
    if server.write_all(&request).await.is_ok() {
        drop(tokio::io::copy(&mut server, &mut client).await);
        drop(client.shutdown().await);
    }
}

async fn until_closed(stream: &mut TcpStream) {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

/// The head and the request.
async fn read_request(stream: &mut TcpStream) -> Option<(String, Request)> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().unwrap());
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let request = Request {
        target: text.split(' ').nth(1)?.to_owned(),
        head: text.clone(),
        body: bytes[head..].to_vec(),
    };
    Some((text, request))
}
