//! Compares overlaps with a naive model, also while others write, and times them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use domain::overlap::{OverlapMatrix, OverlapOrder, PairOverlap, TopQuestion};
use domain::{Floor, Reach, Segment, Slot};
use proptest::prelude::*;

use super::*;
use crate::histories::{
    Model, SEGMENTS, come_and_go, fingerprint, let_time_pass, never_stop, play, population,
    segment, settled, story,
};
use crate::{Entry, Fingerprint};

fn names(names: &[&str]) -> Vec<Segment> {
    names.iter().map(|name| segment(name)).collect()
}

/// What a question is about: positions in `SEGMENTS`, one beyond them for a segment that is unknown. `None` for all.
#[derive(Debug, Clone)]
struct Question {
    of: Option<Vec<usize>>,
    window: u32,
    step: u32,
}

fn question() -> impl Strategy<Value = Question> {
    let some = proptest::collection::vec(0..=SEGMENTS.len(), 0..6);
    let of = prop_oneof![1 => Just(None), 2 => some.prop_map(Some)];
    let window = prop_oneof![1..10_u32, 1..500_u32, Just(20_160), Just(u32::MAX)];
    let step = prop_oneof![0..5_u32, 1..500_u32, Just(u32::MAX)];
    (of, window, step).prop_map(|(of, window, step)| Question { of, window, step })
}

/// The names that a question is about, once the unknown ones are known to be all that it lacks.
fn asked_names(question: &Question, model: &Model, full: u32, head: u64) -> Vec<&'static str> {
    let Some(of) = &question.of else {
        return all_names(model, full, head);
    };
    let name = |position: &usize| SEGMENTS.get(*position).copied().unwrap_or("unknown");
    of.iter().map(name).collect()
}

fn all_names(model: &Model, full: u32, head: u64) -> Vec<&'static str> {
    let mut all = SEGMENTS.to_vec();
    all.retain(|name| model.count(full, head, |segments| segments.contains(name)) > 0);
    all
}

fn in_model(model: &Model, names: &[&str], window: u32, head: u64) -> Vec<Vec<u64>> {
    let mut rows = vec![vec![0; names.len()]; names.len()];
    model.each(window, head, |segments| {
        let found = names.iter().map(|name| segments.contains(name));
        let found: Vec<bool> = found.collect();
        for (row, is_in_row) in rows.iter_mut().zip(&found) {
            for (cell, is_in_column) in row.iter_mut().zip(&found) {
                *cell += u64::from(*is_in_row && *is_in_column);
            }
        }
    });
    rows
}

fn ask(index: &Index, model: &Model, question: &Question, full: u32, head: u64) {
    let listed = asked_names(question, model, full, head);
    let given = names(&listed);
    let between = match &question.of {
        None => Between::All,
        Some(_) => Between::These(&given),
    };
    let everybody = |window| model.count(window, head, |segments| !segments.is_empty());
    let as_of = Slot::new(head);
    let counted = index
        .overlaps(between, question.window, as_of, &mut never_stop)
        .unwrap();
    let window = question.window.min(full);
    assert_eq!(counted.as_of, as_of);
    assert_eq!(counted.matrix.segments(), given);
    assert_eq!(
        counted.matrix.rows(),
        in_model(model, &listed, window, head),
        "{question:?}"
    );
    assert_eq!(counted.matrix.everybody(), everybody(window));
    if names_are_distinct(&listed) {
        let sizes = index.group_sizes(&given, question.window, as_of, &mut never_stop);
        let expected = GroupSizes {
            smallest: smallest_in_model(model, &listed, window, head),
            everybody: everybody(window),
        };
        assert_eq!(sizes, Ok(Some(expected)));
    }
    ask_rings(index, model, question, &listed, (full, head));
}

/// The size of the smallest group of users with the same of these segments.
fn smallest_in_model(model: &Model, names: &[&str], window: u32, head: u64) -> u64 {
    let mut groups = vec![0; 1 << names.len()];
    model.each(window, head, |segments| {
        let is_in = |name: &&str| usize::from(segments.contains(name));
        let group = names.iter().fold(0, |group, name| 2 * group + is_in(name));
        groups[group] += 1;
    });
    groups.into_iter().min().unwrap()
}

