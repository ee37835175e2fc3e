//! Asks a live process over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Method, RequestBuilder};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use domain::overlap::{
    MAX_NAMED, MAX_PAIRS, Overlap, OverlapMatrix, PairOverlap, TopOverlaps, TopQuestion,
};
use domain::{
    Count, Expression, Floor, Flow, Membership, Reach, Segment, SetCount, TimeFrame, Timestamp,
    UserId, Window,
};
use engine::FlowSteps;
use engine::{At, Comparison, LiveProcess};

/// A reader has other sources, which are slower by less than this.
const TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than a process takes for any answer about sets of users.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(12);
/// A comparison of all segments may take long.
const COMPARISON_TIMEOUT: Duration = Duration::from_mins(30);
/// The source of the answers of a replica.
const LIVE: &str = "live";
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

#[derive(Deserialize)]
struct SetCountDocument {
    users: Option<u64>,
    #[serde(deserialize_with = "instant")]
    as_of: Timestamp,
    source: String,
}

#[derive(Deserialize)]
struct OverlapDocument {
    both: Vec<Vec<u64>>,
    everybody: u64,
    #[serde(deserialize_with = "instant")]
    as_of: Timestamp,
    source: String,
}

#[derive(Deserialize)]
struct TopDocument {
    pairs: Vec<PairDocument>,
    everybody: u64,
    #[serde(deserialize_with = "instant")]
    as_of: Timestamp,
    source: String,
}

#[derive(Deserialize)]
struct PairDocument {
    a: String,
    b: String,
    both: u64,
    users_a: u64,
    users_b: u64,
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
struct FlowDocument {
    steps: Vec<FlowEntry>,
}

#[derive(Deserialize)]
struct FlowEntry {
    entered: Option<u64>,
    left: Option<u64>,
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
        let mut request = request.bearer_auth(&at.token);
        for (name, value) in telemetry::traces::outgoing() {
            request = request.header(name, value);
        }
        request
    }

    /// Asks a question about sets of users.
    async fn ask<T: DeserializeOwned>(
        &self,
        at: &At,
        path: &str,
        query: &[(&str, String)],
    ) -> Option<T> {
        let request = self.request(at, Method::GET, path).query(query);
        received(request.timeout(QUESTION_TIMEOUT)).await
    }

    /// The segments with users that are within `reach`, if it is bound and they are few enough for a matrix. Their pairs may be
    /// far below the highest of all.
    async fn within(&self, at: &At, reach: &Reach, window: Window) -> Option<Vec<Segment>> {
        if reach.is_every() {
            return None;
        }
        let names = self.list(at, window).await?.into_iter();
        let names = names.map(|(segment, _)| segment);
        let own: Vec<Segment> = names.filter(|name| reach.covers(name.as_str())).collect();
        (2..=MAX_NAMED).contains(&own.len()).then_some(own)
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
        (document.source == LIVE).then_some(Count {
            users: document.users,
            as_of: document.as_of,
        })
    }

    async fn count_set(
        &self,
        at: &At,
        expression: &Expression,
        window: Window,
        floor: Floor,
    ) -> Option<SetCount> {
        let query = [
            ("expr", expression.to_string()),
            ("window", seconds(window)),
            ("min_users", floor.users().to_string()),
        ];
        let document: SetCountDocument = self.ask(at, "/v1/count", &query).await?;
        (document.source == LIVE).then_some(SetCount {
            users: document.users,
            as_of: document.as_of,
        })
    }

    async fn overlap(
        &self,
        at: &At,
        segments: &[Segment],
        window: Window,
        fresh: bool,
    ) -> Option<Overlap> {
        let mut query = vec![("window", seconds(window)), ("fresh", fresh.to_string())];
        let names = segments
            .iter()
            .map(|segment| ("segment", segment.to_string()));
        query.extend(names);
        let document: OverlapDocument = self.ask(at, "/v1/overlap", &query).await?;
        let rows = &document.both;
        let is_whole =
            rows.len() == segments.len() && rows.iter().all(|row| row.len() == rows.len());
        let both = |row: usize, column: usize| rows[row][column];
        (document.source == LIVE && is_whole).then(|| Overlap {
            matrix: OverlapMatrix::new(segments.to_vec(), document.everybody, both),
            as_of: document.as_of,
        })
    }

    async fn top_overlaps(
        &self,
        at: &At,
        question: TopQuestion,
        window: Window,
        fresh: bool,
    ) -> Option<TopOverlaps> {
        if let Some(own) = self.within(at, &question.reach, window).await {
            let overlap = self.overlap(at, &own, window, fresh).await?;
            let everybody = overlap.matrix.everybody();
            return Some(TopOverlaps {
                pairs: question.answer(overlap.matrix.pairs(), everybody),
                everybody,
                as_of: overlap.as_of,
            });
        }
        // The process has no floor, and this one may leave out some of the pairs. None of fewer users than the floor is left.
        let leaves_out = question.floor.is_on() || !question.reach.is_every();
        let limit = if leaves_out {
            MAX_PAIRS
        } else {
            question.limit
        };
        let at_least = question.at_least.max(question.floor.users());
        let query = [
            ("by", question.order.to_string()),
            ("limit", limit.min(MAX_PAIRS).to_string()),
            ("at_least", at_least.to_string()),
            ("window", seconds(window)),
            ("fresh", fresh.to_string()),
        ];
        let document: TopDocument = self.ask(at, "/v1/overlap/top", &query).await?;
        let everybody = document.everybody;
        let pairs = document.pairs.into_iter().map(|pair| {
            let (a, b) = (Segment::new(&pair.a).ok()?, Segment::new(&pair.b).ok()?);
            Some(PairOverlap::new(
                (&a, pair.users_a),
                (&b, pair.users_b),
                pair.both,
            ))
        });
        let pairs: Vec<_> = pairs.collect::<Option<_>>()?;
        (document.source == LIVE).then(|| TopOverlaps {
            pairs: question.answer(pairs, everybody),
            everybody,
            as_of: document.as_of,
        })
    }

    async fn flow(
        &self,
        at: &At,
        segment: &Segment,
        steps: &FlowSteps,
    ) -> Option<Vec<Option<Flow>>> {
        let begin = steps.begin();
        let (from, to) = (begin.start().to_string(), begin.end().to_string());
        let query = [
            ("segment", segment.as_str()),
            ("from", &from),
            ("to", &to),
            ("step", &format!("{}s", steps.length().as_secs())),
        ];
        let document: FlowDocument = self.get(at, "/v1/segments/-/flow", &query).await?;
        let flow = |entry: FlowEntry| {
            let (entered, left) = (entry.entered?, entry.left?);
            Some(Flow { entered, left })
        };
        Some(document.steps.into_iter().map(flow).collect())
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
