//! What poolscope counts of the pooled connections of an instance, beside what its drivers tell.

use std::collections::BTreeMap;

use serde_json::Value;

use super::inferred::Inferred;
use super::judge::moment;
use super::scores::{Key, seconds_of};
use super::told;

/// What poolscope sees and what a driver tells of one event lies no further apart, in seconds.
const AT_ONCE: f64 = 0.05;

/// What ended silent is judged within this time, in seconds: of those that ended in the second before a picture some are
/// lacking in it, in recordings of servers at their limit, which refuse a hundred connections a second.
const JUDGED_AFTER: f64 = 1.25;

/// Pooled connections of an instance at a moment, in seconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pooled {
    at: f64,
    opened: u64,
    closed: u64,
    active: u64,
    idle: u64,
    /// Connections from its address that ended before their hello was read.
    unread: u64,
}

impl Pooled {
    /// As `/api/v1/clients` told.
    pub(super) fn live(clients: &Value, key: &Key) -> Option<Self> {
        let rows = clients["clients"].as_array().unwrap();
        let at_address = || rows.iter().filter(|row| row["address"] == key.0.as_str());
        let mut own = at_address()
            .filter(|row| row["app"] == key.1.as_str())
            .peekable();
        own.peek()?;
        let unread = at_address().filter(|row| row["app"] == "");
        let mut live = Self {
            at: moment(&clients["at"]),
            opened: 0,
            closed: 0,
            active: 0,
            idle: 0,
            unread: unread.map(|row| row["opened"].as_u64().unwrap()).sum(),
        };
        for row in own {
            let field = |name: &str| row["pooled"][name].as_u64().unwrap();
            live.opened += field("opened");
            live.closed += field("closed");
            live.active += field("active");
            live.idle += field("idle");
        }
        Some(live)
    }

    /// As the same is concluded from the journal, which tells of no exchange.
    pub(super) fn replayed(inferred: &Inferred, key: &Key, live: &Self) -> Self {
        let connections = inferred.pooled.get(key);
        let opened = connections.map_or(0, BTreeMap::len) as u64;
        let open = connections.into_iter().flat_map(BTreeMap::values);
        let open = open.filter(|is_open| **is_open).count() as u64;
        Self {
            at: live.at.min(seconds_of(inferred.until.as_nanos())),
            opened,
            closed: opened - open,
            active: 0,
            idle: open,
            unread: live.unread,
        }
    }

    /// Whether that is what drivers tell; otherwise what differs.
    pub(super) fn compare(
        &self,
        apps: &[&Value],
        ended_by_server: u64,
    ) -> Result<Agreement, String> {
        let open = self.active + self.idle;
        let told = Told::around(self.at, apps);
        let allowed = self.allowed(apps);
        let least = told.created_least.saturating_sub(allowed).max(told.ready);
        // A driver may tell of a socket that was closed on it when it wants to use it next (Connection Monitoring
        // and Pooling specification § Checking Out a Connection: a perished connection is closed then).
        let unnoticed = told.open_least.saturating_sub(open);
        let is_opened_right = (least..=told.created_most).contains(&self.opened);
        let is_open_right = open <= told.open_most && unnoticed <= ended_by_server;
        // What was opened is open or closed.
        let is_closed_right = self.closed + open == self.opened;
        if is_opened_right && is_open_right && is_closed_right {
            return Ok(Agreement {
                unnoticed,
                lacking: told.created_least.saturating_sub(self.opened),
                allowed: told.created_least - least,
            });
        }
        Err(format!(
            "{} pooled connections opened, {} closed, {open} open instead of {least} to {} created, {} to {} open",
            self.opened, self.closed, told.created_most, told.open_least, told.open_most
        ))
    }

    /// Whether nothing is in use, and everything else idle, as it must be when no operation is under way.
    pub(super) fn compare_at_rest(
        &self,
        apps: &[&Value],
        ended_by_server: u64,
    ) -> Result<(), String> {
        let told = Told::around(self.at, apps);
        let unnoticed = told.open_least.saturating_sub(self.idle);
        if self.active == 0 && self.idle <= told.open_most && unnoticed <= ended_by_server {
            return Ok(());
        }
        Err(format!(
            "{} active, {} idle instead of 0 active, {} to {} idle",
            self.active, self.idle, told.open_least, told.open_most
        ))
    }

    /// So many may be missing: what has just ended is not judged yet, and what ended before its hello was read is
    /// nobody's.
    fn allowed(&self, apps: &[&Value]) -> u64 {
        let after = self.at + AT_ONCE;
        let from = self.at - JUDGED_AFTER;
        let of_app = |app: &&Value| told::closed_since(app, from) + told::given_up(app, after);
        self.unread + apps.iter().map(of_app).sum::<u64>()
    }
}

/// What is told otherwise, and may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreement {
    /// Sockets that were closed on a driver without its having noticed.
    pub(super) unnoticed: u64,
    /// Connections that a driver created and that are counted as nobody's.
    pub(super) lacking: u64,
    /// As many could have been lacking.
    pub(super) allowed: u64,
}

impl Agreement {
    /// Nothing is told otherwise.
    pub(super) fn is_strict(self) -> bool {
        self.unnoticed == 0 && self.lacking == 0
    }
}

/// What drivers tell of their pools around a moment: a picture was taken at about it.
#[derive(Clone, Copy, Debug)]
struct Told {
    created_least: u64,
    created_most: u64,
    ready: u64,
    open_least: u64,
    open_most: u64,
}

impl Told {
    fn around(at: f64, apps: &[&Value]) -> Self {
        let (before, after) = (at - AT_ONCE, at + AT_ONCE);
        let sum =
            |count: &dyn Fn(&Value) -> u64| -> u64 { apps.iter().map(|app| count(app)).sum() };
        let open = [before, at, after].map(|until| sum(&|app| told::open(app, until)));
        Self {
            created_least: sum(&|app| told::created(app, before)),
            created_most: sum(&|app| told::created(app, after)),
            ready: sum(&|app| told::counted(app, "ready", before)),
            open_least: open.into_iter().min().unwrap_or(0),
            open_most: open.into_iter().max().unwrap_or(0),
        }
    }
}
