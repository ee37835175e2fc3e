//! The privacy floor: an attacker asks everything that can be asked at one instant, and subtracts answers.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::app::App;
use crate::support::events::Listener;

const FLOOR: u64 = 4;
/// Those that expressions name. Everybody else is in another segment.
const NAMES: [&str; 3] = ["a", "b", "c"];
const OTHER: &str = "other";
const DAY: u64 = 86_400;

/// The segments of a user, by bits, and when the user was seen: an index of [`WINDOWS`].
type User = (usize, usize);

/// The shortest window that includes the user: a day, the own window of the first segment, or the configured window.
const WINDOWS: [&str; 3] = ["1d", "3d", "14d"];
const FULL: usize = 2;

/// The query of a request.
type Parameters<'a> = &'a [(&'a str, &'a str)];

/// The number of users by window and by the segments that they are in: a question is about a set of these groups.
#[derive(Debug, Default)]
struct Truth([BTreeMap<usize, u64>; WINDOWS.len()]);

/// What the attacker has learnt: by window, the number of users in some groups.
#[derive(Debug, Default)]
struct Learnt([BTreeMap<BTreeSet<usize>, u64>; WINDOWS.len()]);

/// The groups of users for whom `is_in` is true of the bits of their segments.
fn groups(is_in: impl Fn(usize) -> bool) -> BTreeSet<usize> {
    (0..1 << NAMES.len())
        .filter(|group| is_in(*group))
        .collect()
}

impl Truth {
    fn users(&self, window: usize, groups: &BTreeSet<usize>) -> u64 {
        let counted = &self.0[window];
        groups.iter().filter_map(|group| counted.get(group)).sum()
    }
}

impl Learnt {
    /// Notes an answer, which is the truth if it is not withheld.
    fn note(&mut self, truth: &Truth, window: usize, groups: BTreeSet<usize>, users: &Value) {
        if let Some(users) = users.as_u64() {
            assert_eq!(users, truth.users(window, &groups), "{groups:?}");
            self.0[window].insert(groups, users);
        }
    }

    /// Checks that no answer, and no difference of two, is about fewer users than the floor.
    fn check(&self) {
        for (groups, users) in self.0.iter().flatten() {
            assert!(*users >= FLOOR, "{groups:?} has {users}");
        }
        for (longer, window) in self.0.iter().zip(WINDOWS) {
            for (larger, all) in longer {
                // Who was seen within a shorter window is among those of a longer one.
                for (shorter, inner) in self.0.iter().zip(WINDOWS) {
                    let parts = shorter.iter().filter(|(part, _)| part.is_subset(larger));
                    for (smaller, some) in parts {
                        let apart = all - some;
                        assert!(
                            apart == 0 || apart >= FLOOR,
                            "{larger:?} over {window} without {smaller:?} over {inner} has {apart}"
                        );
                    }
                    if inner == window {
                        break;
                    }
                }
            }
        }
    }
}

/// Every set of one and two segments and many of three, with its groups.
fn questions() -> Vec<(String, BTreeSet<usize>)> {
    let has = |name: usize| move |group: usize| group >> name & 1 == 1;
    let mut all = vec![("*".to_owned(), groups(|_| true))];
    for (x, a) in NAMES.iter().enumerate() {
        all.push(((*a).to_owned(), groups(has(x))));
        all.push((format!("NOT {a}"), groups(|group| !has(x)(group))));
        for (y, b) in NAMES.iter().enumerate().filter(|(y, _)| *y != x) {
            let (in_a, in_b) = (has(x), has(y));
            all.push((format!("{a} AND {b}"), groups(|g| in_a(g) && in_b(g))));
            all.push((format!("{a} NOT {b}"), groups(|g| in_a(g) && !in_b(g))));
            all.push((format!("{a} OR {b}"), groups(|g| in_a(g) || in_b(g))));
            all.push((
                format!("NOT ({a} OR {b})"),
                groups(|g| !in_a(g) && !in_b(g)),
            ));
            all.push((
                format!("NOT ({a} AND {b})"),
                groups(|g| !(in_a(g) && in_b(g))),
            ));
            all.push((format!("{a} OR NOT {b}"), groups(|g| in_a(g) || !in_b(g))));
            all.push((
                format!("({a} OR {b}) NOT ({a} AND {b})"),
                groups(|g| in_a(g) != in_b(g)),
            ));
            let z = 3 - x - y;
            let (c, in_c) = (NAMES[z], has(z));
            all.push((
                format!("{a} AND {b} AND {c}"),
                groups(|g| in_a(g) && in_b(g) && in_c(g)),
            ));
            all.push((
                format!("{a} AND {b} NOT {c}"),
                groups(|g| in_a(g) && in_b(g) && !in_c(g)),
            ));
            all.push((
                format!("{a} OR {b} OR {c}"),
                groups(|g| in_a(g) || in_b(g) || in_c(g)),
            ));
            all.push((
                format!("{a} AND ({b} OR {c})"),
                groups(|g| in_a(g) && (in_b(g) || in_c(g))),
            ));
            all.push((
                format!("{a} NOT ({b} OR {c})"),
                groups(|g| in_a(g) && !in_b(g) && !in_c(g)),
            ));
        }
    }
    all
}

