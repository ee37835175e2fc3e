//! The files that deploy headcount, judged by the programs that will read them and held against the program itself.
//!
//! `tests/deploy/install-tools` brings the judges; without one its tests say in a line that they are skipped.

mod compose;
mod dockerfile;
mod grafana;
mod haproxy;
mod jobs;
mod kubernetes;
mod names;
mod prometheus;
mod queries;
mod references;
mod rehearsal;
mod secrets;
mod tools;
