//! What drivers tell that poolscope is held against: who is a reference, and whether what it tells is decided.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Key;
use crate::scenarios::pooled::Pooled;
use crate::scenarios::told::{self, REASONS};

/// Something is told otherwise than by drivers because it is not decided yet: what has not said a word since its handshake
/// is a pooled connection or a monitor, and shows which only when a monitor would speak.
pub(crate) fn is_undecided(truth: &Value, clients: &Value) -> bool {
    let rows = clients["clients"].as_array().unwrap();
    references(truth).into_iter().any(|(key, apps)| {
        let mut own = rows.iter().filter(|row| row["address"] == key.0.as_str());
        let has_undecided = own.any(|row| {
            let counts = ["undecided", "undecided_ended"].map(|field| row[field].as_u64());
            row["app"] == key.1.as_str() && counts.into_iter().any(|count| count > Some(0))
        });
        let differs = |live: Pooled| live.compare(&apps, u64::MAX).is_err();
        has_undecided
            && all_tell(&apps, "created")
            && Pooled::live(clients, &key).is_some_and(differs)
    })
}

/// Instances of which every application is at rest, and what is told of their connections.
pub(super) fn at_rest(rest: &Value) -> impl Iterator<Item = (Key, Vec<&Value>, Pooled)> {
    let of_all = references(rest).into_iter().filter(|(_, apps)| {
        let rests = apps.iter().all(|app| app["is_at_rest"] == true);
        rests && all_tell(apps, "created")
    });
    of_all.filter_map(|(key, apps)| {
        let live = Pooled::live(&rest["clients"], &key)?;
        Some((key, apps, live))
    })
}

/// Whether what is told of applications at rest is what their drivers tell, or may be as far as it was seen.
pub(crate) fn is_rest_told(rest: &Value) -> bool {
    at_rest(rest).all(|(_, apps, live)| live.compare_at_rest(&apps, 0).is_ok())
}

/// Applications by instance, where all of them tell of themselves.
pub(super) fn references(truth: &Value) -> BTreeMap<Key, Vec<&Value>> {
    let mut by_key: BTreeMap<Key, Vec<&Value>> = BTreeMap::new();
    for app in truth["apps"].as_array().unwrap() {
        let text = |field: &str| app[field].as_str().unwrap().to_owned();
        by_key
            .entry((text("address"), text("name")))
            .or_default()
            .push(app);
    }
    // Whoever did not answer, or was never connected, is no reference.
    let is_reference = |app: &&Value| match app["stats"]["source"].as_str() {
        Some("cmap") => app["stats"]["ready"].as_u64() > Some(0),
        Some("sdam") => app["stats"]["heartbeats"]["succeeded"].as_u64() > Some(0),
        _ => false,
    };
    by_key.retain(|_, apps| apps.iter().all(is_reference));
    by_key
}

/// Some drivers tell nothing of clears, others nothing of connections.
pub(super) fn all_tell(apps: &[&Value], what: &str) -> bool {
    apps.iter().all(|app| app["stats"][what].is_u64())
}

/// Why connections of an instance were closed, as its drivers tell.
pub(super) fn told_reasons(apps: &[&Value], until: f64) -> [u64; REASONS.len()] {
    let mut sums = [0; REASONS.len()];
    for counts in apps.iter().map(|app| told::reasons(app, until)) {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    sums
}
