//! Parses what people write, what they write by mistake, and arbitrary strings.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    Expression::parse(text).unwrap().to_string()
}

fn refused(text: &str) -> (usize, Problem) {
    let invalid = Expression::parse(text).unwrap_err();
    assert!(invalid.position <= text.chars().count() + 1, "{invalid}");
    (invalid.position, invalid.problem)
}

fn segment(name: &str) -> Segment {
    Segment::new(name).unwrap()
}

#[test]
fn precedence_and_parentheses() {
    for (text, expected) in [
        ("news", "news"),
        (" \"news\" ", "news"),
        ("*", "*"),
        ("\"*\"", "\"*\""),
        ("a*", "a*"),
        ("a OR b AND c", "a OR b AND c"),
        ("a OR (b AND c)", "a OR b AND c"),
        ("(a OR b)AND c", "(a OR b) AND c"),
        ("a NOT b", "a AND NOT b"),
        ("a OR b NOT c", "a OR b AND NOT c"),
        ("NOT a AND b", "NOT a AND b"),
        ("NOT(a AND b)", "NOT (a AND b)"),
        ("NOT NOT (a)", "NOT NOT a"),
        ("a NOT (b NOT c)", "a AND NOT (b AND NOT c)"),
        ("a AND (b AND (c AND d))", "a AND b AND c AND d"),
        ("((a OR b)) OR c", "a OR b OR c"),
        ("\"and\" OR \"Not\"", "\"and\" OR \"Not\""),
        ("\"a\"AND\"b c\"", "a AND \"b c\""),
        (r#""say \"hi\" \\o/""#, r#""say \"hi\" \\o/""#),
        (r"a\b", r"a\b"),
        ("Спорт\u{a0}OR\n🏀", "Спорт OR 🏀"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
    let issue = r#""front page" AND (news OR sports) NOT "Black Friday""#;
    let expression: Expression = issue.parse().unwrap();
    let names = ["front page", "news", "sports", "Black Friday"].map(segment);
    assert_eq!(expression.segments(), names.iter().collect::<Vec<_>>());
    assert_eq!(
        expression.set(),
        &Set::And(vec![
            Set::Segment(segment("front page")),
            Set::Or(vec![
                Set::Segment(segment("news")),
                Set::Segment(segment("sports"))
            ]),
            Set::Not(Box::new(Set::Segment(segment("Black Friday")))),
        ])
    );
}

#[test]
fn segments_are_distinct_and_ordered() {
    let expression = Expression::parse("b AND (a OR b NOT a) OR * AND c").unwrap();
    let names = ["b", "a", "c"].map(segment);
    assert_eq!(expression.segments(), names.iter().collect::<Vec<_>>());
    let one = Expression::from(segment("front page"));
    assert_eq!(one, Expression::parse("\"front page\"").unwrap());
}

#[test]
fn tells_whether_other_segments_matter() {
    for (text, expected) in [
        ("a", false),
        ("*", true),
        ("NOT a", true),
        ("a NOT b", false),
        ("a NOT (b OR NOT c)", false),
        ("* AND a", false),
        ("* NOT a", true),
        ("NOT a AND NOT b", true),
        ("a OR NOT b", true),
        ("a AND (b OR NOT c)", false),
    ] {
        let expression = Expression::parse(text).unwrap();
        assert_eq!(expression.needs_every_segment(), expected, "{text}");
    }
}

#[test]
fn mistakes_have_a_position_and_a_name() {
    use Operator::{And, Not, Or};
    let case = |found: &str, meant| Problem::OperatorCase {
        found: found.into(),
        meant,
    };
    let sign = |found: &str, meant| Problem::OperatorSign {
        found: found.into(),
        meant,
    };
    let side_by_side = |left, right| Problem::SideBySide {
        left: segment(left),
        right: segment(right),
    };
    let two = |first, second| Problem::TwoOperators { first, second };
    for (text, position, problem) in [
        ("", 1, Problem::Empty),
        ("  ", 1, Problem::Empty),
        ("a AND", 3, Problem::NoRightSide(And)),
        ("(a OR )", 4, Problem::NoRightSide(Or)),
        ("NOT", 1, Problem::NoRightSide(Not)),
        ("AND a", 1, Problem::NoLeftSide(And)),
        ("a AND (OR b)", 8, Problem::NoLeftSide(Or)),
        ("a AND OR b", 7, two(And, Or)),
        ("NOT AND b", 5, two(Not, And)),
        ("front page", 7, side_by_side("front", "page")),
        ("a\"b\"", 2, side_by_side("a", "b")),
        ("'front page'", 8, Problem::WrongQuotes('\'')),
        ("“front page”", 8, Problem::WrongQuotes('“')),
        ("a (b)", 3, Problem::NoOperator),
        ("(a OR b) c", 10, Problem::NoOperator),
        ("a *", 3, Problem::NoOperator),
        ("é and b", 3, case("and", And)),
        ("not b", 1, case("not", Not)),
        ("a || b", 3, sign("||", Or)),
        ("()", 1, Problem::EmptyParentheses),
        ("a AND (", 7, Problem::UnclosedParenthesis),
        ("(a OR b", 1, Problem::UnclosedParenthesis),
        ("a)", 2, Problem::UnopenedParenthesis),
        (")", 1, Problem::UnopenedParenthesis),
        ("a OR \"b", 6, Problem::UnclosedQuote),
        ("\"b\\", 1, Problem::UnclosedQuote),
        ("\"a\\n\"", 3, Problem::UnknownEscape),
        (
            "\"\"",
            1,
            Problem::InvalidName(crate::InvalidSegment::Empty),
        ),
        (
            "a AND b\\",
            7,
            Problem::InvalidName(crate::InvalidSegment::TrailingBackslash),
        ),
    ] {
        assert_eq!(refused(text), (position, problem), "{text}");
    }
    let told = Expression::parse("é and b").unwrap_err().to_string();
    assert_eq!(
        told,
        "expression is invalid at character 3: and is not an operator; write AND in capitals, or \"and\" in quotes \
         for a segment of that name"
    );
    let told = Expression::parse("\"a b\" c").unwrap_err().to_string();
    assert!(
        told.contains("write \"a b\" AND c, \"a b\" OR c, or"),
        "{told}"
    );
}

#[test]
fn limits_are_kept() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(canonical(&nested(MAX_DEPTH)), "a");
    let too_deep = (MAX_DEPTH + 1, Problem::TooDeep);
    assert_eq!(refused(&nested(1_000)), too_deep);
    assert_eq!(refused(&"(".repeat(1_000)), too_deep);
    let (position, problem) = refused(&"NOT ".repeat(1_000));
    assert_eq!((position, problem), (129, Problem::TooDeep));

    let names = |count: usize| vec!["a"; count].join(" OR ");
    assert!(Expression::parse(&names(MAX_NAMES)).is_ok());
    let (position, problem) = refused(&names(MAX_NAMES + 1));
    assert_eq!(problem, Problem::TooManyNames);
    assert_eq!(position, 5 * MAX_NAMES + 1);

    let long = "é".repeat(5_000);
    assert_eq!(refused(&long), (2_049, Problem::TooLong(10_000)));
    let padded = format!("a{}", " ".repeat(MAX_BYTES - 1));
    assert_eq!(canonical(&padded), "a");
}

#[test]
fn the_canonical_form_keeps_the_limit_too() {
    // Within the limit only without the ANDs of the canonical form.
    let text = vec!["x".repeat(119); 33].join(" NOT ");
    assert!(text.len() <= MAX_BYTES);
    let canonical = text.replace(" NOT ", " AND NOT ");
    let too_long = Problem::TooLong(canonical.len());
    assert_eq!(refused(&text), (text.len() + 1, too_long));
}

fn name() -> impl Strategy<Value = Segment> {
    let special = prop_oneof![
        Just("and"),
        Just("NOT"),
        Just("*"),
        Just("&&"),
        Just("front page"),
        Just("a\"b"),
        Just("c\\d"),
        Just("(")
    ];
    let any = prop_oneof![special.prop_map(String::from), "[a-cé]{1,3}", "\\PC{1,8}"];
    any.prop_filter_map("a valid segment", |text| Segment::new(&text).ok())
}

fn set() -> impl Strategy<Value = Set> {
    let leaf = prop_oneof![4 => name().prop_map(Set::Segment), 1 => Just(Set::Everybody)];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|set| Set::Not(Box::new(set))),
            vec(inner.clone(), 2..4).prop_map(Set::And),
            vec(inner, 2..4).prop_map(Set::Or),
        ]
    })
}

