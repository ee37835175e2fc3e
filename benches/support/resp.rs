//! A minimal client of the Redis protocol (RESP). Requests are encoded in advance; responses are counted, not decoded.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::redis::Redis;
use super::traffic::Seen;

/// Persistence settings of Redis: an append-only file with an fsync every second.
pub const EVERY_SECOND: [&str; 6] = [
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "everysec",
];

/// Commands that are sent together.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    pub bytes: Vec<u8>,
    /// The number of expected responses.
    pub calls: usize,
    /// The offset of the last digit of each slot in the bytes.
    slots: Vec<usize>,
}

impl Pipeline {
    /// Adds a command.
    pub fn push<'a>(
        &mut self,
        words: impl IntoIterator<Item = &'a str, IntoIter: ExactSizeIterator>,
    ) {
        let words = words.into_iter();
        write!(self.bytes, "*{}\r\n", words.len()).unwrap();
        for word in words {
            write!(self.bytes, "${}\r\n{word}\r\n", word.len()).unwrap();
        }
        self.calls += 1;
    }

    /// `ZADD GT` of these pairs, grouped by segment, with at most `members_per_call` members a command.
    pub fn zadds(seen: impl IntoIterator<Item = Seen>, members_per_call: usize) -> Self {
        let mut members: BTreeMap<u64, Vec<[String; 2]>> = BTreeMap::new();
        for pair in seen {
            let member = [pair.slot.to_string(), format!("u{}", pair.user)];
            members.entry(pair.segment).or_default().push(member);
        }
        let mut pipeline = Self::default();
        for (segment, members) in members {
            let key = format!("segment-{segment}");
            for part in members.chunks(members_per_call) {
                let mut words = vec!["ZADD", &key, "GT"];
                words.extend(part.iter().flatten().map(String::as_str));
                let mut at = pipeline.bytes.len() + "*\r\n".len() + digits(words.len());
                for (index, word) in words.iter().enumerate() {
                    at += "$\r\n\r\n".len() + digits(word.len()) + word.len();
                    if index > 2 && index % 2 == 1 {
                        pipeline.slots.push(at - "\r\n".len() - 1);
                    }
                }
                pipeline.push(words);
            }
        }
        pipeline
    }

    /// Moves every pair to the next slot, since Redis does not write a score that is already stored.
    pub fn advance(&mut self) {
        for last in &self.slots {
            let mut digit = *last;
            while self.bytes[digit] == b'9' {
                self.bytes[digit] = b'0';
                digit -= 1;
            }
            self.bytes[digit] += 1;
        }
    }

    /// Sends the commands and waits for the responses, which must be integers or status replies.
    pub fn exchange(&self, connection: &mut TcpStream, buffer: &mut [u8]) {
        connection.write_all(&self.bytes).unwrap();
        let mut responses = 0;
        while responses < self.calls {
            let length = connection.read(buffer).unwrap();
            let read = &buffer[..length];
            assert!(
                length > 0 && !read.contains(&b'-'),
                "redis returned an error"
            );
            responses += read.iter().filter(|byte| **byte == b'\n').count();
        }
    }
}

/// The number of digits.
fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// A connection for pipelines.
pub fn connect(port: u16) -> TcpStream {
    let connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_nodelay(true).unwrap();
    connection
}

/// Sends pipelines on several connections. Each connection waits for its responses. Returns the duration.
pub fn send_all(port: u16, pipelines: &[Pipeline], connections: usize) -> Duration {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut connection = connect(port);
                let mut buffer = vec![0; 64 * 1024];
                while let Some(pipeline) = pipelines.get(next.fetch_add(1, Ordering::Relaxed)) {
                    pipeline.exchange(&mut connection, &mut buffer);
                }
            });
        }
    });
    started.elapsed()
}

/// A number from `INFO`.
pub fn info(redis: &Redis, section: &str, name: &str) -> f64 {
    let info = redis.cli(&["INFO", section]);
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap().trim().parse().unwrap()
}

/// The `used_memory` of the server in bytes.
pub fn used_memory(redis: &Redis) -> f64 {
    info(redis, "memory", "used_memory")
}
