//! The deployment files, checked by the programs that read them and compared with the program itself.
//!
//! `tests/deploy/install-tools` installs the checkers. Tests without their checker print a line and are skipped.

mod compose;
mod containers;
mod dockerfile;
mod grafana;
mod haproxy;
mod helm;
mod jobs;
mod kubernetes;
mod names;
mod prometheus;
mod queries;
mod redis;
mod references;
mod rehearsal;
mod secrets;
mod segment_dashboard;
mod tools;
