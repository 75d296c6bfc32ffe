//! What the logs of drivers will say: "Pool was force destroyed" and "pool destroyed", and when.
//!
//! Source: `lib/core/connection/pool.js` of Node's driver 3.x, `Pool.destroy(force)`: operations in the queue fail with
//! the message; operations already written get no callback at all. Queued operations leave no trace on the wire:
//! their number is taken from the requests that were unanswered when the connections were lost, which the driver
//! queues again where it may.
//!
//! `Pool.write` of a destroyed pool fails at once with "pool destroyed". A read gets there; a write is stopped before, in
//! `lib/core/topologies/server.js`, with "server instance pool was destroyed". A replica set makes a new pool in place of
//! the one it destroyed, so that only a pool that was closed, or one of a single server, goes on to be used.

use std::time::Duration;

use super::{Case, Cause, ClientName, Failures, Incident, Logged};
use crate::detect::{DestroyTrigger, Signal, SignalKind};
use crate::pools::{Instance, Pools};
use crate::time::Timestamp;
use crate::timeline::Commands;

/// What was in the queue of a pool that is destroyed fails with.
const FORCED: &str = "Pool was force destroyed";
/// What is given to a destroyed pool fails with.
const DESTROYED: &str = "pool destroyed";

/// What a driver queues again, and how that is known.
const QUEUED_AGAIN: &str = "requests unanswered when its connections were lost, which the driver queues again where it may retry; what it \
     queued afterwards was never on the wire";
/// What timed out twice was not queued again.
const TIMED_OUT: &str = "requests unanswered when its connections timed out, which the driver queues again once: what had \
     timed out before has the time-out for an error, what timed out last comes too late and finds the pool destroyed";
/// A connection is opened for what waits in the queue.
const QUEUED_BEHIND: &str = "connections that were being opened when it was closed: one operation at least waited for them; what else was in the \
     queue was never on the wire";
/// What is closed while nobody uses it looks the same.
const PERHAPS_QUEUED: &str = "connections that were being opened when it was closed, of which there were none; what was in the queue, if \
     anything, was never on the wire";
/// Why nobody can count what a destroyed pool is given.
const NEVER_SENT: &str = "driver's rule that a destroyed pool fails what it is given without sending it: a read with this \
     message, a write with \"server instance pool was destroyed\"";

/// Why a wedged client's pool is gone, as far as the wire tells.
const FELL_SILENT: &str =
    "every connection was lost, and the driver has not dialled since it last tried";

/// A forced close fails its queue in the same turn of the event loop.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Less sure, a forced close is no reason to look into logs.
const WORTH_A_LOOK: f64 = 0.4;

/// What an incident makes drivers log.
pub(super) fn logged(incident: &Incident, case: &Case, pools: &Pools) -> Vec<Logged> {
    let mut all = Vec::new();
    for signal in case.signals() {
        let forced = told(signal, pools).or_else(|| forced(signal, incident, case, pools));
        let Some((trigger, forced)) = forced else {
            all.extend(given_up(signal, incident, pools));
            continue;
        };
        let used = stays_in_use(trigger).then(|| {
            let client = forced.client.clone();
            destroyed(client, forced.wire_at, forced.from, &forced.trigger)
        });
        all.push(forced);
        all.extend(used);
    }
    all
}

/// Whether the application goes on to use the pool that was destroyed, rather than one that the driver makes in its
/// place.
const fn stays_in_use(trigger: DestroyTrigger) -> bool {
    match trigger {
        DestroyTrigger::ForcedClose | DestroyTrigger::RepeatedTimeouts => true,
        DestroyTrigger::PrimaryCrash | DestroyTrigger::PrimaryFreeze => false,
    }
}

/// What a pool is given after it was destroyed.
fn destroyed(client: ClientName, wire_at: Timestamp, from: Timestamp, trigger: &str) -> Logged {
    Logged {
        message: DESTROYED.to_owned(),
        client,
        wire_at,
        from,
        until: None,
        failed: Failures::Unknown,
        basis: NEVER_SENT.to_owned(),
        // Those are told with what destroyed it.
        hanging: 0,
        hanging_commands: Commands::default(),
        trigger: trigger.to_owned(),
    }
}

/// A pool that was destroyed after it had lost its connections: whatever it is given from then on fails. Whether its driver
/// gave up dialling or destroyed it for time-outs, the wire does not say: it tells of the silence.
fn given_up(signal: &Signal, incident: &Incident, pools: &Pools) -> Option<Logged> {
    // One that breaks while it logs in tells nobody: the pool waits for it for good, and what it is given with it.
    let is_wedged = matches!(
        signal.kind,
        SignalKind::SilentAfterTrouble { logs_in: false, .. }
    ) && incident.cause() == Cause::WedgedClient;
    let upstream = pools.upstream(signal.subject.upstream)?;
    let instance = pools.instance(signal.subject.instance?)?;
    // A member's pool is replaced.
    let is_single = upstream.set_name().is_none();
    if !is_wedged || !is_single || !instance.has_legacy_pool() {
        return None;
    }
    Some(destroyed(name(instance), signal.at, signal.at, FELL_SILENT))
}

/// A pool that destroyed itself.
fn told(signal: &Signal, pools: &Pools) -> Option<(DestroyTrigger, Logged)> {
    let SignalKind::PoolDestroyed(destroyed) = &signal.kind else {
        return None;
    };
    let instance = pools.instance(signal.subject.instance?)?;
    let (failed, basis) = match destroyed.trigger {
        DestroyTrigger::RepeatedTimeouts => (Failures::UpToAbout(destroyed.failed), TIMED_OUT),
        DestroyTrigger::PrimaryCrash
        | DestroyTrigger::PrimaryFreeze
        | DestroyTrigger::ForcedClose => (Failures::About(destroyed.failed), QUEUED_AGAIN),
    };
    let logged = Logged {
        message: FORCED.to_owned(),
        client: name(instance),
        wire_at: signal.at,
        from: destroyed.from,
        until: Some(destroyed.until),
        failed,
        basis: basis.to_owned(),
        hanging: destroyed.hanging,
        hanging_commands: destroyed.hanging_commands.clone(),
        trigger: destroyed.trigger.label().to_owned(),
    };
    Some((destroyed.trigger, logged))
}

/// A client that was closed by force, or may have been.
fn forced(
    signal: &Signal,
    incident: &Incident,
    case: &Case,
    pools: &Pools,
) -> Option<(DestroyTrigger, Logged)> {
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
    // What was written hangs, and a pool of full size writes in the next turn of the event loop whatever it is handed.
    // A pool that was still growing had operations in its queue; one that had nothing under way may have been closed
    // within the turn in which it was handed something, or while nobody used it.
    let (failed, basis) = if group.in_handshake > 0 {
        (Failures::AtLeast(1), QUEUED_BEHIND)
    } else {
        (Failures::AtLeast(0), PERHAPS_QUEUED)
    };
    let trigger = DestroyTrigger::ForcedClose;
    // A relayed connection ends when the server has noticed, too: the close may lie before it.
    let logged = Logged {
        message: FORCED.to_owned(),
        client: name(instance),
        wire_at: signal.at,
        from: signal.at - AT_ONCE * 2,
        until: Some(signal.at + group.span + AT_ONCE),
        failed,
        basis: basis.to_owned(),
        hanging: group.requests_lost,
        hanging_commands: group.commands_lost.clone(),
        trigger: trigger.label().to_owned(),
    };
    Some((trigger, logged))
}

fn name(instance: &Instance) -> ClientName {
    ClientName {
        address: instance.address.to_string().into(),
        app: instance.app.clone(),
    }
}
