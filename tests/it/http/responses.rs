//! Headers and encodings of responses.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn responses_have_no_store_and_nosniff() {
    let app = App::start().await;
    for target in [
        "/v1/segments",
        "/v1/segments/a/count",
        "/v1/users/u1",
        "/healthz",
        "/metrics",
        "/nowhere",
        "/",
    ] {
        let response = app.get(target).await;
        assert_eq!(
            response.headers["x-content-type-options"], "nosniff",
            "{target}"
        );
        assert_eq!(response.headers["cache-control"], "no-store", "{target}");
    }
    let asset = app.get("/assets/page.css?v=1").await;
    assert!(
        asset.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_responses_are_compressed_for_clients_that_accept_it() {
    const GZIP: (&str, &str) = ("accept-encoding", "br, gzip;q=0.8");
    let app = App::start().await;
    let body: String = (0..100).map(|n| line("u1", &format!("s{n}"))).collect();
    assert_eq!(app.post(NDJSON, body).await.status, 200);
    for (target, long) in [
        ("/v1/segments", true),
        ("/metrics", true),
        ("/", true),
        ("/openapi.json", true),
        ("/assets/page.css", true),
        ("/v1/segments/s1/count", false),
        ("/v1/segments/s1/nothing", false),
    ] {
        let plain = app.send_with(Method::GET, target, &[]).await;
        assert_eq!(plain.headers.get("content-encoding"), None, "{target}");
        let packed = app.send_with(Method::GET, target, &[GZIP]).await;
        let encoding = packed.headers.get("content-encoding");
        assert_eq!(encoding.is_some(), long, "{target}");
        let refused = [("accept-encoding", "gzip;q=0")];
        let refused = app.send_with(Method::GET, target, &refused).await;
        assert_eq!(refused.headers.get("content-encoding"), None, "{target}");
        if !target.contains("metrics") {
            assert_eq!(plain.text, packed.text, "{target}");
        }
        if long {
            assert!(!packed.headers.contains_key("content-length"), "{target}");
            for response in [&plain, &packed] {
                let mut vary = response.headers.get_all("vary").iter();
                assert!(vary.any(|name| name == "accept-encoding"), "{target}");
            }
            let length: usize = plain.headers["content-length"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            let head = app.send_with(Method::HEAD, target, &[GZIP]).await;
            assert_eq!((head.status, head.text.as_str()), (200, ""), "{target}");
            assert!(length > 1024, "{target}");
        }
    }
    app.stop().await;
}
