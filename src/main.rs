//! The `headcount` program: everything is in the library.

use std::process::ExitCode;

/// The embedded index holds millions of small pages that grow and go. jemalloc keeps them closer together than
/// the system's allocator and gives freed ones back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    headcount::cli::run(std::env::args_os(), std::env::vars_os())
}