fn ask_rings(
    index: &Index,
    model: &Model,
    question: &Question,
    listed: &[&str],
    (full, head): (u32, u64),
) {
    // More steps only take time.
    let step = question.step.clamp(full.div_ceil(100), full);
    let as_of = Slot::new(head);
    let rings = index.overlap_rings(step, as_of, &mut never_stop).unwrap();
    assert_eq!(rings.as_of(), as_of);
    let all = all_names(model, full, head);
    for window in [0, step, step * (full / step / 2), full - 1, full, u32::MAX] {
        for listed in [&all, listed] {
            let given = names(listed);
            let matrix = rings.matrix_of(&given, window);
            let has_ring = window >= full || window.is_multiple_of(step);
            if !has_ring || listed.iter().any(|name| !all.contains(name)) {
                assert_eq!(matrix, None, "{given:?}, {window}");
                continue;
            }
            let (matrix, window) = (matrix.unwrap(), window.min(full));
            assert_eq!(matrix.segments(), given);
            assert_eq!(matrix.rows(), in_model(model, listed, window, head));
            let everybody = model.count(window, head, |segments| !segments.is_empty());
            assert_eq!(matrix.everybody(), everybody);
        }
        assert_eq!(rings.matrix(window), rings.matrix_of(&names(&all), window));
    }
}

