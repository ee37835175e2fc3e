//! Line protocol as a real InfluxDB reads it.

use domain::Timestamp;
use http::parse::line_protocol::{Precision, lines};
use http::settings::PairNames;
use serde_json::json;

use crate::support::influxd::{Influxd, ORG, TOKEN};

/// A time within the range of InfluxDB, in seconds.
const AT: &str = "1795262400";

/// What each line means is decided by the server.
const LINES: &[&str] = &[
    "pair,segment=a user=\"u\" {t}",
    "  pair,segment=a   user=\"u\"   {t}  ",
    "pair,segment=a user=\"u\" {t}\r",
    "pair,segment=a,host=b user=\"u\",n=1i,f=1.5,t=true,x=7u {t}",
    "pair,host=b,segment=a n=-1.5e3,user=\"u\" {t}",
    "pair,segment=a\\ b\\,c\\=d user=\"u\" {t}",
    "pair,segment=a\\b user=\"u\\x\" {t}",
    "pair,segment=a\\\\ user=\"u\" {t}",
    "pair,segment=a user=\"say \\\"hi\\\" \\\\ back\" {t}",
    "pair,segment=a user=\"a, b=c d\" {t}",
    "pair,segment=a user=\"two\nlines\" {t}",
    "pair,segment=\u{e4}\u{1f600} user=\"\u{fc}\" {t}",
    "pair,segment=a user=42i {t}",
    "pair,segment=a user=-42i {t}",
    "pair,segment=a user=9223372036854775807i {t}",
    "pair,segment=a user=9223372036854775808i {t}",
    "pair,segment=a user=18446744073709551615u {t}",
    "pair,segment=a user=18446744073709551616u {t}",
    "pair,segment=a user=-1u {t}",
    "pair,segment=a user=\"x\",user=\"y\" {t}",
    "# a comment\n\n \t\npair,segment=a user=\"u\" {t}",
    "pair,segment=a us\\er=1,user=\"u\" {t}",
    "pair,segment=a user=\"u\" {t} ",
    "pair,segment=a user=\"u\" -{t}",
    "pair,segment=a user=\"u\" {t}x",
    "pair,segment=a user=\"u\" {t}i",
    "pair,segment=a user=\"u\" 1.5",
    "pair,segment=a user=\"u\" {t} 5",
    "pair,segment=a user=\"u\" 99999999999999",
    "pair,segment=a user=\"u\" 9223372036854775808",
    "cpu,segment=a user=\"u\" {t}",
    "pair\\ s,segment=a user=\"u\" {t}",
    "pa\\ir,segment=a user=\"u\" {t}",
    ",segment=a user=\"u\" {t}",
    "pair",
    "pair {t}",
    "pair,segment=a",
    "pair,segment=a ",
    "pair,segment user=\"u\" {t}",
    "pair,=a user=\"u\" {t}",
    "pair,segment= user=\"u\" {t}",
    "pair,segment=a=b user=\"u\" {t}",
    "pair,segment=a,segment=b user=\"u\" {t}",
    "pair,segment=a, user=\"u\" {t}",
    "pair,,segment=a user=\"u\" {t}",
    "pair,segment=a user {t}",
    "pair,segment=a user= {t}",
    "pair,segment=a =\"u\" {t}",
    "pair,segment=a user=u {t}",
    "pair,segment=a user=1.2.3,x=1 {t}",
    "pair,segment=a user=\"u\",f=.5 {t}",
    "pair,segment=a user=\"u\",f=5. {t}",
    "pair,segment=a user=\"u\",f=+5 {t}",
    "pair,segment=a user=\"u\",f=-inf {t}",
    "pair,segment=a user=\"u\",f=NaN {t}",
    "pair,segment=a user=\"u\",f=1e400 {t}",
    "pair,segment=a user=\"u\",f=1.5i {t}",
    "pair,segment=a user=\"u\",f=0x10 {t}",
    "pair,segment=a user=\"u\",f=1_000 {t}",
    "pair,segment=a user=\"u\",f=T {t}",
    "pair,segment=a user=\"u\",f=tRUE {t}",
    "pair,segment=a user=\"u\",f=- {t}",
    "pair,segment=a user=\"u {t}",
    "pair,segment=a user=\"u\\\" {t}",
    "pair,segment=a user=\"u\", {t}",
    "pair,segment=a user=\"u\" ,f=1 {t}",
    "pair, segment=a user=\"u\" {t}",
    "pair,segment=a\tb user=\"u\" {t}",
    "pair,segment=a user=\"u\"\t{t}",
    "a=b,segment=a user=\"u\" {t}",
    "\"pair\",segment=\"a\" user=\"u\" {t}",
    "pair,segment=\"a\" user=\"u\" {t}",
    "pair,segment=a\\,user=\"u\" {t}",
    "pair,segment=a user=\"\" {t}",
];

