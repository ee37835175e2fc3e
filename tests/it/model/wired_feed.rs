//! A change feed and a board of published counts behind wires: those in memory, whose calls fail like those of a server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::feed::model::ModelFeed;
use domain::feed::{
    Append, Appended, ChangeFeed, Cursor, FeedError, FeedId, FeedSize, Idle, Page, ReaderId,
    Writer, WriterId,
};
use domain::published::model::ModelPublished;
use domain::published::{
    Board, BoardError, Fence, Position, PublishError, PublishedCounts, Tick, Update,
};

use super::steps::{Call, Fate};
use super::wire::{Course, Wire};

/// How long a call waits for its response. A change may be executed later all the same.
const PATIENCE: Duration = Duration::from_millis(50);

/// Why a call got no response.
pub enum Broken {
    Refused,
    TimedOut,
}

impl From<Broken> for FeedError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Refused => Self::Unavailable("switched off".to_owned()),
            Broken::TimedOut => Self::Timeout,
        }
    }
}

impl From<Broken> for BoardError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Refused => Self::Unavailable("switched off".to_owned()),
            Broken::TimedOut => Self::Timeout,
        }
    }
}

impl From<Broken> for PublishError {
    fn from(broken: Broken) -> Self {
        Self::Board(broken.into())
    }
}

/// One server behind the wire of an instance.
#[derive(Debug)]
pub struct Wired<P> {
    server: Arc<P>,
    wire: Arc<Wire>,
}

impl<P: Send + Sync + 'static> Wired<P> {
    pub fn new(server: &Arc<P>, wire: &Arc<Wire>) -> Self {
        Self {
            server: Arc::clone(server),
            wire: Arc::clone(wire),
        }
    }

    async fn via<T, E, F>(
        &self,
        kind: Call,
        call: impl FnOnce(Arc<P>) -> F + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Broken> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send,
    {
        let server = Arc::clone(&self.server);
        match self.wire.course(kind) {
            Course::Passes => call(server).await,
            Course::Fails(Fate::ResponseLost) => {
                let _ = call(server).await;
                Err(Broken::TimedOut.into())
            }
            Course::Fails(_) => Err(Broken::Refused.into()),
            Course::WaitsBefore(waiting) => {
                let wire = Arc::clone(&self.wire);
                let late = async move {
                    wire.wait(waiting).await;
                    call(server).await
                };
                let in_time = match kind {
                    Call::Append | Call::Publish => {
                        let late = tokio::time::timeout(PATIENCE, tokio::spawn(late)).await;
                        late.map(Result::unwrap)
                    }
                    // Nobody notices a late read.
                    _ => tokio::time::timeout(PATIENCE, late).await,
                };
                in_time.unwrap_or_else(|_| Err(Broken::TimedOut.into()))
            }
            Course::WaitsAfter(waiting) => {
                let answer = call(server).await;
                let waited = tokio::time::timeout(PATIENCE, self.wire.wait(waiting)).await;
                waited.map_or_else(|_| Err(Broken::TimedOut.into()), |()| answer)
            }
            Course::Never => std::future::pending().await,
        }
    }
}

#[async_trait]
impl ChangeFeed for Wired<ModelFeed> {
    async fn append(&self, known: Option<FeedId>, append: &Append) -> Result<Appended, FeedError> {
        let append = append.clone();
        let appending = async move |feed: Arc<ModelFeed>| feed.append(known, &append).await;
        self.via(Call::Append, appending).await
    }

    async fn check(
        &self,
        known: Option<FeedId>,
        writer: WriterId,
        last: u64,
    ) -> Result<Appended, FeedError> {
        let check = async move |feed: Arc<ModelFeed>| feed.check(known, writer, last).await;
        self.via(Call::Other, check).await
    }

    async fn read(&self, after: &Cursor, max_bytes: usize) -> Result<Page, FeedError> {
        let after = *after;
        let read = async move |feed: Arc<ModelFeed>| feed.read(&after, max_bytes).await;
        self.via(Call::Read, read).await
    }

    async fn end(&self) -> Result<Cursor, FeedError> {
        let end = async move |feed: Arc<ModelFeed>| feed.end().await;
        self.via(Call::Other, end).await
    }

    async fn trim(&self, reader: ReaderId, at: &Cursor, idle: Idle) -> Result<(), FeedError> {
        let at = *at;
        let trim = async move |feed: Arc<ModelFeed>| feed.trim(reader, &at, idle).await;
        self.via(Call::Other, trim).await
    }

    async fn writers(&self) -> Result<Vec<Writer>, FeedError> {
        let list = async move |feed: Arc<ModelFeed>| feed.writers().await;
        self.via(Call::Other, list).await
    }

    async fn size(&self) -> Result<FeedSize, FeedError> {
        let size = async move |feed: Arc<ModelFeed>| feed.size().await;
        self.via(Call::Other, size).await
    }
}

#[async_trait]
impl PublishedCounts for Wired<ModelPublished> {
    async fn acquire(&self, owner: u64, ttl: Duration) -> Result<Option<Fence>, BoardError> {
        let acquire = async move |board: Arc<ModelPublished>| board.acquire(owner, ttl).await;
        self.via(Call::Acquire, acquire).await
    }

    async fn release(&self, owner: u64) -> Result<(), BoardError> {
        let release = async move |board: Arc<ModelPublished>| board.release(owner).await;
        self.via(Call::Other, release).await
    }

    async fn publish(&self, fence: Fence, tick: &Tick) -> Result<(), PublishError> {
        let tick = tick.clone();
        let publish = async move |board: Arc<ModelPublished>| board.publish(fence, &tick).await;
        self.via(Call::Publish, publish).await
    }

    async fn load(&self) -> Result<Option<Board>, BoardError> {
        let load = async move |board: Arc<ModelPublished>| board.load().await;
        self.via(Call::Follow, load).await
    }

    async fn follow(&self, after: &Position) -> Result<Update, BoardError> {
        let after = *after;
        let follow = async move |board: Arc<ModelPublished>| board.follow(&after).await;
        self.via(Call::Follow, follow).await
    }
}
