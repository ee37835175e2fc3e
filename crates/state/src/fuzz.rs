//! Fuzz targets: apply arbitrary records, and load arbitrary blocks of snapshots.

use bolero::TypeGenerator;

use super::blocks::BlockWriter;
use super::snapshot::Calls;
use super::{Point, Reached, State, load, record, snapshot};
use domain::feed::{Cursor, FeedId, Token};
use domain::store::conformance::frame;
use domain::{Segment, Slot};
use index::{Entry, Fingerprint, SavedFlows};
use wal::testing::MemDisk;
use wal::{Disk, Fields, Position};

/// A slot of the year 2027, with a resolution of a minute.
const PRESENT: u64 = 30_000_000;

/// A record with any contents; its checksum is valid.
#[derive(Debug, TypeGenerator)]
enum Record {
    Bytes(Vec<u8>),
    Pairs {
        base: u64,
        groups: Vec<(u8, Vec<(u64, u8)>)>,
    },
    /// Pairs near the present, as in reality.
    Present {
        ago: u16,
        groups: Vec<(u8, Vec<(u64, u8)>)>,
    },
    Forget(u64),
    Erased(u64, i64),
    Position(u64, u64, u64, u64),
    Covered(bool, Vec<u8>),
    Reset(u8),
    Stored {
        erasures: u64,
        groups: Vec<(u8, Vec<(u64, u8)>)>,
    },
    Received {
        at: i64,
        groups: Vec<(u8, Vec<(u64, u8)>)>,
    },
    Trend(Vec<(u8, u64, i64, u64)>),
    Property(u8, Option<u8>),
    Head(u64),
    /// Time that passes, as in reality.
    Ahead(u16),
    Counting(u64, u32),
    Mark,
    Drop(u8),
    ForgetIn(u8, u64),
    Dropped(u8, i64),
    ErasedIn(u8, u64, i64),
}

impl Record {
    fn bytes(&self, present: u64) -> Vec<u8> {
        let names = ["a", "b c", "é", "a\"", "\\x"];
        let name = |out: &mut Vec<u8>, number: u8| {
            let name = names[usize::from(number) % names.len()];
            record::push_segment(out, &Segment::new(name).unwrap());
        };
        let pairs = |base: u64, groups: &[(u8, Vec<(u64, u8)>)]| {
            let mut out = vec![record::PAIRS];
            out.extend_from_slice(&base.to_le_bytes());
            out.extend_from_slice(&record::length(groups.len()));
            for (number, entries) in groups {
                name(&mut out, *number);
                out.extend_from_slice(&record::length(entries.len()));
                for (fingerprint, ago) in entries {
                    let slot = Slot::new(base.saturating_sub(u64::from(*ago)));
                    let entry = Entry::new(Fingerprint::new(*fingerprint), slot);
                    out.extend_from_slice(&entry.to_bits().to_le_bytes());
                }
            }
            out
        };
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Pairs { base, groups } => pairs(*base, groups),
            Self::Present { ago, groups } => pairs(present - u64::from(*ago), groups),
            Self::Erased(number, at) => {
                let mut out = vec![record::ERASED];
                let number = Fingerprint::from_number(*number).number();
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&at.to_le_bytes());
                out
            }
            Self::Position(feed, number, token, server) => record::position(&Reached {
                at: Cursor {
                    feed: FeedId::from_number(*feed),
                    number: *number,
                    token: Token::from_number(*token),
                },
                server: *server,
            }),
            Self::Covered(is_complete, numbers) => {
                let names = numbers
                    .iter()
                    .map(|number| names[usize::from(*number) % names.len()]);
                let segments: Vec<_> = names.map(|name| Segment::new(name).unwrap()).collect();
                record::covered(*is_complete, &segments)
            }
            Self::Reset(number) => {
                let mut out = vec![record::RESET];
                name(&mut out, *number);
                out
            }
            Self::Stored { erasures, groups } => {
                let mut out = vec![record::STORED];
                out.extend_from_slice(&erasures.to_le_bytes());
                out.extend_from_slice(&pairs(present, groups)[1..]);
                out
            }
            Self::Received { at, groups } => {
                let mut out = vec![record::RECEIVED];
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(&pairs(present, groups)[1..]);
                out
            }
            Self::Drop(number) => {
                let mut out = vec![record::DROP];
                name(&mut out, *number);
                out
            }
            Self::ForgetIn(number, user) => {
                let mut out = vec![record::FORGET_IN];
                out.extend_from_slice(&Fingerprint::from_number(*user).number().to_le_bytes());
                name(&mut out, *number);
                out
            }
            Self::Dropped(number, at) => {
                let mut out = vec![record::DROPPED];
                name(&mut out, *number);
                out.extend_from_slice(&at.to_le_bytes());
                out
            }
            Self::ErasedIn(number, user, at) => {
                let mut out = vec![record::ERASED_IN];
                name(&mut out, *number);
                out.extend_from_slice(&Fingerprint::from_number(*user).number().to_le_bytes());
                out.extend_from_slice(&at.to_le_bytes());
                out
            }
            Self::Property(number, value) => {
                let value = value.map(|value| value.to_string());
                record::property(names[usize::from(*number) % names.len()], value.as_deref())
            }
            Self::Head(slot) => record::head(Slot::new(*slot)),
            Self::Ahead(slots) => record::head(Slot::new(present + u64::from(*slots))),
            Self::Counting(since, window) => record::counting(Slot::new(*since), *window),
            Self::Mark => record::mark(),
            Self::Forget(number) => record::forget(Fingerprint::from_number(*number)),
            Self::Trend(points) => {
                let mut out = vec![record::TREND];
                out.extend_from_slice(&record::length(points.len()));
                for (number, window, at, users) in points {
                    name(&mut out, *number);
                    out.extend_from_slice(&window.to_le_bytes());
                    out.extend_from_slice(&at.to_le_bytes());
                    out.extend_from_slice(&users.to_le_bytes());
                }
                out
            }
        }
    }
}