fn users() -> impl Strategy<Value = Vec<User>> {
    // Some groups are large, and others have few users.
    let sizes = prop_oneof![3 => Just(0_usize), 2 => 1..6_usize, 5 => 4..40_usize];
    let seen = (
        part_of_users(),
        prop_oneof![4 => Just(0_usize), 1 => 1..4_usize, 1 => part_of_users()],
    );
    vec((sizes, seen), 1 << NAMES.len()).prop_map(|sizes| {
        let groups = sizes.into_iter().enumerate();
        let users = groups.flat_map(|(group, (users, (today, own)))| {
            let seen = move |user| match user {
                user if user < today => 0,
                user if user < today + own => 1,
                _ => FULL,
            };
            (0..users).map(move |user| (group, seen(user)))
        });
        users.collect()
    })
}

fn part_of_users() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0_usize), Just(100), 0..20_usize]
}

async fn get(app: &App, path: &str, query: &[(&str, &str)]) -> Value {
    let url = Url::parse_with_params("http://service/", query).unwrap();
    let target = format!("{path}?{}", url.query().unwrap());
    let response = app.send(Method::GET, &target).await;
    assert_eq!(response.status, 200, "{target}: {}", response.json);
    response.json
}

async fn attack(users: &[User]) {
    let floor = FLOOR.to_string();
    let app = App::start_with(&[("min_users", &floor), ("refresh_windows", "1d")]).await;
    let mut truth = Truth::default();
    let path = format!("/v1/segments/{}", NAMES[0]);
    let settings = json!({ "window": WINDOWS[1] }).to_string();
    let set = app.send_body(Method::PUT, &path, "application/json", settings);
    assert_eq!(set.await.status, 200);
    for seen in (0..WINDOWS.len()).rev() {
        for (number, (group, _)) in users.iter().enumerate().filter(|(_, user)| user.1 == seen) {
            let user = format!("u{number}");
            let mut pairs = vec![(user.as_str(), OTHER)];
            pairs.extend(
                (0..NAMES.len())
                    .filter(|name| group >> name & 1 == 1)
                    .map(|name| (user.as_str(), NAMES[name])),
            );
            app.record(pairs).await;
            for counted in &mut truth.0[seen..] {
                *counted.entry(*group).or_default() += 1;
            }
        }
        if seen > 0 {
            app.advance(2 * DAY);
        }
    }
    let mut learnt = Learnt::default();
    for (expr, groups) in questions() {
        let answer = get(&app, "/v1/count", &[("expr", &expr)]).await;
        learnt.note(&truth, FULL, groups, &answer["users"]);
    }
    let usual = |number| if number == 0 { 1 } else { FULL };
    for (number, name) in NAMES.iter().enumerate() {
        let groups = groups(|group| group >> number & 1 == 1);
        let path = format!("/v1/segments/{name}/count");
        let count = get(&app, &path, &[]).await;
        assert_eq!(count["withheld"], count["users"].is_null());
        learnt.note(&truth, usual(number), groups.clone(), &count["users"]);
        for window in [0, FULL] {
            let count = get(&app, &path, &[("window", WINDOWS[window])]).await;
            learnt.note(&truth, window, groups.clone(), &count["users"]);
        }
    }
    let listed = |list: Value| -> BTreeMap<String, Value> {
        let rows = list["segments"].as_array().unwrap().iter();
        rows.map(|row| {
            (
                row["segment"].as_str().unwrap().to_owned(),
                row["users"].clone(),
            )
        })
        .collect()
    };
    let named = NAMES.map(|name| ("segment", name));
    let lists: [(Option<usize>, Parameters<'_>); 5] = [
        (None, &[]),
        (None, &named),
        (Some(0), &[("window", "1d"), ("sort", "users")]),
        (Some(0), &[named[0], ("window", "1d")]),
        (Some(FULL), &[("window", "14d")]),
    ];
    for (window, query) in lists {
        let list = listed(get(&app, "/v1/segments", query).await);
        for (number, name) in NAMES.iter().enumerate() {
            let groups = groups(|group| group >> number & 1 == 1);
            let window = window.unwrap_or_else(|| usual(number));
            let users = list.get(*name).unwrap_or(&Value::Null);
            learnt.note(&truth, window, groups, users);
        }
    }
    let overlap = get(&app, "/v1/overlap", &named).await;
    assert_eq!(overlap["everybody"], Value::Null);
    for x in 0..NAMES.len() {
        for y in 0..NAMES.len() {
            let both = groups(|group| group >> x & 1 == 1 && group >> y & 1 == 1);
            learnt.note(&truth, FULL, both, &overlap["both"][x][y]);
        }
    }
    let top = get(&app, "/v1/overlap/top", &[]).await;
    for pair in top["pairs"].as_array().unwrap() {
        assert_eq!(pair["lift"], Value::Null);
        let number = |side: &str| NAMES.iter().position(|name| pair[side] == *name);
        if let (Some(x), Some(y)) = (number("a"), number("b")) {
            let both = groups(|group| group >> x & 1 == 1 && group >> y & 1 == 1);
            learnt.note(&truth, FULL, both, &pair["both"]);
        }
    }
    learnt.check();
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_difference_to_the_own_window_is_withheld() {
    let sizes = [(0, 20), (1, 2), (FULL, 20)].into_iter();
    let users = sizes.flat_map(|(seen, users)| (0..users).map(move |_| (1, seen)));
    attack(&users.collect::<Vec<_>>()).await;
}

#[test]
fn no_two_answers_tell_a_small_group_apart() {
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(24));
    runner
        .run(&users(), |users| {
            runtime.block_on(attack(&users));
            Ok(())
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_groups_are_shown_and_other_windows_are_refused() {
    let app = App::start_with(&[("min_users", "3"), ("refresh_windows", "1d")]).await;
    let names: Vec<String> = (0..40).map(|user| format!("u{user}")).collect();
    for (number, user) in names.iter().enumerate() {
        let mut pairs = vec![(user.as_str(), "all")];
        pairs.extend((number < 20).then_some((user.as_str(), "news")));
        pairs.extend((number % 2 == 0).then_some((user.as_str(), "sports")));
        pairs.extend((number < 2).then_some((user.as_str(), "few")));
        app.record(pairs).await;
    }
    let both = get(&app, "/v1/count", &[("expr", "news AND sports")]).await;
    assert_eq!(both["users"], 10);
    let everybody = get(&app, "/v1/count", &[("expr", "*")]).await;
    assert_eq!(everybody["users"], 40);
    let few = get(&app, "/v1/segments/few/count", &[]).await;
    assert_eq!(
        (&few["users"], &few["withheld"], &few["known"]),
        (&Value::Null, &json!(true), &json!(true))
    );
    // Whoever is not in the set is a group as well.
    let without = get(&app, "/v1/count", &[("expr", "news NOT few")]).await;
    assert_eq!(without["users"], Value::Null);
    let overlap = get(
        &app,
        "/v1/overlap",
        &[("segment", "news"), ("segment", "few")],
    )
    .await;
    assert_eq!(overlap["both"], json!([[20, null], [null, null]]));
    for target in [
        "/v1/segments/news/count?window=2d",
        "/v1/segments?window=2d",
        "/v1/segments/news/trend?window=2d",
        "/v1/count?expr=news+AND+sports&window=1d",
        "/v1/overlap?segment=news&segment=few&window=1d",
        "/v1/overlap/top?window=1d",
    ] {
        let refused = app.send(Method::GET, target).await;
        assert_eq!(
            (refused.status, &refused.json["code"]),
            (400, &json!("invalid_window")),
            "{target}"
        );
    }
    // A client may ask for less than the service shows, and not for more.
    let strict = get(
        &app,
        "/v1/count",
        &[("expr", "news AND sports"), ("min_users", "11")],
    )
    .await;
    assert_eq!(strict["users"], Value::Null);
    let lax = get(
        &app,
        "/v1/count",
        &[("expr", "news NOT few"), ("min_users", "1")],
    )
    .await;
    assert_eq!(lax["users"], Value::Null);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_counts_are_withheld_alike() {
    let app = App::start_with(&[("min_users", "3"), ("refresh_windows", "1d")]).await;
    let mut recorded = 0;
    for users in [2, 5, 6] {
        for user in recorded..users {
            let user = format!("u{user}");
            app.headcount
                .record([(user.as_str(), "news")])
                .await
                .unwrap();
        }
        recorded = users;
        app.headcount.refresh(None).await.unwrap();
        app.advance(DAY + 3600);
    }
    let range = [("from", "2026-11-20T00:00:00Z")];
    let users = |trend: Value| -> Vec<Value> {
        let points = trend["points"].as_array().unwrap().iter();
        points.map(|point| point["users"].clone()).collect()
    };
    let full = users(get(&app, "/v1/segments/news/trend", &range).await);
    assert_eq!(full, [json!(null), json!(5), json!(6)]);
    // Within the day there were 2, then 3 of 5, then 1 of 6.
    let query = [range[0], ("window", "1d")];
    let day = users(get(&app, "/v1/segments/news/trend", &query).await);
    assert_eq!(day, [json!(null), json!(null), json!(null)]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_window_of_a_segment_has_a_trend() {
    let app = App::start_with(&[("min_users", "3"), ("refresh_windows", "1d")]).await;
    let put = async |segment: &str, window: &str| {
        let path = format!("/v1/segments/{segment}");
        let body = json!({"window": window}).to_string();
        let response = app.send_body(Method::PUT, &path, "application/json", body);
        assert_eq!(response.await.status, 200);
    };
    put("news", "2h").await;
    for user in ["u1", "u2", "u3", "u4"] {
        let pairs = [(user, "news"), (user, "sports")];
        app.record(pairs).await;
    }
    app.headcount.refresh(None).await.unwrap();
    for query in ["", "?window=2h"] {
        let target = format!("/v1/segments/news/trend{query}");
        let trend = app.get(&target).await;
        assert_eq!(trend.status, 200, "{target}: {trend:?}");
        assert_eq!(trend.json["window_seconds"], 7_200);
        assert_eq!(trend.json["points"][0]["users"], 4, "{trend:?}");
    }
    let trends = async |segments: Value| {
        let body = json!({"segments": segments, "window": "2h"}).to_string();
        let response = app.send_body(Method::POST, "/v1/trends", "application/json", body);
        response.await
    };
    let own = trends(json!(["news"])).await;
    assert_eq!(own.json["trends"][0]["points"][0]["users"], 4, "{own:?}");
    // It is the own window of one of them only.
    let other = trends(json!(["news", "sports"])).await;
    assert_eq!(other.problem(), (400, "invalid_window"));
    app.stop().await;
}

/// What no page may show with a floor of 2,000: the users of `few`, and those of `big` within a day, who are as many users fewer
/// than in two weeks.
const SECRETS: [&str; 4] = ["1237", "1,237", "7377", "7,377"];

#[tokio::test(flavor = "multi_thread")]
async fn no_page_shows_a_small_group() {
    let app = App::start_with(&[("min_users", "2000"), ("refresh_windows", "1d")]).await;
    let users: Vec<String> = (0..8_614).map(|user| format!("u{user}")).collect();
    let record = async |users: &[String], segment: &str| {
        for users in users.chunks(1_000) {
            let pairs = users.iter().map(|user| (user.as_str(), segment));
            app.record(pairs).await;
        }
    };
    record(&users[..1_237], "big").await;
    app.advance(2 * DAY);
    record(&users[1_237..], "big").await;
    record(&users[..1_237], "few").await;
    for _ in 0..3 {
        app.headcount.refresh(None).await.unwrap();
        app.advance(60);
    }
    let mut pages = BTreeMap::new();
    for target in [
        "/",
        "/?sort=users&order=asc",
        "/?sort=change",
        "/?window=1d",
        "/?window=2d",
        "/segments/few",
        "/segments/few?window=1d",
        "/segments/big",
        "/segments/big?window=1d",
        "/segments/big?window=2d",
        "/segments/few?before=on&base=lowest&range=1h",
        "/compare?segment=few&segment=big",
        "/compare?segment=few&segment=big&window=1d",
        "/combine?expr=few",
        "/combine?expr=big&window=1d",
        "/combine?expr=big%20NOT%20few",
        "/overlaps",
        "/status",
        "/segments.csv",
        "/segments.csv?window=1d",
        "/trends.csv?segment=few&segment=big",
        "/trends.csv?segment=few&segment=big&window=1d",
    ] {
        let page = app.get(target).await;
        assert_eq!(page.status, 200, "{target}: {page:?}");
        for secret in SECRETS {
            assert!(
                !page.text.contains(secret),
                "{target} shows {secret}: {page:?}"
            );
        }
        pages.insert(target, page.text);
    }
    let has = |target: &str, text: &str| {
        assert!(pages[target].contains(text), "{target}: {}", pages[target]);
    };
    for target in ["/", "/segments/few", "/compare?segment=few&segment=big"] {
        has(target, "Fewer than 2,000 users");
        // That is no failure.
        has(target, "data-kind=\"good\"");
    }
    let differs = "Withheld: it would reveal a group of fewer than 2,000 users";
    for target in ["/?window=1d", "/segments/big?window=1d"] {
        has(target, differs);
    }
    has(
        "/segments/big?window=2d",
        "only windows of 14 days, 24 hours are counted here",
    );
    has("/segments/big", "data-users>8,614</span>");
    has(
        "/segments/big",
        "Not shown: they would reveal groups of fewer than 2,000 users",
    );
    has("/segments.csv", "\nfew,,1209600,,false");
    for target in ["/", "/?sort=users&order=asc"] {
        let place = |segment: &str| pages[target].find(&format!("data-segment=\"{segment}\""));
        assert!(place("big").unwrap() < place("few").unwrap(), "{target}");
        assert!(!pages[target].contains("window=7d"), "{}", pages[target]);
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_withhold_small_counts() {
    let app = App::start_with(&[("min_users", "3")]).await;
    let record = async |users: std::ops::Range<u32>| {
        let names: Vec<_> = users.map(|user| format!("u{user}")).collect();
        let pairs = names.iter().map(|user| (user.as_str(), "news"));
        app.record(pairs).await;
    };
    record(0..1).await;
    let url = format!("http://{}/v1/events", app.addr);
    let mut listener = Listener::open(&url, None).await;
    // One that is withheld before and after is no event.
    record(1..2).await;
    app.record([("u1", "other")]).await;
    record(2..4).await;
    let shown = listener.event().await.data;
    assert_eq!(
        (&shown["segment"], &shown["users"], shown.get("entered")),
        (&json!("news"), &json!(4), None),
        "{shown}"
    );
    for user in ["u0", "u1"] {
        app.send(Method::DELETE, &format!("/v1/users/{user}")).await;
    }
    let mut users = Vec::new();
    while users.last() != Some(&Value::Null) {
        let data = listener.event().await.data;
        assert_eq!(data["segment"], "news", "{data}");
        users.push(data["users"].clone());
    }
    assert!(
        [vec![Value::Null], vec![json!(3), Value::Null]].contains(&users),
        "{users:?}"
    );
    app.stop().await;
}
