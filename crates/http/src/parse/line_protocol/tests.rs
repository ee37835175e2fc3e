use super::*;

fn names() -> LineNames {
    LineNames {
        measurement: "pair".to_owned(),
        segment: "segment".to_owned(),
        user: "user".to_owned(),
    }
}

type Seen = (String, String, Option<i64>);

/// The pairs of `body` with their time in nanoseconds, the codes of its errors, and the number of ignored points.
fn read(body: &str, precision: Precision) -> (Vec<Seen>, Vec<&'static str>, usize) {
    let mut pairs = Vec::new();
    let mut push = |user: &str, segment: &str, at: Option<Timestamp>| {
        let at = at.map(|at| i64::try_from(at.as_nanosecond()).unwrap());
        pairs.push((user.to_owned(), segment.to_owned(), at));
        Ok(())
    };
    let report = lines(body.as_bytes(), &names(), precision, &mut push);
    let codes = report.errors.iter().map(|error| error.code).collect();
    (pairs, codes, report.ignored)
}

fn pairs(body: &str) -> Vec<Seen> {
    let (pairs, codes, ignored) = read(body, Precision::default());
    assert_eq!((codes.len(), ignored), (0, 0), "{body}: {codes:?}");
    pairs
}

fn pair(user: &str, segment: &str, at: Option<i64>) -> Vec<Seen> {
    vec![(user.to_owned(), segment.to_owned(), at)]
}

