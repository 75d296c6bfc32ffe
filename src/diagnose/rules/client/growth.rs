//! How the connections of an instance grow while it makes mongo clients.

use super::super::super::{Case, Evidence};
use super::fact;
use crate::connection::Role;
use crate::detect::{Signal, SignalKind, is_of_a_client};
use crate::pools::{Connection, Pools};
use crate::timeline::UpstreamId;

/// Connections of one instance to one upstream that were open when it was told of last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Growth {
    /// Those that were there before the first of the mongo clients and stayed, and the monitors among them.
    before: u64,
    monitors_before: u64,
    open: u64,
    monitors: u64,
}

/// Connections and monitors of the instance that makes mongo clients, then and before; nothing where they do not grow.
pub(super) fn growth(case: &Case, pools: &Pools) -> Option<Evidence> {
    let (signal, ()) =
        case.find(|kind| matches!(kind, SignalKind::ClientChurn { .. }).then_some(()))?;
    let mut growth = Growth::default();
    for connection in pools.connections() {
        growth.add(connection, signal);
    }
    let told = growth.told()?;
    Some(fact(signal.seen_at, growth.open, told))
}

fn is_one_of(connection: &Connection, upstream: UpstreamId, signal: &Signal) -> bool {
    connection.upstream == upstream
        && connection.instance == signal.subject.instance
        && is_of_a_client(connection)
}

impl Growth {
    fn add(&mut self, connection: &Connection, signal: &Signal) {
        let was_open = connection.opened_at <= signal.seen_at
            && connection.ended.is_none_or(|end| end.at > signal.seen_at);
        if !was_open || !is_one_of(connection, signal.subject.upstream, signal) {
            return;
        }
        let is_monitor = matches!(connection.found, Role::Monitor | Role::RoundTripMonitor);
        let is_older = connection.opened_at < signal.at;
        self.open += 1;
        self.monitors += u64::from(is_monitor);
        self.before += u64::from(is_older);
        self.monitors_before += u64::from(is_older && is_monitor);
    }

    fn told(self) -> Option<String> {
        let is_grown = self.open >= self.before * 2 && self.open > self.before + 2;
        is_grown.then(|| {
            let monitors = match self.monitors {
                0 => String::new(),
                monitors => format!(", its monitors from {} to {monitors}", self.monitors_before),
            };
            format!(
                "its open connections grew from {} to {}{monitors}",
                self.before, self.open
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_told_with_the_monitors_among_it() {
        let leak = Growth {
            before: 6,
            monitors_before: 1,
            open: 126,
            monitors: 41,
        };
        assert_eq!(
            leak.told().as_deref(),
            Some("its open connections grew from 6 to 126, its monitors from 1 to 41")
        );
        let without = Growth {
            monitors: 0,
            monitors_before: 0,
            ..leak
        };
        assert_eq!(
            without.told().as_deref(),
            Some("its open connections grew from 6 to 126")
        );
        let steady = Growth { open: 8, ..leak };
        assert_eq!(
            steady.told(),
            None,
            "clients that are closed again leave nothing"
        );
    }
}
