//! The service while InfluxDB is unavailable: pairs are spooled to disk and none is lost.

use stores::influx::set_up;

use crate::support::influxd::{Influxd, settings_at};
use crate::support::proxy::Proxy;
use crate::support::service::{Service, poll};
use crate::support::two_weeks;

fn users(prefix: &str, number: usize) -> Vec<String> {
    (0..number).map(|n| format!("{prefix}{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_delivers_its_spool_after_the_restart() {
    let Some(mut server) = Influxd::start().await else {
        return;
    };
    set_up(&server.options("b", two_weeks()), false)
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let url = server.url();
    let settings = settings_at(&url, &[]);
    let mut service = Service::start(directory.path(), &settings).await;
    assert_eq!(service.post(&users("before", 10), "s").await, 200);
    server.kill();
    assert_eq!(service.post(&users("first", 10), "s").await, 202);
    for round in 0..20 {
        let prefix = format!("round{round}-");
        assert_eq!(service.post(&users(&prefix, 10), "s").await, 202);
    }
    let ready = poll(async || {
        let ready = service.get("/readyz").await;
        (ready["components"]["store"]["ok"] == false).then_some(ready)
    })
    .await;
    assert_eq!(ready["writes"], true);
    let detail = ready["components"]["spool"]["detail"].as_str().unwrap();
    assert!(detail.starts_with("210 pairs wait"), "{detail}");
    service.kill();

    // The service starts while InfluxDB is still unavailable.
    let service = Service::start(directory.path(), &settings).await;
    assert_eq!(service.post(&users("after", 10), "s").await, 202);
    server.restart().await;
    service.wait_until_drained().await;
    assert_eq!(service.fresh_count("s").await, 230);
    assert_eq!(service.post(&users("at last", 10), "s").await, 200);
    assert_eq!(service.fresh_count("s").await, 240);
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_and_stalled_connections_under_load_lose_no_pair() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    set_up(&server.options("b", two_weeks()), false)
        .await
        .unwrap();
    let proxy = Proxy::to(server.port()).await;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("http://{}", proxy.address());
    let settings = settings_at(&url, &[]);
    let service = Service::start(directory.path(), &settings).await;
    let mut accepted = 0;
    let mut spooled = 0;
    for round in 0..60 {
        match round {
            10 | 40 => proxy.cut(),
            25 => proxy.stall(),
            20 | 35 | 50 => proxy.restore(),
            _ => {}
        }
        let posts = (0..4).map(|writer| {
            let users = users(&format!("u{round}-{writer}-"), 25);
            let service = &service;
            async move { service.post(&users, "s").await }
        });
        for status in futures::future::join_all(posts).await {
            assert!(
                matches!(status, 200 | 202),
                "round {round}: status {status}"
            );
            accepted += 25;
            spooled += u64::from(status == 202);
        }
    }
    assert!(spooled > 0, "the proxy broke nothing");
    proxy.restore();
    service.wait_until_drained().await;
    assert_eq!(
        service.fresh_count("s").await,
        accepted,
        "each accepted pair counts once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_writes_get_a_503() {
    let Some(mut server) = Influxd::start().await else {
        return;
    };
    set_up(&server.options("b", two_weeks()), false)
        .await
        .unwrap();
    server.kill();
    let directory = tempfile::tempdir().unwrap();
    let url = server.url();
    let settings = settings_at(&url, &[("spool_dir", "off")]);
    let service = Service::start(directory.path(), &settings).await;
    assert_eq!(service.post(&users("u", 3), "s").await, 503);
    server.restart().await;
    assert_eq!(service.post(&users("u", 3), "s").await, 200);
    assert_eq!(service.fresh_count("s").await, 3);
}
