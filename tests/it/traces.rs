//! Traces of the real program, decoded by a collector over OTLP/HTTP.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message;
use stores::postgres::set_up;

use crate::support::closed_port::ClosedPort;
use crate::support::fault_server::{FaultServer, Reply};
use crate::support::postgres::Postgres;
use crate::support::program::headcount;
use crate::support::redis::Redis;
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const PAIR: &str = r#"{"user_id":"u104010","segment":"news"}"#;

/// A collector that takes everything.
async fn collector() -> FaultServer {
    FaultServer::start(|_, _| Reply::status(200, "Content-Type: application/x-protobuf\r\n", ""))
        .await
}

/// A service that sends only at its end, or when there are many spans.
fn service(folder: &Path, settings: &[(&str, &str)]) -> Service {
    run("serve", folder, settings)
}

/// The same for a process of another role.
fn run(command: &str, folder: &Path, settings: &[(&str, &str)]) -> Service {
    let never = OsStr::new("3600000");
    let variables = [
        ("OTEL_BSP_SCHEDULE_DELAY", never),
        ("OTEL_EXPORTER_OTLP_HEADERS", OsStr::new("x-tenant=counts")),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            OsStr::new("deployment.environment.name=test"),
        ),
    ];
    let mut process = headcount(folder, settings, &[command, "--listen", "127.0.0.1:0"]);
    Service::run(folder, process.envs(variables))
}

async fn post(service: &Service, path: &str, body: &'static str, traceparent: Option<&str>) -> u16 {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);
    let mut request = CLIENT
        .post(format!("{}{path}", service.url()))
        .header("content-type", "application/json")
        .header("authorization", "Bearer a-secret-token")
        .body(body);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    request.send().await.unwrap().status().as_u16()
}

