//! Counts every panic of the process, in any thread or task, including caught ones.

use std::panic::PanicHookInfo;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Installs the panic hook. Further calls have no effect.
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

/// The number of panics since [`watch`].
pub(super) fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Counts and logs a panic. The log omits the message, which may quote input of users; it is on standard error.
fn note(panic: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let place = panic.location().map(ToString::to_string);
    tracing::error!(
        thread = std::thread::current().name().unwrap_or("?"),
        place = place.as_deref().unwrap_or("?"),
        "a thread or task panicked, which is a bug; the message is on standard error"
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
