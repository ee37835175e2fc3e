//! `headcount audit`: compares cached counts with recounts, or two stores, and prints a table.

mod service;
mod table;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::args::AuditArgs;
use super::client::{Client, valid};
use super::output::{note, print, print_json, sanitized};
use super::progress::{Progress, Unit};
use super::variables::Variables;
use super::{Failure, duration};
use crate::config::{CacheKind, Settings, StoreKind};
use crate::wiring;
use domain::cache::CountCache;
use domain::store::PairStore;
use domain::text::duration_text;
use domain::{Clock, Segment, SteadyClock, Window};
use service::{Other, Service};
use table::{Account, Sample};
use telemetry::Metrics;
use tools::audit::{Auditor, AuditorParts, Finding, Keeping, Verdict};
use tools::transfer::RetryPolicy;

/// How long requests to an unavailable store or cache are retried.
const RETRY_FOR: Duration = Duration::from_secs(10);
/// InfluxDB's shard groups begin and end at full hours.
const SHARDS: Duration = Duration::from_hours(1);

pub(super) async fn run(mut args: AuditArgs, variables: Variables) -> Result<(), Failure> {
    let named: Vec<Segment> = args
        .segments
        .iter()
        .map(|name| valid(name))
        .collect::<Result<_, _>>()?;
    let by_url = args.target.url.is_some() || variables.get("HEADCOUNT_URL")?.is_some();
    let client = match by_url {
        true => Some(Client::new(&args.target, &variables)?),
        false => None,
    };
    let more = args.against.into_iter().collect();
    let over = args.settings.take("window");
    let loaded = std::mem::take(&mut args.settings).load_with(variables.into_vec(), more)?;
    let mut settings = loaded.settings;
    settings.ingest.spool = None;
    let window = window(&settings, over.as_deref())?;
    check(&settings, by_url, args.against)?;

    let clock = Arc::new(SteadyClock::default());
    let against = match args.against {
        Some(kind) => Some(open(&settings, kind, &clock).await?),
        None => None,
    };
    let auditing = match client {
        Some(client) => {
            let frame = settings.frame;
            let other = against.clone().map(|store| Other {
                store,
                hides_users: args.against == Some(StoreKind::Influx),
            });
            Auditing::Service(Service::new(client, frame, window, other))
        }
        None => {
            let store = open(&settings, settings.store.kind, &clock).await?;
            Auditing::Here(auditor(
                &settings,
                window,
                Arc::clone(&clock),
                store,
                against.clone(),
            )?)
        }
    };
    let result = auditing
        .all(named, &args, settings.refresh.parallelism)
        .await;
    let strangers = auditing.strangers(&*clock).await;
    for store in auditing.store().into_iter().chain(against) {
        if let Err(error) = store.close().await {
            note(&format!("warning: closing a store: {error}"));
        }
    }
    let (findings, sample) = result?;
    let strangers = strangers?;
    for stranger in &strangers {
        note(&format!("warning: {}", sanitized(stranger)));
    }
    let account = Account {
        window,
        against: args.against,
        sample,
        findings: &findings,
        strangers: &strangers,
    };
    match args.json {
        true => print_json(&account.document())?,
        false => print(&account.text())?,
    }
    let is_of_nothing = |found: &&Finding| {
        let cached = found.cached.as_ref().map_or(0, |cached| cached.users);
        !args.segments.is_empty() && found.recount.users == 0 && cached == 0
    };
    for finding in findings.iter().filter(is_of_nothing) {
        note(&format!(
            "warning: segment `{}` has no users: is its name correct?",
            sanitized(finding.segment.as_str())
        ));
    }
    let is_too_low = |finding: &Finding| matches!(finding.verdict, Verdict::TooLow(_));
    if findings.iter().any(is_too_low) {
        note(
            "note: a cached count is too low until the next refresh if pairs of earlier days were loaded since it was \
             computed",
        );
    }
    match account.unexplained() {
        0 if findings.is_empty() => Err(Failure::failed(
            "nothing was audited: there are no segments",
        )),
        0 if account.compares_nothing() => Err(Failure::failed(format!(
            "nothing was compared: the cache has no count of these segments over {}; is it the cache of the service, and is \
             this window refreshed (`refresh_windows`)?",
            duration_text(window.seconds())
        ))),
        0 if strangers.is_empty() => Ok(()),
        0 => Err(Failure::failed(
            "the counts agree, but other programs write into the store: see the warnings",
        )),
        unexplained => Err(Failure::failed(format!(
            "{unexplained} of {} segments have an unexplained difference",
            findings.len()
        ))),
    }
}

