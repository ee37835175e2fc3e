//! An HTTP server for the tests of client commands: serves a warp filter on port 0.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use warp::{Filter, Reply};

/// Stops accepting connections when it is dropped.
pub(crate) struct TestServer {
    pub(crate) url: String,
    accepting: JoinHandle<()>,
}

impl TestServer {
    pub(crate) async fn start<F>(filter: F) -> Self
    where
        F: Filter + Clone + Send + Sync + 'static,
        F::Extract: Reply + Send,
        F::Error: Into<warp::Rejection>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = TowerToHyperService::new(warp::service(filter.boxed()));
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                drop(tokio::spawn(async move {
                    let connection = auto::Builder::new(TokioExecutor::new());
                    let _ = connection
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                }));
            }
        });
        Self { url, accepting }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
