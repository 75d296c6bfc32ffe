//! What the logs of drivers will say: "Pool was force destroyed", and when.
//!
//! Source: `lib/core/connection/pool.js` of Node's driver 3.x, `Pool.destroy(force)`: operations in the queue fail with
//! the message; operations already written get no callback at all. Queued operations leave no trace on the wire:
//! their number is taken from the requests that were unanswered when the connections were lost, which the driver
//! queues again where it may.

use std::time::Duration;

use super::{Case, Cause, ClientName, Incident, Logged};
use crate::detect::{DestroyTrigger, Signal, SignalKind};
use crate::pools::{Instance, Pools};

const MESSAGE: &str = "Pool was force destroyed";

/// What a driver queues again, and how that is known.
const QUEUED_AGAIN: &str = "requests unanswered when its connections were lost, which the driver queues again where it may retry; what it \
     queued afterwards was never on the wire";
/// What waits in a queue, and how much is known of it.
const QUEUED_BEHIND: &str = "one at least where its pool was growing or had nothing idle; what waited in the queue was never on the wire";

/// A forced close fails its queue in the same turn of the event loop.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Less sure, a forced close is no reason to look into logs.
const WORTH_A_LOOK: f64 = 0.4;

/// What an incident makes drivers log.
pub(super) fn logged(incident: &Incident, case: &Case, pools: &Pools) -> Vec<Logged> {
    case.signals()
        .iter()
        .filter_map(|signal| told(signal, pools).or_else(|| forced(signal, incident, case, pools)))
        .collect()
}

/// A pool that destroyed itself.
fn told(signal: &Signal, pools: &Pools) -> Option<Logged> {
    let SignalKind::PoolDestroyed(destroyed) = &signal.kind else {
        return None;
    };
    let instance = pools.instance(signal.subject.instance?)?;
    Some(Logged {
        message: MESSAGE.to_owned(),
        client: name(instance),
        wire_at: signal.at,
        from: destroyed.from,
        until: destroyed.until,
        failed: destroyed.failed,
        basis: QUEUED_AGAIN.to_owned(),
        hanging: destroyed.hanging,
        hanging_commands: destroyed.hanging_commands.clone(),
        trigger: destroyed.trigger.label().to_owned(),
    })
}

/// A client that was closed by force, or may have been.
fn forced(signal: &Signal, incident: &Incident, case: &Case, pools: &Pools) -> Option<Logged> {
    let SignalKind::ClientClosed {
        group,
        is_after_trouble: false,
        is_legacy: true,
        ..
    } = &signal.kind
    else {
        return None;
    };
    // What has another cause was closed by that.
    let is_open = matches!(
        incident.cause(),
        Cause::DriverPoolDestroyed
            | Cause::UnhandledAsyncCleanup
            | Cause::AppCrash
            | Cause::Unknown
    );
    let is_possible = is_open
        && incident.causes.iter().any(|ranked| {
            matches!(
                ranked.cause,
                Cause::DriverPoolDestroyed | Cause::UnhandledAsyncCleanup
            ) && ranked.confidence >= WORTH_A_LOOK
        });
    let instance = pools.instance(signal.subject.instance?)?;
    // What destroyed itself was not closed.
    let has_own_cause = case.signals().iter().any(|other| {
        matches!(other.kind, SignalKind::PoolDestroyed(_))
            && other.subject.instance == signal.subject.instance
    });
    if has_own_cause || !is_possible || group.has_said_goodbye {
        return None;
    }
    // What was written hangs, and a pool of full size writes at once whatever it is handed. Only a pool that was still
    // growing, or one that had nothing under way, had operations in its queue.
    let had_queue = group.requests_lost == 0 || group.in_handshake > 0;
    // A relayed connection ends when the server has noticed, too: the close may lie before it.
    Some(Logged {
        message: MESSAGE.to_owned(),
        client: name(instance),
        wire_at: signal.at,
        from: signal.at - AT_ONCE * 2,
        until: signal.at + group.span + AT_ONCE,
        failed: u64::from(had_queue),
        basis: QUEUED_BEHIND.to_owned(),
        hanging: group.requests_lost,
        hanging_commands: group.commands_lost.clone(),
        trigger: DestroyTrigger::ForcedClose.label().to_owned(),
    })
}

fn name(instance: &Instance) -> ClientName {
    ClientName {
        address: instance.address.to_string().into(),
        app: instance.app.clone(),
    }
}
