//! libfaketime, which gives a process another system clock.

use std::path::PathBuf;

use super::stderr::skip;

/// The library, or `None` after one printed line if it is not installed.
pub fn library() -> Option<PathBuf> {
    let architectures = std::fs::read_dir("/usr/lib").unwrap();
    let mut candidates = architectures.map(|entry| entry.unwrap().path());
    let library = candidates.find_map(|path| {
        let library = path.join("faketime/libfaketimeMT.so.1");
        library.is_file().then_some(library)
    });
    if library.is_none() {
        let required = std::env::var("HEADCOUNT_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name.trim() == "faketime"));
        skip("faketime: no libfaketimeMT.so.1 below /usr/lib");
    }
    library
}
