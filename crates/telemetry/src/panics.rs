//! Counts every panic of the process, in whichever thread or task, whoever catches it.

use std::panic::PanicHookInfo;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Begins to count. Once per process; again is no harm.
pub(super) fn watch() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            note(panic);
            former(panic);
        }));
    });
}

/// How many there were since [`watch`].
pub(super) fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// The message stays out of the log, for it may quote what users sent. Standard error has it.
fn note(panic: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let place = panic.location().map(ToString::to_string);
    tracing::error!(
        thread = std::thread::current().name().unwrap_or("?"),
        place = place.as_deref().unwrap_or("?"),
        "a panic, which is a defect"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_that_somebody_catches_is_counted_too() {
        watch();
        watch();
        let before = count();
        let caught = std::thread::spawn(|| panic!("on purpose")).join();
        assert!(caught.is_err() && count() > before);
    }
}