/// The number of spans with this outcome.
async fn spans(service: &Service, outcome: &str) -> u64 {
    let metrics = service.text("/metrics").await;
    let sample = format!("headcount_trace_spans_total{{outcome=\"{outcome}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&sample));
    value.unwrap().parse().unwrap()
}

fn sampled() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// The attributes of the sender, and all spans.
fn received(collector: &FaultServer) -> (BTreeMap<String, String>, Vec<Span>) {
    let (mut sender, mut spans) = (BTreeMap::new(), Vec::new());
    for request in collector.requests() {
        assert_eq!(request.target, "/v1/traces");
        assert_eq!(
            request.header("content-type"),
            Some("application/x-protobuf")
        );
        assert_eq!(request.header("x-tenant"), Some("counts"));
        let message = ExportTraceServiceRequest::decode(request.body.as_slice()).unwrap();
        for resource in message.resource_spans {
            sender = attributes(&resource.resource.unwrap().attributes);
            spans.extend(resource.scope_spans.into_iter().flat_map(|it| it.spans));
        }
    }
    (sender, spans)
}

fn attributes(given: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs = given.iter().map(|it| (it.key.clone(), text(&it.value)));
    pairs.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = spans.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("no span {name}: {spans:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_continues_the_trace_of_its_client_and_the_end_sends_it() {
    let (collector, folder) = (collector().await, tempfile::tempdir().unwrap());
    let endpoint = format!("{}/", collector.url());
    let settings = [("otlp_endpoint", endpoint.as_str()), ("log_format", "json")];
    let service = service(folder.path(), &settings);
    assert_eq!(
        post(&service, "/v1/pairs", PAIR, Some(&sampled())).await,
        200
    );
    assert_eq!(
        post(&service, "/v1/pairs", "[", Some(&sampled())).await,
        400
    );
    // Probes are not traced.
    service.get("/readyz").await;
    let refused = service.logged("request refused");
    let refused: serde_json::Value = serde_json::from_str(&refused[0]).unwrap();
    assert_eq!(refused["span"]["trace_id"], TRACE, "{refused}");
    assert_eq!(refused["span"]["request_id"], refused["request_id"]);
    assert!(collector.requests().is_empty());
    assert_eq!(service.terminate().await, Some(0));

    let (sender, spans) = received(&collector);
    assert_eq!(sender["service.name"], "headcount");
    assert_eq!(sender["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(sender["service.instance.id"].len(), 32);
    assert_eq!(sender["headcount.role"], "serve");
    assert_eq!(sender["deployment.environment.name"], "test");

    let requests: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "POST /v1/pairs")
        .collect();
    assert_eq!(requests.len(), 2, "{spans:?}");
    let request = requests[0];
    assert_eq!(request.kind(), SpanKind::Server);
    assert_eq!(hex(&request.parent_span_id), PARENT);
    let about = attributes(&request.attributes);
    assert_eq!(about["http.request.method"], "POST");
    assert_eq!(about["http.route"], "/v1/pairs");
    assert_eq!(about["http.response.status_code"], "200");
    assert_eq!(about["request_id"].len(), 16);
    for (name, key, value) in [
        ("parse", "bytes", PAIR.len().to_string()),
        ("store", "operation", "record".to_owned()),
        ("store", "outcome", "ok".to_owned()),
    ] {
        let span = named(&spans, name);
        assert_eq!(span.parent_span_id, request.span_id, "{name}");
        assert_eq!(attributes(&span.attributes)[key], value);
        assert!(span.start_time_unix_nano >= request.start_time_unix_nano);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    assert!(
        spans.iter().all(|span| hex(&span.trace_id) == TRACE),
        "{spans:?}"
    );
    let all = format!("{:?}", collector.requests());
    let all = all + &String::from_utf8_lossy(&collector.requests()[0].body);
    for secret in ["u104010", "news", "a-secret-token"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_decides_about_its_own_trace_and_the_ratio_about_others() {
    for (ratio, expected) in [("0", vec![TRACE]), ("1", vec![TRACE, "new", "new"])] {
        let (collector, folder) = (collector().await, tempfile::tempdir().unwrap());
        let url = collector.url();
        let settings = [("otlp_endpoint", url.as_str()), ("otlp_ratio", ratio)];
        let service = service(folder.path(), &settings);
        let not_sampled = format!("00-{}-{PARENT}-00", "1".repeat(32));
        for traceparent in [
            Some(sampled().as_str()),
            Some(&not_sampled),
            Some("00-nonsense"),
            None,
        ] {
            assert_eq!(post(&service, "/v1/pairs", PAIR, traceparent).await, 200);
        }
        assert_eq!(service.terminate().await, Some(0));
        let (_, spans) = received(&collector);
        let roots = spans.iter().filter(|span| span.kind() == SpanKind::Server);
        let traces: Vec<_> = roots.map(|span| hex(&span.trace_id)).collect();
        let told: Vec<_> = traces
            .iter()
            .map(|trace| if trace == TRACE { TRACE } else { "new" })
            .collect();
        assert_eq!(told, expected, "{ratio}: {traces:?}");
        assert!(!traces.contains(&"1".repeat(32)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_continues_in_influxdb_and_an_error_marks_the_request() {
    let (collector, folder) = (collector().await, tempfile::tempdir().unwrap());
    let influx = FaultServer::start(|_, _| Reply::status(500, "", "")).await;
    let (url, influx_url) = (collector.url(), influx.url());
    let settings = [
        ("otlp_endpoint", url.as_str()),
        ("store", "influx"),
        ("influx_url", &influx_url),
        ("influx_token", "t"),
        ("refresh_mode", "off"),
    ];
    let service = service(folder.path(), &settings);
    let count = reqwest::Client::new()
        .get(format!("{}/v1/segments/news/count", service.url()))
        .header("traceparent", sampled());
    assert_eq!(count.send().await.unwrap().status(), 503);
    let failed = service.logged("request failed");
    assert!(
        failed[0].contains(&format!("trace_id={TRACE}")),
        "{failed:?}"
    );
    assert_eq!(service.terminate().await, Some(0));
    let (_, spans) = received(&collector);
    let request = named(&spans, "GET /v1/segments/{segment}/count");
    assert_eq!(request.status.as_ref().unwrap().code(), StatusCode::Error);
    let loading = named(&spans, "count");
    assert_eq!(loading.parent_span_id, request.span_id);
    assert_eq!(named(&spans, "cache").parent_span_id, loading.span_id);
    let recount = named(&spans, "recount");
    let stores = spans
        .iter()
        .filter(|span| span.parent_span_id == recount.span_id);
    let stores: Vec<_> = stores.map(|span| hex(&span.span_id)).collect();
    let continued: Vec<_> = influx
        .requests()
        .iter()
        .filter_map(|request| request.header("traceparent").map(str::to_owned))
        .collect();
    let expected: Vec<_> = stores
        .iter()
        .map(|span| format!("00-{TRACE}-{span}-01"))
        .collect();
    assert!(!stores.is_empty(), "{spans:?}");
    assert!(
        expected.iter().any(|it| continued.contains(it)),
        "{expected:?}: {continued:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_continues_in_the_live_process() {
    let (Some(postgres), Some(redis)) = (Postgres::start().await, Redis::start().await) else {
        return;
    };
    let options = postgres.options("headcount", two_weeks());
    set_up(&options).await.unwrap();
    let (postgres_url, redis_url) = (postgres.url(), redis.url());
    let collectors = [collector().await, collector().await];
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [service, live] = [("serve", 0), ("live", 1)].map(|(command, number)| {
        let endpoint = collectors[number].url();
        let settings = [
            ("otlp_endpoint", endpoint.as_str()),
            ("store", "postgres"),
            ("postgres_url", &postgres_url),
            ("cache", "redis"),
            ("redis_url", &redis_url),
            ("live", "redis"),
        ];
        run(command, folders[number].path(), &settings)
    });
    assert_eq!(service.post(&["u1".to_owned()], "news").await, 200);
    poll(async || {
        let count = service.get("/v1/segments/news/count?window=1d").await;
        (count["source"] == "live" && count["users"] == 1).then_some(())
    })
    .await;
    // What the live process does not publish.
    for path in [
        "/v1/segments/news/count?window=2d",
        "/v1/segments/news/flow",
        "/v1/count?expr=news%20OR%20sports",
        "/v1/overlap?segment=news&segment=sports",
    ] {
        let read = reqwest::Client::new().get(service.url() + path);
        let read = read.header("traceparent", sampled()).send().await.unwrap();
        assert_eq!(read.status(), 200, "{path}");
    }
    assert_eq!(service.terminate().await, Some(0));
    assert_eq!(live.terminate().await, Some(0));
    let [(_, begun), (role, continued)] = collectors.each_ref().map(received);
    assert_eq!(role["headcount.role"], "live");
    let traced = |span: &&Span| hex(&span.trace_id) == TRACE;
    for name in [
        "GET /v1/segments/{segment}/count",
        "GET /v1/segments/{segment}/flow",
        "GET /v1/count",
        "GET /v1/overlap",
    ] {
        let mut found = continued.iter().filter(traced);
        let found = found.find(|span| span.name == name);
        let found = found.unwrap_or_else(|| panic!("no span {name}: {continued:?}"));
        assert_eq!(found.kind(), SpanKind::Server);
        // Up to the request of the client, in the service.
        let mut parent = &found.parent_span_id;
        let request = loop {
            let span = begun.iter().find(|span| span.span_id == *parent);
            let span = span.unwrap_or_else(|| panic!("{name}: no parent in {begun:?}"));
            if hex(&span.parent_span_id) == PARENT {
                break span;
            }
            parent = &span.parent_span_id;
        };
        assert_eq!(request.name, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_collector_the_service_goes_on_and_says_so_once() {
    let (closed, folder) = (ClosedPort::new(), tempfile::tempdir().unwrap());
    let url = closed.url();
    let settings = [("otlp_endpoint", url.as_str())];
    let variables = [
        ("OTEL_BSP_SCHEDULE_DELAY", OsStr::new("20")),
        // The time for retries.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", OsStr::new("1")),
    ];
    let service = Service::start_with_env(folder.path(), &settings, &variables);
    let failed = async |least: u64| {
        poll(async || {
            assert_eq!(post(&service, "/v1/pairs", PAIR, None).await, 200);
            (spans(&service, "failed").await >= least).then_some(())
        })
        .await;
    };
    failed(1).await;
    failed(10).await;
    let warned = service.logged("the collector does not take traces");
    assert_eq!(warned.len(), 1, "{warned:?}");
    let began = Instant::now();
    assert_eq!(service.terminate().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_delays_neither_requests_nor_the_end() {
    let stalled = FaultServer::start(|_, _| Reply::Stall).await;
    let folder = tempfile::tempdir().unwrap();
    let url = stalled.url();
    let service = service(folder.path(), &[("otlp_endpoint", &url)]);
    // Three spans each: more than the queue takes, unless a batch times out meanwhile.
    poll(async || {
        let posts = (0..8).map(async |_| {
            for _ in 0..100 {
                assert_eq!(post(&service, "/v1/pairs", PAIR, None).await, 200);
            }
        });
        futures::future::join_all(posts).await;
        (spans(&service, "dropped").await > 0).then_some(())
    })
    .await;
    let began = Instant::now();
    assert_eq!(service.terminate().await, Some(0));
    // Three seconds, on a machine under load.
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_there_are_no_traces() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), &[("log", "info,headcount=debug")]);
    assert_eq!(
        post(&service, "/v1/pairs", PAIR, Some(&sampled())).await,
        200
    );
    assert!(!service.logged("request completed").is_empty());
    assert!(service.logged(TRACE).is_empty());
    let metrics = service.text("/metrics").await;
    assert!(
        !metrics.contains("headcount_trace_spans_total{"),
        "{metrics}"
    );
    assert_eq!(service.terminate().await, Some(0));
}
