//! The recipes on docs/send/programs.md: each with the real program, which sends events while the service restarts.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use domain::Timestamp;
use http::auth::{self, Scope};
use serde_json::{Value, json};

use crate::support::servers::{Process, find};
use crate::support::service::{Service, poll};
use crate::support::tokens::token;

const TOKEN: &str = "hc_a-token-of-a-collector";
const SEGMENTS: usize = 5;
const USERS: usize = 300;
const LINES: usize = 6_000;

/// The code block under the heading `title` that is the n-th from 0, with our service, files and token.
fn config(title: &str, block: usize, folder: &Path, service: &Service) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/send/programs.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once(&format!("\n## {title}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let text = section.split("```").nth(2 * block + 1).unwrap();
    let text = text.split_once('\n').unwrap().1;
    let address = service.address().to_string();
    let port = service.address().port().to_string();
    let directory = folder.to_str().unwrap();
    let ours = text
        .replace("/var/log/app/", &format!("{directory}/"))
        .replace("/var/lib/vector", directory)
        .replace("/var/lib/fluent-bit", directory)
        .replace("localhost:8080", &address)
        .replace(
            "host: localhost\n      port: 8080",
            &format!("host: 127.0.0.1\n      port: {port}"),
        );
    assert!(!ours.contains("8080") && !ours.contains("/var/"), "{ours}");
    ours
}

/// Lines about all users, whose names begin with `prefix`, in all segments: each twice.
fn events(prefix: &str) -> String {
    let (mut text, at) = (String::new(), Timestamp::now().to_string());
    for line in 0..LINES / 2 {
        let (user, segment) = (line % USERS, line / USERS % SEGMENTS);
        let event = json!({"user_id": format!("{prefix}{user}"), "segment": format!("s{segment}"), "at": at, "other": [line]});
        writeln!(text, "{event}").unwrap();
    }
    text
}

/// The users of each segment.
async fn counts(client: &reqwest::Client, service: &Service) -> Vec<u64> {
    let mut counts = Vec::new();
    for segment in 0..SEGMENTS {
        let url = format!("{}/v1/segments/s{segment}/count", service.url());
        let answer: Value = client
            .get(url)
            .bearer_auth(TOKEN)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        counts.push(
            answer["users"]
                .as_u64()
                .unwrap_or_else(|| panic!("{answer}")),
        );
    }
    counts
}

async fn arrives(service: &Service, program: &mut Process, log: &Path, expected: u64) {
    let client = reqwest::Client::new();
    poll(async || {
        let log = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(program.is_running(), "the program has ended: {}", log());
        (counts(&client, service).await == [expected; SEGMENTS]).then_some(())
    })
    .await;
}

/// Runs `program` with the command line that `arguments` makes for its file of settings.
async fn runs(
    program: (&str, &str),
    file: &str,
    recipe: impl FnOnce(&Path, &Service) -> String,
    arguments: impl FnOnce(&mut Command, &Path),
) {
    let Some(found) = find(program.0, program.1) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let tokens = folder.join("tokens.toml");
    let scopes = [Scope::Read, Scope::Write];
    auth::edit(&tokens, |all| all.add(token("collector", TOKEN, &scopes))).unwrap();
    let settings = [("tokens_file", tokens.to_str().unwrap())];
    let service = Service::start(folder, &settings).await;
    let address = service.address().to_string();
    let settings_of_program = folder.join(file);
    std::fs::write(&settings_of_program, recipe(folder, &service)).unwrap();
    let followed = folder.join("events.ndjson");
    std::fs::write(&followed, events("u")).unwrap();
    let mut command = Command::new(found);
    command.current_dir(folder).env("HEADCOUNT_TOKEN", TOKEN);
    arguments(&mut command, &settings_of_program);
    let log = folder.join("program.log");
    let mut program = Process::start_logging(&mut command, &log);
    arrives(&service, &mut program, &log, 300).await;

    assert_eq!(service.terminate().await, Some(0));
    let mut followed = OpenOptions::new().append(true).open(&followed).unwrap();
    followed.write_all(events("v").as_bytes()).unwrap();
    // So that the program fails more than once: it sends every second.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let service = Service::launch(folder, &settings, &["--listen", &address]);
    arrives(&service, &mut program, &log, 600).await;
    program.kill();
    assert_eq!(service.terminate().await, Some(0));
}

fn recipe(title: &'static str) -> impl FnOnce(&Path, &Service) -> String {
    move |folder, service| config(title, 0, folder, service)
}

fn file_argument(flag: &'static str) -> impl FnOnce(&mut Command, &Path) {
    move |command, path| {
        command.arg(flag).arg(path);
    }
}

const VECTOR: (&str, &str) = ("vector", "HEADCOUNT_TEST_VECTOR");

#[tokio::test(flavor = "multi_thread")]
async fn vector() {
    runs(
        VECTOR,
        "vector.toml",
        recipe("Vector"),
        file_argument("--config"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vector_to_influxdb() {
    let recipe = |folder: &Path, service: &Service| {
        let over_http = config("Vector", 0, folder, service);
        let (source, _) = over_http.split_once("[transforms.pairs]").unwrap();
        [source, &config("Vector", 1, folder, service)].concat()
    };
    runs(VECTOR, "vector.toml", recipe, file_argument("--config")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fluent_bit() {
    let program = ("fluent-bit", "HEADCOUNT_TEST_FLUENT_BIT");
    runs(
        program,
        "fluent-bit.yaml",
        recipe("Fluent Bit"),
        file_argument("--config"),
    )
    .await;
}

const TELEGRAF: (&str, &str) = ("telegraf", "HEADCOUNT_TEST_TELEGRAF");

#[tokio::test(flavor = "multi_thread")]
async fn telegraf() {
    runs(
        TELEGRAF,
        "telegraf.conf",
        recipe("Telegraf"),
        file_argument("--config"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn telegraf_to_influxdb() {
    let recipe = |folder: &Path, service: &Service| {
        let over_http = config("Telegraf", 0, folder, service);
        let (input, _) = over_http.split_once("[[outputs.http]]").unwrap();
        [input, &config("Telegraf", 1, folder, service)].concat()
    };
    runs(TELEGRAF, "telegraf.conf", recipe, file_argument("--config")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redpanda_connect() {
    let program = ("redpanda-connect", "HEADCOUNT_TEST_REDPANDA_CONNECT");
    runs(
        program,
        "connect.yaml",
        recipe("Redpanda Connect"),
        |command, path| {
            command.arg("run").arg(path);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_ng() {
    let program = ("syslog-ng", "HEADCOUNT_TEST_SYSLOG_NG");
    runs(
        program,
        "syslog-ng.conf",
        recipe("syslog-ng"),
        |command, path| {
            let folder = path.parent().unwrap();
            command
                .args(["--foreground", "--stderr", "--no-caps", "--cfgfile"])
                .arg(path);
            for (flag, file) in [
                ("--persist-file", "persist"),
                ("--pidfile", "pid"),
                ("--control", "control"),
            ] {
                command.arg(flag).arg(folder.join(file));
            }
        },
    )
    .await;
}
