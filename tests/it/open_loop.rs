//! The benches' load generator reports correct results for a service that stalls, breaks and recovers.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::open_loop_source::{OpenLoop, Script, Tally};

const STALL: Duration = Duration::from_millis(600);

/// The number of a request, and the status of its response, if any.
type Outcome = (u64, Option<u16>);

/// Requests "/N", and records the outcome of each.
#[derive(Clone, Default)]
struct Numbers {
    answered: Arc<Mutex<Vec<Outcome>>>,
}

impl Script for Numbers {
    fn write_request(&self, n: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("GET /{n} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
    }

    fn answered(&self, n: u64, answer: Option<(u16, &[u8])>) {
        if let Some((_, body)) = answer {
            assert_eq!(body, n.to_string().as_bytes());
        }
        let status = answer.map(|(status, _)| status);
        self.answered.lock().unwrap().push((n, status));
    }
}

/// A server that responds with the requested number, after `before_answer`, which may also break the connection.
fn server(before_answer: impl Fn(u64) -> bool + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let before_answer = Arc::new(before_answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let before_answer = Arc::clone(&before_answer);
            std::thread::spawn(move || serve(stream.unwrap(), &*before_answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, before_answer: &dyn Fn(u64) -> bool) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let text = std::str::from_utf8(&buffer[..read]).unwrap();
        let number = text["GET /".len()..].split(' ').next().unwrap();
        if !before_answer(number.parse().unwrap()) {
            return;
        }
        let length = number.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{number}");
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

#[test]
fn a_stall_raises_the_latency_of_every_request_due_in_it() {
    let address = server(|n| {
        if n == 100 {
            std::thread::sleep(STALL);
        }
        true
    });
    let plan = OpenLoop {
        address,
        rate: 200.0,
        connections: 1,
    };
    let numbers = Numbers::default();
    let tally = plan.run(Duration::from_millis(1_500), numbers.clone());
    // A closed loop would record one slow response. Here 120 requests were due during the stall, and half of them
    // waited for more than half of it. These are minimums: a busy machine only makes everything slower.
    let half = u64::try_from(STALL.as_micros()).unwrap() / 2;
    let slow = tally.latency.count_between(half, u64::MAX);
    assert!(slow >= 55, "{slow} of {tally}");
    assert!(tally.latency_ms(1.0) >= 599.0, "{tally}");
    let answered = numbers.answered.lock().unwrap();
    let different: BTreeSet<_> = answered.iter().map(|(n, _)| n).collect();
    assert_eq!(different.len(), answered.len(), "each was sent once");
    assert_eq!(tally.of_status(200), tally.answers());
    assert_eq!(tally.answers(), answered.len() as u64);
    assert!(tally.answers() + tally.unsent >= 299, "{tally}");
}

#[test]
fn a_broken_connection_is_counted_and_reopened() {
    let address = server(|n| n % 10 != 3);
    let plan = OpenLoop {
        address,
        rate: 200.0,
        connections: 4,
    };
    let numbers = Numbers::default();
    let running = plan.start(numbers.clone());
    let mut tally = Tally::default();
    while tally.answers() < 20 || tally.failed < 2 {
        std::thread::sleep(Duration::from_millis(10));
        tally.add(&running.take());
    }
    tally.add(&running.stop());
    let answered = numbers.answered.lock().unwrap();
    for (n, status) in &*answered {
        assert_eq!(status.is_none(), n % 10 == 3, "{n}");
    }
    let failed = answered.iter().filter(|(_, status)| status.is_none());
    assert_eq!(tally.failed, failed.count() as u64);
    assert_eq!(tally.answers() + tally.failed, answered.len() as u64);
}