fn names_are_distinct(names: &[&str]) -> bool {
    names
        .iter()
        .all(|name| names.iter().filter(|other| other == &name).count() == 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn agrees_with_the_model((window, steps) in story(question())) {
        let last = Question {
            of: None,
            window,
            step: window / 7,
        };
        play(window, steps, last, |asked, index, model, head| {
            ask(index, model, &asked, window, head);
        });
    }
}

/// Two segments of a thousand users each, 400 of them in both, seen there 30 and 10 slots before 100.
fn two_segments() -> Index {
    let index = Index::new(50);
    let (early, late) = (Slot::new(70), Slot::new(90));
    index.load_sorted(&segment("a"), &population(1, 400, 600, early), early);
    index.load_sorted(&segment("b"), &population(2, 400, 600, late), late);
    index.advance(Slot::new(100));
    index
}

#[test]
fn the_earlier_visit_decides() {
    let index = two_segments();
    let slot = Slot::new(100);
    for (window, row) in [(50, [1000, 400]), (31, [1000, 400]), (30, [0, 0])] {
        let counted = index.overlaps(Between::All, window, slot, &mut never_stop);
        let matrix = counted.unwrap().matrix;
        assert_eq!(matrix.rows()[0], row);
        assert_eq!(matrix.both(1, 1), 1000);
    }
    let rings = index.overlap_rings(10, slot, &mut never_stop).unwrap();
    for (window, both, everybody) in [(10, 0, 0), (20, 0, 1000), (30, 0, 1000), (40, 400, 1600)] {
        let matrix = rings.matrix(window).unwrap();
        assert_eq!((matrix.both(0, 1), matrix.everybody()), (both, everybody));
    }
    assert_eq!(rings.matrix(45), None);
    assert_eq!(rings.matrix_of(&names(&["a", "c"]), 40), None);
    let matrix = rings.matrix_of(&names(&["b", "a"]), 40).unwrap();
    let pairs: Vec<PairOverlap> = matrix.pairs().collect();
    assert_eq!(pairs[0].jaccard(), 0.25);
}

#[test]
fn a_named_segment_may_be_unknown_or_repeated() {
    let index = two_segments();
    let given = names(&["b", "unknown", "a", "b"]);
    let slot = Slot::new(100);
    let counted = index.overlaps(Between::These(&given), 50, slot, &mut never_stop);
    let matrix = counted.unwrap().matrix;
    assert_eq!(
        matrix.rows(),
        [
            [1000, 0, 400, 1000],
            [0, 0, 0, 0],
            [400, 0, 1000, 400],
            [1000, 0, 400, 1000]
        ]
    );
    assert_eq!(matrix.everybody(), 1600);
    let one = Between::These(&given[..1]);
    let counted = index.overlaps(one, 50, slot, &mut never_stop).unwrap();
    assert_eq!(counted.matrix.rows(), [[1000]]);
    assert_eq!(counted.matrix.everybody(), 1600);
    let none = index.overlaps(Between::These(&[]), 50, slot, &mut never_stop);
    assert_eq!(none.unwrap().matrix.rows(), Vec::<Vec<u64>>::new());
}

#[test]
fn too_many_segments_are_an_error_with_the_limit() {
    let index = Index::new(10);
    let slot = Slot::new(100);
    let seen = [Entry::new(fingerprint(1), slot)];
    let many: Vec<Segment> = (0..=MAX_SEGMENTS)
        .map(|number| segment(&format!("s{number}")))
        .collect();
    for name in &many[1..] {
        index.upsert(name, &seen, slot);
    }
    let counted = index.overlaps(Between::All, 10, slot, &mut never_stop);
    let matrix = counted.unwrap().matrix;
    assert_eq!((matrix.pairs().count(), matrix.everybody()), (1_999_000, 1));
    index.upsert(&many[0], &seen, slot);
    let refused = Err(OverlapError::TooManySegments(2_001));
    for between in [Between::All, Between::These(&many)] {
        assert_eq!(index.overlaps(between, 10, slot, &mut never_stop), refused);
    }
    let rings = index.overlap_rings(1, slot, &mut never_stop);
    assert_eq!(rings.err(), refused.err());
    let message = OverlapError::TooManySegments(2_001).to_string();
    assert!(message.contains("at most 2000 segments"), "{message}");
    // Of everybody, any number of segments is read.
    let few = Between::These(&many[..2]);
    let counted = index.overlaps(few, 10, slot, &mut never_stop).unwrap();
    assert_eq!(counted.matrix.rows(), [[1, 1], [1, 1]]);
    assert_eq!(counted.matrix.everybody(), 1);
}

#[test]
fn stops_when_told_to() {
    let index = Index::new(10);
    let slot = Slot::new(100);
    for (seed, name) in [(1, "a"), (2, "b")] {
        index.load_sorted(&segment(name), &population(seed, 100, 50_000, slot), slot);
    }
    let given = names(&["a", "b"]);
    let nothing = names(&["x", "y"]);
    for between in [
        Between::All,
        Between::These(&given),
        Between::These(&nothing),
    ] {
        let stopped = index.overlaps(between, 10, slot, &mut || true);
        assert_eq!(stopped, Err(OverlapError::Cancelled));
    }
    for calls in [1, 2, 5, 20] {
        let mut left = calls;
        let mut stop = || {
            left -= 1;
            left == 0
        };
        let stopped = index.overlap_rings(2, slot, &mut stop);
        assert_eq!(stopped.err(), Some(OverlapError::Cancelled), "{calls}");
    }
}

#[test]
fn stops_within_a_user_of_many_segments_after_another() {
    let index = Index::new(10);
    let slot = Slot::new(100);
    let users: Vec<Entry> = (0..40)
        .map(|user| Entry::new(fingerprint(user), slot))
        .collect();
    for number in 0..500 {
        index.upsert(&segment(&format!("s{number}")), &users, slot);
    }
    // Forty users are 20,000 entries, but 5 million pairs.
    let mut asked = 0;
    let mut ask = || {
        asked += 1;
        false
    };
    index.overlaps(Between::All, 10, slot, &mut ask).unwrap();
    assert!(asked > 40, "{asked}");
}

#[test]
fn starts_again_when_a_sweep_removed_what_it_needs() {
    let slot = Slot::new(100);
    for with_rings in [false, true] {
        let index = Index::new(10);
        for (seed, name) in [(1, "a"), (2, "b")] {
            index.load_sorted(&segment(name), &population(seed, 60_000, 0, slot), slot);
        }
        let late = Slot::new(105);
        index.load_sorted(&segment("a"), &population(1, 10, 0, late), late);
        index.load_sorted(&segment("b"), &population(2, 10, 0, late), late);
        let mut asked = 0;
        // In the middle of the walk, all but a few users expire and are removed.
        let mut expire = || {
            asked += 1;
            if asked == 5 {
                while !index.sweep(Slot::new(110), 1_000).done {}
            }
            false
        };
        let expected = (10, 10, Slot::new(110));
        let (matrix, as_of) = if with_rings {
            let rings = index.overlap_rings(5, Slot::new(106), &mut expire);
            let rings = rings.unwrap();
            (rings.matrix(10).unwrap(), rings.as_of())
        } else {
            let counted = index.overlaps(Between::All, 10, Slot::new(106), &mut expire);
            let Overlaps { matrix, as_of } = counted.unwrap();
            (matrix, as_of)
        };
        let found = (matrix.both(0, 1), matrix.everybody(), as_of);
        assert_eq!(found, expected);
    }
}

/// The counts of "settled", "many" and the users whom others share with them: nobody writes to these two.
fn settled_counts(matrix: &OverlapMatrix) -> Vec<u64> {
    let rows = matrix.rows();
    let mut counts = rows[0].clone();
    counts.push(rows[1][1]);
    counts
}

fn is_consistent(matrix: &OverlapMatrix) -> bool {
    let rows = matrix.rows();
    let everybody = matrix.everybody();
    let mut cells = rows.iter().enumerate().flat_map(|(row, counts)| {
        let cells = counts.iter().enumerate();
        cells.map(move |(column, both)| (row, column, *both))
    });
    cells.all(|(row, column, both)| {
        both <= rows[row][row] && both <= rows[column][column] && both <= everybody
    })
}

#[test]
fn users_who_do_not_change_are_counted_exactly_while_others_do() {
    const WINDOW: u64 = 40;
    let index = Index::new(WINDOW as u32);
    let head = 70_000;
    let model = settled(&index, WINDOW, head);
    let listed = ["settled", "many", "a", "b", "c"];
    let given = names(&listed);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| come_and_go(&index, &stop));
        scope.spawn(|| let_time_pass(&index, WINDOW - 5, &stop));
        let mut wrong = Vec::new();
        let began = Instant::now();
        let mut rounds = 0;
        while began.elapsed() < Duration::from_secs(2) || rounds < 2 {
            rounds += 1;
            let between = Between::These(&given);
            let counted = index.overlaps(between, WINDOW as u32, Slot::new(0), &mut never_stop);
            let Overlaps { matrix, as_of } = counted.unwrap();
            let rings = index.overlap_rings(7, Slot::new(0), &mut never_stop);
            let rings = rings.unwrap();
            for (matrix, as_of) in [
                (matrix, as_of),
                (
                    rings.matrix_of(&given, WINDOW as u32).unwrap(),
                    rings.as_of(),
                ),
            ] {
                let rows = in_model(&model, &listed, WINDOW as u32, as_of.number());
                let mut expected = rows[0].clone();
                expected.push(rows[1][1]);
                let found = settled_counts(&matrix);
                if found != expected || !is_consistent(&matrix) {
                    wrong.push((found, expected, matrix));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(wrong, []);
    });
}

/// `pairs` draws of a user and a segment, the segments by Zipf's law, with last visits all over a window of two weeks.
fn zipf(segments: usize, users: u64, pairs: u64) -> Index {
    let mut shares: Vec<f64> = (1..=segments).map(|rank| 1.0 / rank as f64).collect();
    let total: f64 = shares.iter().sum();
    let mut sum = 0.0;
    for share in &mut shares {
        sum += *share / total;
        *share = sum;
    }
    let mut state = 7_u64;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let head = 100_000;
    let mut groups = vec![Vec::new(); segments];
    for _ in 0..pairs {
        let at = (random() >> 11) as f64 / (1_u64 << 53) as f64;
        let number = shares
            .partition_point(|share| *share < at)
            .min(segments - 1);
        let user = (random() % users + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = Slot::new(head - random() % 20_160);
        groups[number].push(Entry::new(Fingerprint::new(user), slot));
    }
    let index = Index::new(20_160);
    for (number, mut entries) in groups.into_iter().enumerate() {
        entries.sort_unstable();
        let name = segment(&format!("segment {number}"));
        index.load_sorted(&name, &entries, Slot::new(head));
    }
    index
}

/// The shortest of five times, and the last result.
fn best<T>(mut act: impl FnMut() -> T) -> (Duration, T) {
    let mut timed = || {
        let began = Instant::now();
        let result = std::hint::black_box(act());
        (began.elapsed(), result)
    };
    let (mut shortest, mut result) = timed();
    for _ in 1..5 {
        let (took, again) = timed();
        shortest = shortest.min(took);
        result = again;
    }
    (shortest, result)
}

/// `cargo test --release -p headcount-index -- --ignored --nocapture all_overlaps`
#[test]
#[ignore = "takes a minute in a release build, and prints times instead of checking them"]
fn all_overlaps_of_ten_million_pairs() {
    let top = TopQuestion {
        order: OverlapOrder::Lift,
        limit: 20,
        at_least: 100,
        floor: Floor::default(),
        reach: Reach::default(),
    };
    for (segments, users, drawn) in [
        (200, 5_000_000, 10_100_000),
        (200, 2_000_000, 10_600_000),
        (200, 1_000_000, 11_600_000),
        (200, 200_000, 25_000_000),
        (2_000, 2_000_000, 10_000_000),
    ] {
        let index = zipf(segments, users, drawn);
        let pairs = index.stats().pairs;
        println!("{segments} segments, {users} users, {pairs} pairs");
        let as_of = index.head();
        for window in [20_160, 10_080] {
            let count = || index.overlaps(Between::All, window, as_of, &mut never_stop);
            let (took, counted) = best(|| count().unwrap());
            let matrix = counted.matrix;
            let (picked, top) = best(|| top.answer(matrix.pairs(), matrix.everybody()));
            println!(
                "  window {window}: {took:?}, everybody {}; the top {} by lift {picked:?}",
                matrix.everybody(),
                top.len()
            );
        }
        for step in [60, 20_160] {
            let (took, rings) = best(|| index.overlap_rings(step, as_of, &mut never_stop).unwrap());
            let (read, _) = best(|| rings.matrix_of(&names(&["segment 0", "segment 1"]), 20_160));
            println!("  rings of {step} slots a step: {took:?}, read in {read:?}");
        }
    }
}
