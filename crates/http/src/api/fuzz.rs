//! Fuzz targets: every route, merges of users, and exports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fuzzing::{Edit, edit, spell};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use warp::http::StatusCode;

use super::{find, operations};
use crate::fuzz::{Bench, NOT_IN_PATHS, code_of, is_without_names};
use domain::store::conformance::frame;
use domain::store::model::Model;
use domain::{Slot, UserId};

/// Parts of queries and of bodies.
const WORDS: &[&str] = &[
    "&",
    "=",
    "window=",
    "7d",
    "1h",
    "fresh=true",
    "prefix=",
    "limit=",
    "10",
    "0",
    "cursor=",
    "after=",
    "from=",
    "to=",
    "step=",
    "segment=",
    "expr=",
    "sports",
    " AND ",
    " OR ",
    "NOT ",
    "(",
    ")",
    "since=",
    "2026-11-21T12:00:00Z",
    "verbose=true",
    "precision=ns",
    "bucket=",
    "db=",
    "next=",
    "%2F",
    "%00",
    "user=",
    "segment_name=",
    "user_id=",
    "{\"into\":\"",
    "{\"pairs\":[{\"user_id\":\"",
    "\",\"segment\":\"",
    "\"}]}",
    "\"}",
    "\n",
    "pair,segment=",
    " user=\"",
    "\" 1700000000000000000",
    "{\"batch\":[",
    "{\"type\":\"track\",\"userId\":\"",
    "\",\"event\":\"",
    "\",\"anonymousId\":\"",
    "\",\"previousId\":\"",
    "\"}}]}",
    "{\"window\":\"7d\"}",
    "{\"segments\":[\"",
    "\"]}",
    "{\"api_key\":\"",
    "\",\"distinct_id\":\"",
    "\"properties\":{\"segment\":\"",
    "{\"schema\":\"",
    "\"data\":[{\"e\":\"se\",\"uid\":\"",
    "token=",
    "u1",
    "\u{e9}",
    "\u{1f3c0}",
    "user_id,segment\n",
    "u1,sports\n",
    "null",
    "1e300",
    "[",
    "{}",
];
const MEDIA: &[&str] = &[
    "application/json",
    "application/x-ndjson",
    "text/csv",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/cloudevents+json",
];

fn bench(store: &Arc<Model>) -> Bench {
    Bench::over(Arc::clone(store) as Arc<_>)
}

