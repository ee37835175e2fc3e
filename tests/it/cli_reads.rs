//! `headcount count`, `segments`, `overlap` and `trend` against a running service: several segments, and every format.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::program::{Run, run};
use crate::support::service::Service;

struct Site {
    folder: TempDir,
    service: Service,
}

impl Site {
    /// A service with the segments `=1`, `a, b`, `sports` (two users each) and their trends.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(folder.path(), &[("refresh_mode", "off")]).await;
        for segment in ["=1", "a, b", "sports"] {
            let pairs = [1, 2].map(|user| json!({"user_id": user, "segment": segment}));
            service.post_body(json!(pairs).to_string()).await;
        }
        let site = Self { folder, service };
        site.run(&["refresh", "--url", &site.service.url()]);
        site
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let done = self.try_run(arguments);
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
        done
    }

    fn try_run(&self, arguments: &[&str]) -> Run {
        let url = self.service.url();
        run(self.folder.path(), &[("url", url.as_str())], arguments)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_segments_are_counted_in_order() {
    let site = Site::start().await;
    let done = site.run(&["count", "sports", "sprots", "=1"]);
    let counts: Vec<_> = done
        .out
        .lines()
        .map(|line| line.split(" in ").next().unwrap())
        .collect();
    assert_eq!(
        counts,
        ["sports: 2 users", "sprots: 0 users", "=1: 2 users"]
    );
    let notes: Vec<_> = done.err.lines().collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert_eq!(notes[0], "`sprots` was never seen: did you mean `sports`?");
    assert!(notes[1].starts_with("warning: not complete"), "{notes:?}");
    assert_eq!(site.run(&["count", "sprots", "--quiet"]).err, "");

    let done = site.run(&["count", "sports", "=1", "--json", "--window", "7d"]);
    let documents: Vec<Value> = done
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let segments: Vec<_> = documents.iter().map(|it| &it["segment"]).collect();
    assert_eq!(segments, ["sports", "=1"]);
    assert_eq!(documents[0]["window_seconds"], 604_800);

    let done = site.run(&["count", "a, b", "sports", "--format", "csv"]);
    let lines: Vec<_> = done.out.split("\r\n").collect();
    assert_eq!(lines.len(), 4, "{done:?}");
    assert!(lines[0].starts_with("segment,users,window_seconds,"));
    assert!(lines[1].starts_with("\"a, b\",2,1209600,"));
    assert!(lines[2].starts_with("sports,2,1209600,"));
    assert_eq!(lines[3], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_searched_and_printed_in_every_format() {
    let site = Site::start().await;
    let table = site.run(&["segments", "--search", "SPORT"]).out;
    assert!(table.starts_with("USERS  AS OF") && table.ends_with("  sports\n"));
    assert_eq!(table.lines().count(), 2, "{table}");
    let none = site.run(&["segments", "--search", "x"]);
    assert_eq!(none.err, "no segment has `x` in its name\n");
    assert_eq!(site.run(&["segments", "--search", "x", "-q"]).err, "");
    let json = site.run(&["segments", "--format", "json"]).json();
    assert_eq!(json["segments"].as_array().unwrap().len(), 3);

    let csv = site.run(&["segments", "--format", "csv", "--sort", "users"]);
    let firsts: Vec<_> = csv
        .out
        .lines()
        .map(|line| line.split(",2,").next().unwrap())
        .collect();
    let header = "segment,users,window_seconds,as_of,stale,known,withheld";
    assert_eq!(firsts, [header, "=1", "\"a, b\"", "sports"]);
    let csv = site.run(&["segments", "--format", "csv", "--limit", "1"]);
    assert_eq!(csv.out.lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn trends_are_printed_in_every_format() {
    let site = Site::start().await;
    let done = site.run(&["trend", "sports", "sprots", "--step", "1h"]);
    let lines: Vec<_> = done.out.lines().collect();
    assert_eq!(lines.len(), 2, "{done:?}");
    assert!(lines[0].starts_with("AT ") && lines[1].ends_with("  sports"));
    assert!(lines[1].contains("      2  "), "{lines:?}");
    assert_eq!(done.err, "`sprots` was never seen\n");
    let json = site.run(&["trend", "sports", "=1", "--json"]).json();
    assert_eq!(json["trends"][1]["points"][0]["users"], 2);
    let csv = site.run(&["trend", "a, b", "--format", "csv"]).out;
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 2, "{csv}");
    assert_eq!(lines[0], "segment,window_seconds,at,users,entered,left");
    assert!(lines[1].starts_with("\"a, b\",1209600,20") && lines[1].contains("Z,2,"));
    let refused = site.try_run(&["trend", "sports", "--window", "90s"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("400 invalid_window"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn overlaps_are_of_named_segments_or_of_the_top_pairs() {
    let site = Site::start().await;
    let more = json!([{"user_id": 1, "segment": "news"}, {"user_id": 3, "segment": "news"}]);
    site.service.post_body(more.to_string()).await;
    let done = site.run(&["overlap", "sports", "news", "sprots"]);
    assert_eq!(
        done.out,
        "BOTH  ONLY A  ONLY B  JACCARD   LIFT  A  B\n   \
         1       1       1    0.333  0.750  sports  news\n   \
         0       2       0    0.000      -  sports  sprots\n   \
         0       2       0    0.000      -  news  sprots\n"
    );
    assert!(done.err.starts_with("of 3 users in the last 14d as of "));
    assert!(done.err.contains("`sprots` was never seen\n"), "{done:?}");

    let done = site.run(&["overlap", "--by", "jaccard", "--limit", "3", "--fresh"]);
    let pairs: Vec<_> = done.out.lines().skip(1).collect();
    assert_eq!(
        pairs,
        [
            "   2       0       0    1.000  1.500  =1  a, b",
            "   2       0       0    1.000  1.500  =1  sports",
            "   2       0       0    1.000  1.500  a, b  sports",
        ]
    );
    let done = site.run(&["overlap", "sports", "news", "--json", "--window", "7d"]);
    let document: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(document["both"], json!([[2, 1], [1, 2]]));
    assert_eq!(document["window_seconds"], 604_800);
    let one = site.try_run(&["overlap", "sports"]);
    assert!(
        one.code == Some(2) && one.err.contains("two segments or more"),
        "{one:?}"
    );
}
