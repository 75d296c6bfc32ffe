//! Waiting for a condition, with a deadline.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant, SystemTime};

/// Time between two looks; short beside anything that is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "tests measure real time; the rule is for the program"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since the epoch, as the drivers' programs print moments.
#[expect(
    clippy::disallowed_methods,
    reason = "tests measure real time; the rule is for the program"
)]
pub(crate) fn epoch_seconds() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

/// Looks again and again until the answer is `Ok`, and returns it.
///
/// # Panics
///
/// When `limit` has passed, with the last `Err`.
#[track_caller]
pub(crate) fn eventually<T, E: Display>(
    limit: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let begin = now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(begin.elapsed() < limit, "after {limit:?}: {last}"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks again and again until the value is `expected`.
///
/// # Panics
///
/// When `limit` has passed, with the last value.
#[track_caller]
pub(crate) fn eventually_equal<T: PartialEq + Debug>(
    limit: Duration,
    expected: &T,
    mut look: impl FnMut() -> T,
) {
    eventually(limit, || {
        let value = look();
        if value == *expected {
            Ok(())
        } else {
            Err(format!("{value:?}, expected {expected:?}"))
        }
    });
}