#[test]
fn points_are_read_as_influxdb_reads_them() {
    for (body, user, segment, at) in [
        ("pair,segment=a user=\"u\"", "u", "a", None),
        (
            "pair,segment=a user=\"u\" 1700000000000000000",
            "u",
            "a",
            Some(1_700_000_000_000_000_000),
        ),
        ("  pair,segment=a   user=\"u\"   -5  ", "u", "a", Some(-5)),
        ("pair,segment=a user=\"u\" 7\r\n", "u", "a", Some(7)),
        ("pair,segment=a user=\"u\"\r", "u", "a", None),
        (
            "pair,x=1,segment=a,z=2 other=1i,user=\"u\",t=T",
            "u",
            "a",
            None,
        ),
        (r#"pair,segment=a\ b\,c\=d user="u""#, "u", "a b,c=d", None),
        (r#"pair,segment=a\b user="u\x""#, r"u\x", r"a\b", None),
        (
            r#"pair,segment=a user="say \"hi\" \\ back""#,
            r#"say "hi" \ back"#,
            "a",
            None,
        ),
        ("pair,segment=a user=\"a, b=c d\"", "a, b=c d", "a", None),
        (
            "pair,segment=a user=\"two\nlines\"",
            "two\nlines",
            "a",
            None,
        ),
        (
            "pair,segment=\u{e4}\u{1f600} user=\"\u{fc}\"",
            "\u{fc}",
            "\u{e4}\u{1f600}",
            None,
        ),
        ("pair,segment=a user=42i", "42", "a", None),
        ("pair,segment=a user=-42i", "-42", "a", None),
        (
            "pair,segment=a user=18446744073709551615u",
            "18446744073709551615",
            "a",
            None,
        ),
        ("pair,segment=a user=\"x\",user=\"y\"", "y", "a", None),
        (
            "# a comment\n\n \t\npair,segment=a user=\"u\"",
            "u",
            "a",
            None,
        ),
        (r#"pair,segment=a us\er=1,user="u""#, "u", "a", None),
    ] {
        assert_eq!(pairs(body), pair(user, segment, at), "{body}");
    }
}

#[test]
fn timestamps_have_the_precision_that_is_named() {
    for (name, time, nanoseconds) in [
        ("", "5", Some(5)),
        ("ns", "5", Some(5)),
        ("n", "5", Some(5)),
        ("us", "5", Some(5_000)),
        ("u", "5", Some(5_000)),
        ("ms", "5", Some(5_000_000)),
        ("s", "1700000000", Some(1_700_000_000_000_000_000)),
        ("m", "2", Some(120_000_000_000)),
        ("h", "-1", Some(-3_600_000_000_000)),
        ("s", "1700000000000", None),
        ("ns", "9223372036854775808", None),
    ] {
        let precision = Precision::of(name).unwrap();
        let body = format!("pair,segment=a user=\"u\" {time}");
        let (pairs, codes, _) = read(&body, precision);
        match nanoseconds {
            Some(at) => assert_eq!(pairs, pair("u", "a", Some(at)), "{name}"),
            None => assert_eq!((pairs.len(), codes.len()), (0, 1), "{name}"),
        }
    }
    assert_eq!(Precision::of("days"), None);
}

#[test]
fn a_bad_line_does_not_affect_the_others() {
    let bad = [
        (",segment=a user=\"u\"", "malformed"),
        ("pair", "malformed"),
        ("pair,segment=a", "malformed"),
        ("pair,segment=a ", "malformed"),
        ("pair,segment user=\"u\"", "malformed"),
        ("pair,=a user=\"u\"", "malformed"),
        ("pair,segment= user=\"u\"", "malformed"),
        ("pair,segment=a=b user=\"u\"", "malformed"),
        ("pair,segment=a,segment=b user=\"u\"", "malformed"),
        ("pair,segment=a, user=\"u\"", "malformed"),
        ("pair,segment=a user", "malformed"),
        ("pair,segment=a user=", "malformed"),
        ("pair,segment=a =\"u\"", "malformed"),
        ("pair,segment=a user=u", "malformed"),
        ("pair,segment=a user=1.2.3", "malformed"),
        ("pair,segment=a user=-inf", "malformed"),
        ("pair,segment=a user=NaN", "malformed"),
        ("pair,segment=a user=1e400", "malformed"),
        ("pair,segment=a user=1.5i", "malformed"),
        ("pair,segment=a user=9223372036854775808i", "malformed"),
        ("pair,segment=a user=-1u", "malformed"),
        ("pair,segment=a user=tRUE", "malformed"),
        ("pair,segment=a user=\"u\"x", "malformed"),
        ("pair,segment=a user=\"u\",", "malformed"),
        ("pair,segment=a user=\"u\" now", "malformed"),
        ("pair,segment=a user=\"u\" 1 2", "malformed"),
        ("pair,segment=a user=\"u\" -", "malformed"),
        ("pair,segment=a user=1.5", "invalid_user_id"),
        ("pair,segment=a user=true", "invalid_user_id"),
        ("pair,segment=a other=1", "invalid_user_id"),
        ("pair user=\"u\"", "invalid_segment"),
    ];
    for (line, code) in bad {
        let body = format!("pair,segment=x user=\"1\"\n{line}\npair,segment=y user=\"2\"\n");
        let (pairs, codes, ignored) = read(&body, Precision::default());
        let users: Vec<_> = pairs.iter().map(|(user, ..)| user.as_str()).collect();
        assert_eq!(
            (users, codes, ignored),
            (vec!["1", "2"], vec![code], 0),
            "{line}"
        );
    }
    // A string without an end may have been meant to go on in the next line.
    let (pairs, codes, _) = read(
        "pair,segment=x user=\"1\npair,segment=y user=2i",
        Precision::default(),
    );
    assert_eq!((pairs, codes), (pair("2", "y", None), vec!["malformed"]));
}

#[test]
fn points_of_other_measurements_are_ignored() {
    let body = "cpu,host=a usage=0.5 1\npair,segment=a user=\"u\"\npairs,segment=a user=\"v\"\nsyslog m=\"pair\nline\"\n";
    let (pairs, codes, ignored) = read(body, Precision::default());
    assert_eq!((pairs, codes.len(), ignored), (pair("u", "a", None), 0, 3));
}