/// The route's path with these names.
fn path_of(template: &str, names: [&str; 2]) -> String {
    let mut names = names.into_iter();
    let parts = template.split('/').map(|part| match part.starts_with('{') {
        true => utf8_percent_encode(names.next().unwrap_or_default(), NON_ALPHANUMERIC).to_string(),
        false => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("/")
}

impl Bench {
    fn send(&self, method: &str, target: &str, media: &str, body: &[u8]) -> (StatusCode, Bytes) {
        let path = target.split('?').next().unwrap_or_default();
        let handler = self.routes.handler(find(path));
        let handler = handler.unwrap_or_else(|| panic!("{path} has no handler"));
        let request = warp::test::request()
            .method(method)
            .path(target)
            .header("content-type", media)
            .body(body);
        self.runtime.block_on(async {
            // An event stream has no end, so only its head is read.
            match path == "/v1/events" {
                true => {
                    let response = request.filter(handler).await;
                    let status = response.map(|response| response.status());
                    (status.unwrap_or(StatusCode::NOT_FOUND), Bytes::new())
                }
                false => {
                    let reply = request.reply(handler).await;
                    (reply.status(), reply.into_body())
                }
            }
        })
    }
}

/// The statuses that the document has for each operation, and the codes of each status.
type Documented = BTreeMap<(String, String), BTreeMap<u16, BTreeSet<String>>>;

fn documented() -> Documented {
    let document: Value = serde_json::from_str(&crate::openapi().unwrap()).unwrap();
    let mut documented = Documented::new();
    for (template, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Some(responses) = operation["responses"].as_object() else {
                continue;
            };
            let statuses = responses.iter().map(|(status, response)| {
                let codes = response["x-error-codes"].as_array();
                let codes = codes.into_iter().flatten().filter_map(Value::as_str);
                (status.parse().unwrap(), codes.map(str::to_owned).collect())
            });
            let key = (method.to_uppercase(), template.clone());
            documented.insert(key, statuses.collect());
        }
    }
    documented
}

/// Each route with any names, query and body: no 5xx, and only statuses and codes that the document has.
#[test]
fn every_route() {
    type Input = (u8, [Vec<u8>; 2], Vec<u8>, u8, Vec<u8>);
    let bench = Bench::new();
    // The server answers HEAD as GET.
    let routes: Vec<_> = operations().filter(|it| it.0 != "HEAD").collect();
    let documented = documented();
    let all = std::panic::AssertUnwindSafe((&bench, &routes, &documented));
    bolero::check!()
        .with_type::<Input>()
        .for_each(move |(route, names, query, media, body)| {
            let (bench, routes, documented) = *all;
            let (method, template, _) = routes[usize::from(*route) % routes.len()];
            let names = [&names[0], &names[1]].map(|name| match name.is_empty() {
                true => "u1".into(),
                false => String::from_utf8_lossy(name),
            });
            let path = path_of(template, [&names[0], &names[1]]);
            let query = spell(query, WORDS);
            let query =
                utf8_percent_encode(&String::from_utf8_lossy(&query), NOT_IN_PATHS).to_string();
            let target = format!("{path}?{query}");
            if target.parse::<warp::http::Uri>().is_err() || find(&path).template != template {
                return;
            }
            let media = MEDIA[usize::from(*media) % MEDIA.len()];
            let (status, reply) = bench.send(method, &target, media, &spell(body, WORDS));
            let what = format!("{method} {target} {status} {reply:?}");
            assert!(
                !status.is_server_error() || is_without_names(&path, status, &reply),
                "{what}"
            );
            let key = (method.to_owned(), template.to_owned());
            if let Some(statuses) = documented.get(&key) {
                let codes = statuses.get(&status.as_u16());
                let codes = codes.unwrap_or_else(|| panic!("not documented: {what}"));
                let code = code_of(&reply).filter(|_| !codes.is_empty());
                assert!(code.is_none_or(|code| codes.contains(&code)), "{what}");
            }
        });
}

/// The id in the body of a merge, as another reader sees it.
fn target_of(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let members = body.as_object()?;
    let only = members.iter().next().filter(|_| members.len() == 1)?;
    (only.0 == "into").then(|| only.1.as_str().map(str::to_owned))?
}

/// A merge succeeds exactly if both ids are valid, the new one also for pairs, and differ. Then the visits are those of the other user.
#[test]
fn merges() {
    let store = Arc::<Model>::default();
    let bench = bench(&store);
    let all = std::panic::AssertUnwindSafe((&store, &bench));
    bolero::check!()
        .with_type::<(Vec<u8>, Vec<u8>, Vec<Edit>)>()
        .for_each(move |(from, into, edits)| {
            let (store, bench) = *all;
            let [from, into] = [from, into].map(|id| String::from_utf8_lossy(id).into_owned());
            let mut body = serde_json::to_vec(&json!({"into": into})).unwrap();
            edit(&mut body, edits);
            let target = path_of("/v1/users/{user_id}/merge", [&from, ""]);
            if find(&target).template != "/v1/users/{user_id}/merge" {
                assert!(from.is_empty());
                return;
            }
            // Ids that former versions recorded, which no new pair may have, can be merged into others.
            let is_recorded = UserId::received(&*from).is_ok();
            if is_recorded {
                let recorded = bench.app.record([(&*from, "sports")]);
                bench.runtime.block_on(recorded).unwrap();
            }
            let from = UserId::new(&*from);
            let (status, reply) = bench.send("POST", &target, "application/json", &body);
            let what = format!("{target} {:?} {reply:?}", String::from_utf8_lossy(&body));
            assert!(
                matches!(status.as_u16(), 200 | 400 | 413),
                "{status} {what}"
            );
            let into =
                target_of(&body).and_then(|id| Some(UserId::received(id).ok()?.into_owned()));
            let both = from.ok().zip(into).filter(|(from, into)| from != into);
            match both {
                // A member that is there twice is refused, and the other reader takes the last one.
                Some(_) if !edits.is_empty() && status != 200 => {}
                Some((from, _)) => {
                    assert_eq!(status, 200, "{what}");
                    let pairs = store.pairs.lock();
                    let key = ("sports".to_owned(), from.as_str().to_owned());
                    assert!(!pairs.contains_key(&key), "{what}");
                    assert!(!is_recorded || !pairs.is_empty(), "{what}");
                }
                None => assert_ne!(status, 200, "{what}"),
            }
        });
}

/// An export has the users of the window after the given one, up to the limit, in order; any other query is refused.
#[test]
fn exports() {
    type Input = (
        Vec<(Vec<u8>, u8)>,
        Option<Vec<u8>>,
        Option<u8>,
        bool,
        Vec<u8>,
    );
    const SHORT: u64 = 60;
    let store = Arc::<Model>::default();
    let bench = bench(&store);
    let all = std::panic::AssertUnwindSafe((&store, &bench));
    bolero::check!()
        .with_type::<Input>()
        .for_each(move |(users, after, limit, is_short, rest)| {
            let (store, bench) = *all;
            let now = frame(1)
                .resolution()
                .slot_of(bench.app.clock().now())
                .number();
            let mut within = BTreeSet::new();
            let mut pairs = BTreeMap::new();
            for (id, ago) in users {
                let id = String::from_utf8_lossy(id).into_owned();
                // Not at the edge of a window, which moves.
                let ago = [0, 30, 90, 30_000][usize::from(ago % 4)];
                let is_new = UserId::new(&*id).is_ok()
                    && pairs
                        .insert(("sports".to_owned(), id.clone()), Slot::new(now - ago))
                        .is_none();
                let length = if *is_short { SHORT } else { 20_000 };
                if is_new && ago < length {
                    within.insert(id);
                } else if !is_new {
                    // The later one replaced it.
                    let slot = pairs.get(&("sports".to_owned(), id.clone()));
                    match slot.is_some_and(|slot| now - slot.number() < length) {
                        true => within.insert(id),
                        false => within.remove(&id),
                    };
                }
            }
            *store.pairs.lock() = pairs;
            let after = after
                .as_ref()
                .map(|id| String::from_utf8_lossy(id).into_owned());
            let mut query = Vec::new();
            query.extend(
                after
                    .as_ref()
                    .map(|id| format!("after={}", utf8_percent_encode(id, NON_ALPHANUMERIC))),
            );
            query.extend(limit.map(|limit| format!("limit={limit}")));
            query.extend(is_short.then(|| "window=1h".to_owned()));
            let rest = spell(rest, WORDS);
            let rest =
                utf8_percent_encode(&String::from_utf8_lossy(&rest), NOT_IN_PATHS).to_string();
            if !rest.is_empty() {
                query.push(rest.clone());
            }
            let target = format!("/v1/segments/sports/users?{}", query.join("&"));
            if target.parse::<warp::http::Uri>().is_err() {
                return;
            }
            let (status, reply) = bench.send("GET", &target, "text/plain", b"");
            assert!(!status.is_server_error(), "{target} {status}");
            if !rest.is_empty() {
                return;
            }
            if *limit == Some(0) {
                assert_eq!(
                    (status.as_u16(), code_of(&reply).as_deref()),
                    (400, Some("invalid_parameter"))
                );
                return;
            }
            assert_eq!(status, 200, "{target} {reply:?}");
            let lines = std::str::from_utf8(&reply)
                .unwrap()
                .lines()
                .filter(|line| !line.is_empty());
            let exported = lines.map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                line["user_id"].as_str().unwrap().to_owned()
            });
            let expected = within
                .into_iter()
                .filter(|id| after.as_ref().is_none_or(|after| id > after));
            let expected = expected.take(limit.map_or(usize::MAX, usize::from));
            assert_eq!(
                exported.collect::<Vec<_>>(),
                expected.collect::<Vec<_>>(),
                "{target}"
            );
        });
}

/// The table of routes in `docs/fuzzing.md` has every route, and names targets that exist.
#[test]
fn each_route_has_a_documented_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../../docs/fuzzing.md")).unwrap();
    let (_, table) = page.split_once("## Routes").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut routes = BTreeSet::new();
    for row in rows {
        let (paths, targets) = row.split_once(" | ").unwrap();
        let paths = paths.split('`').filter(|path| path.starts_with('/'));
        routes.extend(paths.map(str::to_owned));
        let targets: Vec<_> = targets
            .split('`')
            .filter(|it| it.contains("fuzz::"))
            .collect();
        assert!(!targets.is_empty(), "{row}");
        for target in targets {
            let (module, function) = target.rsplit_once("::").unwrap();
            let file = format!("src/{}.rs", module.replace("::", "/"));
            let code = std::fs::read_to_string(root.join(&file)).unwrap_or_default();
            assert!(code.contains(&format!("fn {function}()")), "{target}");
        }
    }
    let known: BTreeSet<_> = operations().map(|(_, path, _)| path.to_owned()).collect();
    assert_eq!(routes, known);
}
