//! The address of `public_listen`: writes of pairs and reads of counts, and nothing else.

use super::*;

/// Operations that the public address serves without a token: clients of InfluxDB check them before they write.
const OF_CLIENTS: [&str; 2] = ["/ping", "/health"];

#[tokio::test(flavor = "multi_thread")]
async fn the_public_address_serves_only_writes_and_reads() {
    let file = TokensFile::new(&[token("all", &Scope::ALL)]);
    let app = App::start_with(&[("tokens_file", file.path()), ("export", "on")]).await;
    let send = async |address, method: &str, path: &str| {
        let method: Method = method.parse().unwrap();
        let request = app
            .client
            .request(method, format!("http://{address}{path}"));
        let response = request.header("authorization", bearer("all"));
        response.send().await.unwrap()
    };
    let mut public = BTreeSet::new();
    for &(method, template, path, scope, status) in ROUTES {
        let response = send(app.public, method, path).await;
        let of_api = template.starts_with("/v1/")
            || scope == Some(Scope::Write)
            || template == "/metrics/segments";
        let expected = of_api && matches!(scope, Some(Scope::Read | Scope::Write))
            || OF_CLIENTS.contains(&template);
        if expected {
            assert_eq!(response.status(), status, "{method} {template}");
            public.insert((method, template));
            continue;
        }
        assert_eq!(response.status(), 404, "{method} {template}");
        if method != "HEAD" {
            let problem: Value = response.json().await.unwrap();
            assert_ne!(problem["code"], "unknown_segment", "{method} {template}");
        }
    }
    for (method, template) in [
        ("POST", "/v1/pairs"),
        ("GET", "/v1/segments/{segment}/count"),
        ("GET", "/v1/segments/{segment}"),
    ] {
        assert!(public.contains(&(method, template)), "{method} {template}");
    }
    for (method, path) in [
        ("DELETE", "/v1/segments/a"),
        ("GET", "/v1/segments/a/users"),
        ("DELETE", "/v1/segments/a/users/u1"),
        ("GET", "/v1/users/u1"),
        ("POST", "/v1/admin/refresh"),
        ("GET", "/metrics"),
        ("GET", "/"),
    ] {
        let [inside, outside] = [app.addr, app.public].map(|it| send(it, method, path));
        let (inside, outside) = (inside.await, outside.await);
        assert_ne!(inside.status(), 404, "{method} {path}");
        assert_eq!(outside.status(), 404, "{method} {path}");
    }
    // A wrong method of a public resource is reported as usual.
    assert_eq!(send(app.public, "GET", "/v1/pairs").await.status(), 405);
    // Requests there need a token too.
    let url = format!("http://{}/v1/segments", app.public);
    assert_eq!(app.client.get(url).send().await.unwrap().status(), 401);
    app.stop().await;
}
