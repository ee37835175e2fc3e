//! The `headcount` program. All its code is in the library.

use std::process::ExitCode;

/// The embedded index holds millions of small pages that are reallocated and freed. jemalloc fragments less than
/// the system's allocator and returns freed pages to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    headcount::cli::run(std::env::args_os(), std::env::vars_os())
}