/// Refuses combinations of stores and cache that can't be audited, before anything connects.
fn check(settings: &Settings, by_url: bool, against: Option<StoreKind>) -> Result<(), Failure> {
    let kind = settings.store.kind;
    if by_url {
        // Live counts of a service are compared with the store that it records into.
        return Ok(());
    }
    if against == Some(kind) {
        return Err(Failure::usage(
            "--against names the configured store itself: give another one",
        ));
    }
    if kind == StoreKind::Embedded {
        return Err(Failure::usage(format!(
            "the embedded store in {} belongs to the service that runs on it: give its --url",
            settings.store.data_dir.display()
        )));
    }
    if settings.cache.kind == CacheKind::Memory && against.is_none() {
        return Err(Failure::usage(
            "with `cache = \"memory\"` cached counts live in the service: give its --url, or compare stores with \
             --against",
        ));
    }
    Ok(())
}

fn window(settings: &Settings, given: Option<&str>) -> Result<Window, Failure> {
    let Some(text) = given else {
        return Ok(settings.frame.full_window());
    };
    let length =
        duration(text).ok_or_else(|| Failure::usage("--window must be a duration such as 7d"))?;
    let window = settings.frame.window(length);
    window.map_err(|error| Failure::usage(format!("--window: {error}")))
}

async fn open(
    settings: &Settings,
    kind: StoreKind,
    clock: &SteadyClock,
) -> Result<Arc<dyn PairStore>, Failure> {
    let opened = wiring::open_store_of(settings, kind, &Arc::<Metrics>::default()).await;
    let opened = opened.map_err(|error| Failure::failed(error.to_string()))?;
    if let Some(head) = opened.head {
        clock.not_before(settings.frame.resolution().start_of(head));
    }
    Ok(opened.store)
}

fn auditor(
    settings: &Settings,
    window: Window,
    clock: Arc<SteadyClock>,
    store: Arc<dyn PairStore>,
    against: Option<Arc<dyn PairStore>>,
) -> Result<(Auditor, Arc<dyn PairStore>), Failure> {
    let cache: Option<Arc<dyn CountCache>> = match settings.cache.kind {
        CacheKind::Memory => None,
        CacheKind::Redis => {
            let opened = wiring::open_cache(settings);
            Some(opened.map_err(|error| Failure::failed(error.to_string()))?)
        }
    };
    let drops_by_itself = settings.store.kind == StoreKind::Influx;
    let auditor = Auditor::new(AuditorParts {
        frame: settings.frame,
        window,
        clock,
        store: Arc::clone(&store),
        keeping: Keeping {
            at_least: settings.cache.ttl,
            dropped_in_groups_of: drops_by_itself.then_some(SHARDS),
        },
        cache,
        against,
        retry: RetryPolicy::silent(RETRY_FOR),
    });
    Ok((auditor, store))
}

/// How segments are audited.
enum Auditing {
    /// In this process, from the configured store and cache.
    Here((Auditor, Arc<dyn PairStore>)),
    /// Through the HTTP API of a service.
    Service(Service),
}

impl Auditing {
    fn store(&self) -> Option<Arc<dyn PairStore>> {
        match self {
            Self::Here((_, store)) => Some(Arc::clone(store)),
            Self::Service(_) => None,
        }
    }

    /// What other programs wrote into the store. Empty for a service, which warns in its own log.
    async fn strangers(&self, clock: &dyn Clock) -> Result<Vec<String>, Failure> {
        match self {
            Self::Here((_, store)) => {
                let found = store.strangers(clock.now()).await;
                found.map_err(|error| Failure::failed(error.to_string()))
            }
            Self::Service(_) => Ok(Vec::new()),
        }
    }

    async fn segments(&self) -> Result<Vec<Segment>, Failure> {
        match self {
            Self::Here((auditor, _)) => {
                let listed = auditor.segments().await;
                listed.map_err(|error| Failure::failed(error.to_string()))
            }
            Self::Service(service) => service.segments().await,
        }
    }

    async fn audit(&self, segment: &Segment) -> Result<Finding, Failure> {
        match self {
            Self::Here((auditor, _)) => {
                let found = auditor.audit(segment).await;
                found.map_err(|error| Failure::failed(error.to_string()))
            }
            Self::Service(service) => service.audit(segment).await,
        }
    }

    /// Audits the named segments, or all, or a sample of either.
    async fn all(
        &self,
        named: Vec<Segment>,
        args: &AuditArgs,
        parallelism: usize,
    ) -> Result<(Vec<Finding>, Option<Sample>), Failure> {
        let mut segments = match named.is_empty() {
            true => self.segments().await?,
            false => named,
        };
        let sample = args.sample.map(|size| {
            let seed = args.seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
            let of = segments.len();
            let mut random = fastrand::Rng::with_seed(seed);
            random.shuffle(&mut segments);
            segments.truncate(usize::try_from(size).unwrap_or(usize::MAX));
            segments.sort_unstable();
            Sample { seed, of }
        });
        let progress = Progress::new(Some(segments.len() as u64), &Unit::Pairs);
        let findings = stream::iter(segments)
            .map(|segment| async {
                let segment = segment;
                let found = self.audit(&segment).await;
                progress.advance(1, || "segments recounted".to_owned());
                found
            })
            .buffered(parallelism.max(1))
            .try_collect()
            .await;
        progress.finish();
        Ok((findings?, sample))
    }
}
