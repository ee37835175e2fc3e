//! Tokens on the command line: create, list, revoke, pass to commands; and settings that prevent a start.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use crate::support::program::{headcount, output_of};
use crate::support::service::Service;
use crate::support::wait::until;

fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    output_of(&mut headcount(folder, &[], arguments))
}

/// Creates a token with these scopes in `tokens.toml` in `folder`.
fn new_token(folder: &Path, name: &str, scope: &str) -> String {
    let arguments = [
        "token",
        "new",
        "--name",
        name,
        "--scope",
        scope,
        "--tokens-file",
        "tokens.toml",
        "--json",
    ];
    let (code, out, err) = run(folder, &arguments);
    assert_eq!((code, err.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&out).unwrap();
    document["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_is_shown_once_and_stored_as_a_digest() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let arguments = [
        "token",
        "new",
        "--name",
        "uss",
        "--scope",
        "write,read,write",
        "--tokens-file",
        "tokens.toml",
    ];
    let (code, token, err) = run(folder, &arguments);
    assert_eq!(
        (code, err.as_str()),
        (0, "Keep it: it is not shown again.\n")
    );
    let token = token.trim();
    assert!(token.starts_with("hc_") && token.len() == 67, "{token}");
    let file = folder.join("tokens.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(token) && !text.contains(&token[3..]));
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    assert!(text.contains("scopes = [\"write\", \"read\"]"), "{text}");

    let (code, _, err) = run(folder, &arguments);
    assert_eq!(code, 1);
    assert!(err.contains("already has a token named uss"), "{err}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);

    // The file mode stays: the service's user may read the file through its group.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    // The settings name the file as well.
    std::fs::write(
        folder.join("headcount.toml"),
        "tokens_file = 'tokens.toml'\n",
    )
    .unwrap();
    let more = [
        "--scope",
        "admin",
        "--expires-in",
        "90d",
        "--limit-requests",
        "5",
        "--limit-pairs",
        "10000000",
    ];
    let arguments = [&["token", "new", "--name", "ops"][..], &more].concat();
    assert_eq!(run(folder, &arguments).0, 0);
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
    let (code, out, _) = run(folder, &["token", "list", "--json"]);
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(listed["tokens"][0]["name"], "uss");
    assert_eq!(listed["tokens"][0]["expires"], Value::Null);
    assert_eq!(listed["tokens"][1]["pairs_per_second"], 10_000_000);
    assert_eq!(listed["tokens"][1]["expired"], false);
    let (_, out, _) = run(folder, &["token", "list"]);
    assert!(
        out.contains("ops   admin       ") && out.contains("5 requests/s, 10000000 pairs/s"),
        "{out}"
    );

    assert_eq!(run(folder, &["token", "revoke", "--name", "uss"]).0, 0);
    assert_eq!(run(folder, &["token", "revoke", "--name", "uss"]).0, 1);
    let (_, out, _) = run(folder, &["token", "list", "--json"]);
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed["tokens"].as_array().unwrap().len(), 1);
}

#[test]
fn invalid_token_commands_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let new = ["token", "new", "--tokens-file", "tokens.toml"];
    for (arguments, code) in [
        (&["--name", "a"][..], 2),
        (&["--scope", "read"], 2),
        (&["--name", "a", "--scope", "everything"], 2),
        (&["--name", "a", "--scope", "read", "--expires-in", "0s"], 2),
        (&["--name", "a", "--scope", "read", "--limit-pairs", "0"], 2),
        (&["--name", "a b", "--scope", "read"], 1),
        (&["--name", "", "--scope", "read"], 1),
    ] {
        let (given, out, err) = run(folder, &[&new[..], arguments].concat());
        assert_eq!((given, out.as_str()), (code, ""), "{arguments:?}: {err}");
        assert!(!folder.join("tokens.toml").exists());
    }
    assert_eq!(
        run(folder, &["token", "new", "--name", "a", "--scope", "read"]).0,
        2,
        "no tokens file is given"
    );
    assert_eq!(
        run(folder, &["token", "list", "--tokens-file", "missing"]).0,
        1
    );
    std::fs::write(folder.join("tokens.toml"), "half").unwrap();
    let (code, out, _) = run(
        folder,
        &[&new[..], &["--name", "a", "--scope", "read"]].concat(),
    );
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        std::fs::read_to_string(folder.join("tokens.toml")).unwrap(),
        "half"
    );
}

