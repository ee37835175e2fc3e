//! `headcount openapi`.

use super::Failure;
use super::output::print;

pub(super) fn run() -> Result<(), Failure> {
    let text = http::openapi()
        .map_err(|error| Failure::failed(format!("can't write the document: {error}")))?;
    print(&text)
}