/// A pair as user, segment and seconds.
type Seen = (String, String, i64);

/// The pairs that our parser finds, and whether it takes every point of the body.
fn ours(body: &str) -> (Vec<Seen>, bool) {
    let mut pairs = Vec::new();
    let mut push = |user: &str, segment: &str, at: Option<Timestamp>| {
        let at = at.unwrap_or(Timestamp::UNIX_EPOCH);
        pairs.push((user.to_owned(), segment.to_owned(), at.as_second()));
        Ok(())
    };
    let names = PairNames::default().lines;
    let report = lines(body.as_bytes(), &names, Precision::Seconds, &mut push);
    (pairs, report.rejected() == 0)
}

/// The same of the server.
async fn theirs(
    server: &Influxd,
    client: &reqwest::Client,
    bucket: &str,
    body: &str,
) -> (Vec<Seen>, bool) {
    server.create_bucket(bucket).await;
    let written = client
        .post(format!("{}/api/v2/write", server.url()))
        .query(&[("org", ORG), ("bucket", bucket), ("precision", "s")])
        .header("Authorization", format!("Token {TOKEN}"))
        .body(body.to_owned());
    let status = written.send().await.unwrap().status();
    let query = format!(
        "from(bucket: \"{bucket}\") |> range(start: 1900-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z) \
         |> filter(fn: (r) => r._measurement == \"pair\" and r._field == \"user\") \
         |> map(fn: (r) => ({{user: string(v: r._value), segment: r.segment, at: int(v: r._time) / 1000000000}}))"
    );
    let path = format!("api/v2/query?org={}", ORG.replace(' ', "%20"));
    let answer = server
        .post(&path, &json!({"query": query, "type": "flux"}))
        .await;
    let text = answer.text().await.unwrap();
    let mut rows = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(text.as_bytes());
    let headers = rows.headers().cloned().unwrap_or_default();
    let column = |name: &str| headers.iter().position(|header| header == name);
    let mut pairs = Vec::new();
    for row in rows.records().map(Result::unwrap) {
        let value = |name| {
            column(name)
                .and_then(|column| row.get(column))
                .unwrap_or_default()
        };
        if value("at").parse::<i64>().is_ok() {
            let at = value("at").parse().unwrap();
            // InfluxDB ends lines of CSV, within values too, by both characters.
            let user = value("user").replace("\r\n", "\n");
            pairs.push((user, value("segment").to_owned(), at));
        }
    }
    (pairs, status == 204)
}

/// What this service refuses on purpose although InfluxDB takes it, or the other way round.
fn is_on_purpose(line: &str) -> bool {
    // A carriage return at the end of a line is no part of the timestamp. InfluxDB takes a tab after a string for a part of it, and
    // loses the last digit of the timestamp.
    line.ends_with('\r') || line.contains("\"\t")
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_mean_what_influxdb_takes_them_for() {
    let Some(server) = Influxd::start().await else {
        return;
    };
    let (client, mut differences) = (reqwest::Client::new(), Vec::new());
    for (number, line) in LINES.iter().enumerate() {
        let body = line.replace("{t}", AT);
        let (our_pairs, our_success) = ours(&body);
        let (their_pairs, their_success) =
            theirs(&server, &client, &format!("b{number}"), &body).await;
        let is_same = (&our_pairs, our_success) == (&their_pairs, their_success);
        if !is_same && !is_on_purpose(line) {
            differences.push(format!(
                "{body:?}: ours {our_pairs:?} {our_success}, InfluxDB's {their_pairs:?} {their_success}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