#[test]
fn concurrent_token_commands_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..12).map(|number| format!("n{number}")).collect();
    let children: Vec<_> = names
        .iter()
        .map(|name| {
            let arguments = [
                "token",
                "new",
                "--name",
                name,
                "--scope",
                "read",
                "--tokens-file",
                "tokens.toml",
            ];
            headcount(folder.path(), &[], &arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let (_, out, _) = run(
        folder.path(),
        &["token", "list", "--tokens-file", "tokens.toml", "--json"],
    );
    let listed: Value = serde_json::from_str(&out).unwrap();
    let mut found: Vec<_> = listed["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    let mut names: Vec<_> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, names);
}

#[test]
fn a_non_loopback_address_requires_authentication_or_an_explicit_opt_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let (code, _, err) = run(folder, &["serve", "--listen", address]);
        assert_eq!(code, 2, "{err}");
        assert!(
            err.starts_with(&format!(
                "error: setting `listen` is \"{address}\" (--listen), "
            )),
            "{err}"
        );
        for option in ["tokens_file", "jwt_key", "auth = \"off\""] {
            assert!(err.contains(option), "{err}");
        }
    }
    let (code, _, err) = run(folder, &["serve", "--public-listen", "0.0.0.0:0"]);
    assert_eq!(code, 2, "{err}");
    assert!(
        err.starts_with("error: setting `public_listen` is \"0.0.0.0:0\" (--public-listen), "),
        "{err}"
    );
    let (code, _, err) = run(folder, &["serve", "--tokens-file", "missing.toml"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("setting `tokens_file` names the file missing.toml"),
        "{err}"
    );
    assert_eq!(
        std::fs::read_dir(folder).unwrap().count(),
        0,
        "no file was created"
    );
    let (code, out, err) = run(folder, &["check-config", "--listen", "0.0.0.0:80"]);
    assert_eq!(code, 0, "valid for commands that do not listen");
    assert!(
        out.contains("0.0.0.0:80")
            && err.starts_with("warning: `headcount serve` would not start: "),
        "{err}"
    );

    // With either it starts. The later `--listen` wins.
    new_token(folder, "a", "read");
    for (arguments, warned) in [
        (["--auth", "off"], true),
        (["--tokens-file", "tokens.toml"], false),
    ] {
        let arguments = [&["--listen", "0.0.0.0:0"][..], &arguments].concat();
        // The warning precedes the start of the listener.
        let text = Service::launch(folder, &[], &arguments).log();
        assert_eq!(text.contains("no token is required"), warned, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_address_is_bound_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[("public_listen", "127.0.0.1:0")]).await;
    let start = "writes of pairs and reads of counts are also at ";
    until("the public address in the log", async || {
        !service.logged(start).is_empty()
    })
    .await;
    let line = &service.logged(start)[0];
    let (_, public) = line.split_once(start).unwrap();
    let status = async |path: &str| {
        let response = reqwest::get(format!("{}{path}", public.trim())).await;
        response.unwrap().status().as_u16()
    };
    assert_eq!(status("/v1/segments").await, 200);
    assert_eq!(status("/v1/users/u1").await, 404);
    assert_eq!(status("/readyz").await, 404);
}

#[test]
fn commands_send_their_token_and_the_log_contains_none() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (uss, reader, ops) = (
        new_token(folder, "uss", "write"),
        new_token(folder, "dashboard", "read"),
        new_token(folder, "ops", "admin"),
    );
    let service = Service::launch(
        folder,
        &[],
        &["--log", "trace", "--tokens-file", "tokens.toml"],
    );
    std::fs::write(folder.join("uss.token"), format!("{uss}\n")).unwrap();
    std::fs::write(
        folder.join("pairs.ndjson"),
        "{\"user_id\":\"user-4711\",\"segment\":\"a\"}\n",
    )
    .unwrap();
    let commands: [(&[&str], &str, &str); 5] = [
        (&["load", "pairs.ndjson"], &uss, &reader),
        (&["count", "a"], &reader, &uss),
        (&["segments"], &reader, &uss),
        (&["refresh"], &ops, &reader),
        (&["archive"], &ops, &reader),
    ];
    let url = service.url();
    for (arguments, right, wrong) in commands {
        let arguments = [arguments, &["--url", &url, "--json"]].concat();
        let with = |name: &str, value: &str| {
            output_of(headcount(folder, &[], &arguments).env(name, value))
        };
        let (code, _, err) = run(folder, &arguments);
        assert_eq!(code, 1);
        assert!(
            err.contains("401 unauthenticated") && err.contains("HEADCOUNT_TOKEN"),
            "{err}"
        );
        let (code, _, err) = with("HEADCOUNT_TOKEN", wrong);
        assert!(code == 1 && err.contains("403 insufficient_scope"), "{err}");
        assert_eq!(with("HEADCOUNT_TOKEN", right).0, 0);
        assert_eq!(
            run(folder, &[&arguments[..], &["--token", right]].concat()).0,
            0
        );
        std::fs::write(folder.join("right.token"), format!("{right}\n")).unwrap();
        assert_eq!(with("HEADCOUNT_TOKEN_FILE", "right.token").0, 0);
        assert_eq!(
            run(
                folder,
                &[&arguments[..], &["--token-file", "right.token"]].concat()
            )
            .0,
            0
        );
        assert_eq!(
            run(
                folder,
                &[&arguments[..], &["--token-file", "missing"]].concat()
            )
            .0,
            2
        );
        // A flag takes precedence over a variable.
        let flag = [&arguments[..], &["--token-file", "right.token"]].concat();
        let output = headcount(folder, &[], &flag)
            .env("HEADCOUNT_TOKEN", wrong)
            .output()
            .unwrap();
        assert!(output.status.success());
        let both = headcount(folder, &[], &arguments)
            .env("HEADCOUNT_TOKEN", right)
            .env("HEADCOUNT_TOKEN_FILE", "right.token")
            .output();
        assert_eq!(both.unwrap().status.code(), Some(2));
    }
    let log = service.log();
    assert!(
        log.contains("request completed") && log.contains("dashboard"),
        "the log names the token"
    );
    for secret in [&uss, &reader, &ops] {
        assert!(
            !log.contains(secret.as_str()) && !log.contains(&secret[3..20]),
            "{log}"
        );
    }
    assert!(!log.contains("user-4711"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_and_refusals_are_logged_in_the_audit_trail() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (uss, ops) = (
        new_token(folder, "uss", "write"),
        new_token(folder, "ops", "admin,erase"),
    );
    let settings = [
        ("LOG_FORMAT", "json"),
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
        ("TOKENS_FILE", "tokens.toml"),
    ];
    let began = Instant::now();
    let service = Service::start(folder, &settings).await;
    let client = reqwest::Client::new();
    let send = async |method: &str, path: &str, token: &str| {
        let url = format!("{}{path}", service.url());
        let request = client
            .request(method.parse().unwrap(), url)
            .header("x-forwarded-for", "198.51.100.66, 203.0.113.9")
            .header("content-type", "application/json")
            .bearer_auth(token)
            .body("{\"user_id\":\"user-4711\",\"segment\":\"a\"}");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("POST", "/v1/pairs", &uss).await, 200);
    assert_eq!(send("DELETE", "/v1/users/user-4711", &ops).await, 200);
    assert_eq!(
        send("POST", "/v1/admin/refresh?segment=nobodys", &ops).await,
        404
    );
    assert_eq!(send("POST", "/v1/admin/refresh", &ops).await, 200);
    assert_eq!(send("POST", "/v1/admin/archive", &ops).await, 200);
    let coverage = "/v1/admin/coverage?since=2026-01-01";
    assert_eq!(send("PUT", coverage, &ops).await, 200);
    assert_eq!(send("DELETE", "/v1/users/user-4711", &uss).await, 403);
    // `printf user-4711 | sha256sum`
    let user = "user 85e8cbcc4fab8df4";
    for (action, about, outcome) in [
        ("erase", user, "erased=1"),
        ("refresh", "segment \"nobodys\"", "unknown_segment"),
        ("refresh", "all segments", "refreshed="),
        ("archive", "all", "removed=0"),
        ("coverage", "all", "since=2026-01-01T00:00:00Z"),
    ] {
        let lines = service.audited(&format!("\"action\":\"{action}\""));
        let found = lines.iter().find(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or_default();
            text("about").starts_with(about) && text("outcome").starts_with(outcome)
        });
        let line = found.unwrap_or_else(|| panic!("{action} {about} {outcome}: {lines:?}"));
        assert_eq!(line["level"], "INFO");
        assert_eq!(
            (&line["who"], &line["from"]),
            (&"ops".into(), &"203.0.113.9".into())
        );
        assert!(
            line["request_id"].is_string() && line["status"].is_u64(),
            "{line}"
        );
    }
    let erasures = service.audited("\"action\":\"erase\"");
    assert_eq!(
        erasures.len(),
        1,
        "a refusal is not logged as an erasure: {erasures:?}"
    );
    let refusals = service.audited("insufficient_scope");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert_eq!(
        (&refusals[0]["who"], &refusals[0]["status"]),
        (&"uss".into(), &403.into())
    );

    // Refusals are rate limited, so that they can not fill the disk.
    for _ in 0..300 {
        assert_eq!(send("GET", "/v1/segments", "guess").await, 401);
    }
    let refusals = service.audited("\"action\":\"refusal\"").len();
    // The limit is ten lines a minute. The time is measured afterwards, so that it includes any delay of this test.
    let minutes = usize::try_from(began.elapsed().as_secs() / 60 + 1).unwrap();
    assert!(
        (2..=20 * minutes).contains(&refusals),
        "{refusals} lines for 301 refusals in {minutes} minutes"
    );

    // Changes of the tokens file.
    new_token(folder, "late", "read");
    let wait_for_change = async |text: &str| {
        until(text, async || {
            let lines = service.audited("\"action\":\"tokens\"");
            lines.iter().any(|line| line.to_string().contains(text))
        })
        .await;
    };
    wait_for_change("late").await;
    std::fs::write(folder.join("tokens.toml"), "half").unwrap();
    wait_for_change("refused").await;

    let log = service.log();
    for secret in [
        uss.as_str(),
        ops.as_str(),
        "guess",
        "user-4711",
        "198.51.100.66",
    ] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