/// The same set, as the parser builds it.
fn flat(set: &Set) -> Set {
    match set {
        Set::Segment(_) | Set::Everybody => set.clone(),
        Set::Not(inner) => Set::Not(Box::new(flat(inner))),
        Set::And(sets) => {
            let operands = sets.iter().map(flat).flat_map(|set| match set {
                Set::And(inner) => inner,
                other => vec![other],
            });
            Set::And(operands.collect())
        }
        Set::Or(sets) => {
            let operands = sets.iter().map(flat).flat_map(|set| match set {
                Set::Or(inner) => inner,
                other => vec![other],
            });
            Set::Or(operands.collect())
        }
    }
}

/// Strings made of the parts of expressions, most of them invalid.
fn almost() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("AND"),
        Just("OR"),
        Just("NOT"),
        Just("("),
        Just(")"),
        Just("*"),
        Just("\""),
        Just("\\"),
        Just(" "),
        Just("and"),
        Just("a"),
        Just("é")
    ];
    vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_canonical_form_parses_to_the_same(set in set()) {
        let expression = Expression::parse(&set.to_string()).unwrap();
        prop_assert_eq!(expression.set(), &flat(&set));
        let again = Expression::parse(&expression.to_string()).unwrap();
        prop_assert_eq!(&again, &expression);
        prop_assert_eq!(again.to_string(), expression.to_string());
    }

    #[test]
    fn no_string_panics(text in prop_oneof![any::<String>(), almost(), "[() \"\\\\NOTa*]{0,60}"]) {
        match Expression::parse(&text) {
            Ok(expression) => {
                let again = Expression::parse(&expression.to_string()).unwrap();
                prop_assert_eq!(again, expression);
            }
            Err(invalid) => {
                prop_assert!((1..=text.chars().count() + 1).contains(&invalid.position));
                prop_assert!(!invalid.to_string().is_empty());
            }
        }
    }
}
