//! The format of the log's records, little endian:
//! - start: `1 u8 | feed u64 | last number u64 | its token u64 | writers u32 | (writer u64, last u64, seen at unix us i64)*`
//! - entry: `2 u8 | token u64 | writer u64 | sequence u64 | skips u8 | record`

use domain::Timestamp;
use domain::feed::{Entry, FeedId, Token, Writer, WriterId};
use wal::Fields;

const START: u8 = 1;
const ENTRY: u8 = 2;

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// The state of the feed.
    Start {
        feed: FeedId,
        /// The number of the newest entry.
        last: u64,
        /// The token of that entry.
        token: Token,
        writers: Vec<Writer>,
    },
    /// An entry. Its number follows from its position.
    Entry(Entry),
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Start {
                feed,
                last,
                token,
                writers,
            } => {
                out.push(START);
                for number in [feed.number(), *last, token.number()] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                let length = u32::try_from(writers.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&length.to_le_bytes());
                for writer in writers {
                    out.extend_from_slice(&writer.id.number().to_le_bytes());
                    out.extend_from_slice(&writer.last.to_le_bytes());
                    out.extend_from_slice(&writer.seen_at.as_microsecond().to_le_bytes());
                }
            }
            Self::Entry(entry) => {
                out.reserve(26 + entry.record.len());
                out.push(ENTRY);
                let numbers = [entry.token.number(), entry.writer.number(), entry.sequence];
                for number in numbers {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.push(u8::from(entry.skips));
                out.extend_from_slice(&entry.record);
            }
        }
        out
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::of(payload);
        match fields.u8()? {
            START => {
                let feed = FeedId::from_number(fields.u64()?);
                let last = fields.u64()?;
                let token = Token::from_number(fields.u64()?);
                let mut writers = Vec::new();
                for _ in 0..fields.u32()? {
                    writers.push(Writer {
                        id: WriterId::from_number(fields.u64()?),
                        last: fields.u64()?,
                        seen_at: Timestamp::from_microsecond(fields.i64()?)
                            .map_err(|error| error.to_string())?,
                    });
                }
                fields.end()?;
                Ok(Self::Start {
                    feed,
                    last,
                    token,
                    writers,
                })
            }
            ENTRY => Ok(Self::Entry(Entry {
                number: 0,
                token: Token::from_number(fields.u64()?),
                writer: WriterId::from_number(fields.u64()?),
                sequence: fields.u64()?,
                skips: fields.u8()? != 0,
                record: fields.rest().to_vec(),
            })),
            other => Err(format!("unknown record kind {other}")),
        }
    }
}