/// The points of a segment and window.
type Series = (Segment, u64, Vec<Point>);

/// All counts and trends of a state, as of the newest slot.
fn known(state: &State) -> (Vec<(Segment, u64)>, Vec<Series>) {
    let counts = state.index.segments(state.newest());
    let trends = state.trends.lock();
    let mut keys = trends.keys();
    keys.sort();
    let points = keys.into_iter().map(|(segment, window)| {
        let points = trends.points(&segment, window);
        (segment, window, points)
    });
    (counts, points.collect())
}

/// Who entered and left each segment.
fn flows(state: &State) -> (Vec<(Segment, SavedFlows)>, Slot) {
    let (flows, since) = state.index.flows();
    let flows = flows.into_iter();
    let mut flows: Vec<_> = flows.map(|(name, it)| (name, it.saved())).collect();
    flows.sort_by(|a, b| a.0.cmp(&b.0));
    (flows, since)
}

/// A snapshot restores the state that any records lead to, and no record causes a panic.
#[test]
fn records() {
    bolero::check!()
        .with_type::<Vec<Record>>()
        .for_each(|records| {
            let state = State::new(frame(60));
            state.end_replay();
            let mut scratch = Vec::new();
            for (offset, record) in (0..).zip(records) {
                let at = Position { file: 1, offset };
                let applied = state.apply(at, &record.bytes(PRESENT), &mut scratch);
                assert!(applied.is_ok() || matches!(record, Record::Bytes(_)));
            }
            let disk = MemDisk::default();
            let dir = std::path::Path::new("/");
            let at = Position { file: 7, offset: 9 };
            let mark = |state: &State| {
                let applied = state.apply(at, &record::mark(), &mut Vec::new());
                applied.unwrap();
            };
            let calls = Calls {
                stopped: &|| false,
                mark: &|| {
                    mark(&state);
                    Ok(state.flows.lock().take_marked(at))
                },
            };
            snapshot::write(&disk, dir, 7, &state, calls)
                .unwrap()
                .unwrap();
            let loaded = State::new(frame(60));
            load::load(&disk, dir, 7, &loaded).unwrap();
            mark(&loaded);
            loaded.end_replay();
            assert_eq!(flows(&loaded), flows(&state));
            assert_eq!(loaded.newest(), state.newest());
            assert_eq!(known(&loaded), known(&state));
            let following = |state: &State| {
                let following = state.following.lock();
                let read = (following.covered.clone(), following.reset.clone());
                let in_segments = following.erasures_in_segments();
                let erasures = (
                    following.noted_erasures(),
                    following.erasures(),
                    in_segments,
                );
                (following.position, following.is_complete, read, erasures)
            };
            assert_eq!(following(&loaded), following(&state));
            assert_eq!(*loaded.properties.lock(), *state.properties.lock());
        });
}

/// Loads blocks of a snapshot with any contents and valid checksums.
#[test]
fn blocks() {
    bolero::check!()
        .with_type::<(Vec<Vec<u8>>, bool)>()
        .for_each(|(bodies, framed)| {
            let disk = MemDisk::default();
            let path = std::path::Path::new("/").join(snapshot::name(7));
            let mut file = disk.create(&path).unwrap();
            let mut writer = BlockWriter::new(file.as_mut(), &path);
            if *framed {
                let mut start = vec![snapshot::START];
                start.extend_from_slice(&snapshot::VERSION.to_le_bytes());
                for number in [7_u64, 30_000_000, 1_800_000_000] {
                    start.extend_from_slice(&number.to_le_bytes());
                }
                writer.write(&start).unwrap();
            }
            for body in bodies {
                writer.write(body).unwrap();
            }
            if *framed {
                let mut end = vec![snapshot::END];
                end.extend_from_slice(&writer.blocks().to_le_bytes());
                writer.write(&end).unwrap();
            }
            drop(file);
            let state = State::new(frame(60));
            if load::load(&disk, path.parent().unwrap(), 7, &state).is_ok() {
                let marked = state.flows.lock().loaded_mut().map(|marked| marked.at);
                if let Some(at) = marked {
                    state.apply(at, &record::mark(), &mut Vec::new()).unwrap();
                }
                known(&state);
                flows(&state);
            }
            for body in bodies {
                let mut fields = Fields::of(body);
                let _ = record::segment(&mut fields);
                let _ = record::entries(&mut fields, &mut Vec::new());
            }
        });
}
