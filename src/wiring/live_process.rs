//! Asks a live process over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Method, RequestBuilder};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use domain::{Count, Expression, Membership, Segment, TimeFrame, Timestamp, UserId, Window};
use engine::{At, Comparison, LiveProcess};

/// A reader has other sources, which are slower by less than this.
const TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than a process takes for any answer about sets of users.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(12);
/// A comparison of all segments may take long.
const COMPARISON_TIMEOUT: Duration = Duration::from_mins(30);
/// The largest page of segments.
const PAGE: &str = "1000";

/// The API of a live process.
#[derive(Debug)]
pub(super) struct HttpLiveProcess {
    http: Client,
    frame: TimeFrame,
}

#[derive(Deserialize)]
struct CountDocument {
    users: u64,
    #[serde(deserialize_with = "instant")]
    as_of: Timestamp,
    source: String,
}

impl CountDocument {
    /// The count, if it is of the replica.
    fn live(self) -> Option<Count> {
        (self.source == "live").then_some(Count {
            users: self.users,
            as_of: self.as_of,
        })
    }
}

#[derive(Deserialize)]
struct SegmentsDocument {
    segments: Vec<Entry>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    segment: String,
    users: Option<u64>,
    as_of: Option<String>,
}

#[derive(Deserialize)]
struct UserDocument {
    segments: Vec<MembershipEntry>,
}

#[derive(Deserialize)]
struct MembershipEntry {
    segment: String,
    #[serde(deserialize_with = "instant")]
    last_seen: Timestamp,
}

#[derive(Deserialize)]
struct RefreshedDocument {
    refreshed: u64,
    failed: u64,
    differences: Option<u64>,
    took_seconds: f64,
    skipped: Option<String>,
}

impl HttpLiveProcess {
    pub(super) fn new(frame: TimeFrame) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // The token must not reach another host.
            .redirect(reqwest::redirect::Policy::none())
            // The process is inside the cluster.
            .no_proxy()
            .build()?;
        Ok(Self { http, frame })
    }

    fn request(&self, at: &At, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", at.address));
        request.bearer_auth(&at.token)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        at: &At,
        path: &str,
        query: &[(&str, &str)],
    ) -> Option<T> {
        received(self.request(at, Method::GET, path).query(query)).await
    }
}

/// The document of the response. A failure is logged, and the caller has other sources.
async fn received<T: DeserializeOwned>(request: RequestBuilder) -> Option<T> {
    let received = async { request.send().await?.error_for_status()?.json().await };
    match received.await {
        Ok(document) => Some(document),
        Err(error) => {
            // The URL may have a user id.
            let error = error.without_url();
            tracing::debug!(%error, "the live process did not respond");
            None
        }
    }
}

fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

fn seconds(window: Window) -> String {
    format!("{}s", window.seconds())
}

#[async_trait]
impl LiveProcess for HttpLiveProcess {
    async fn count(&self, at: &At, segment: &Segment, window: Window) -> Option<Count> {
        // In the query a name needs no care.
        let query = [("segment", segment.as_str()), ("window", &seconds(window))];
        let document: CountDocument = self.get(at, "/v1/segments/-/count", &query).await?;
        document.live()
    }

    async fn count_set(&self, at: &At, expression: &Expression, window: Window) -> Option<Count> {
        let (expr, window) = (expression.to_string(), seconds(window));
        let request = self
            .request(at, Method::GET, "/v1/count")
            .query(&[("expr", &expr), ("window", &window)])
            .timeout(QUESTION_TIMEOUT);
        received::<CountDocument>(request).await?.live()
    }

    async fn list(&self, at: &At, window: Window) -> Option<Vec<(Segment, Count)>> {
        let (window, mut cursor, mut list) = (seconds(window), String::new(), Vec::new());
        loop {
            let query = [
                ("window", window.as_str()),
                ("limit", PAGE),
                ("cursor", &cursor),
            ];
            let page: SegmentsDocument = self.get(at, "/v1/segments", &query).await?;
            for entry in page.segments {
                let (users, as_of) = (entry.users?, entry.as_of?.parse().ok()?);
                let segment = Segment::new(&entry.segment).ok()?;
                list.push((segment, Count { users, as_of }));
            }
            match page.next {
                Some(next) => cursor = next,
                None => return Some(list),
            }
        }
    }

    async fn memberships(&self, at: &At, user: &UserId<'_>) -> Option<Vec<Membership>> {
        let query = [("user_id", user.as_str())];
        let document: UserDocument = self.get(at, "/v1/users/-", &query).await?;
        let memberships = document.segments.into_iter().map(|entry| {
            Some(Membership {
                segment: Segment::new(&entry.segment).ok()?,
                last_seen: self.frame.resolution().slot_of(entry.last_seen),
            })
        });
        memberships.collect()
    }

    async fn compare(&self, at: &At, only: Option<&Segment>) -> Option<Comparison> {
        let query: Vec<_> = only
            .map(|only| ("segment", only.as_str()))
            .into_iter()
            .collect();
        let request = self
            .request(at, Method::POST, "/v1/admin/refresh")
            .query(&query)
            .timeout(COMPARISON_TIMEOUT);
        let document: RefreshedDocument = received(request).await?;
        if document.skipped.is_some() {
            return Some(Comparison::UnderWay);
        }
        Some(Comparison::Done {
            compared: document.refreshed,
            failed: document.failed,
            differences: document.differences?,
            took: Duration::try_from_secs_f64(document.took_seconds).unwrap_or_default(),
        })
    }
}
