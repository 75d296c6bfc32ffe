//! Which signal belongs to which case.

use std::time::Duration;

use super::{Case, Cause};
use crate::detect::{Signal, SignalKind};
use crate::pools::Pools;
use crate::time::Timestamp;
use crate::timeline::UpstreamId;

/// What follows from one event follows within this; measured from the last that was heard. Drivers check a server
/// every 10 s, and what they find then belongs to what happened before.
const TOGETHER: Duration = Duration::from_secs(10);

/// Instances of a deployment are replaced within this of each other.
const ROLLOUT: Duration = Duration::from_mins(1);

/// What a signal may be part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Trouble.
    Trouble,
    /// Instances come and go, in an orderly way.
    Rollout,
    /// Pools replace idle connections.
    Recycling,
    /// Probes.
    Probing,
    /// It goes with trouble, and neither begins it nor keeps it going.
    Aside,
}

pub(super) fn tone(kind: &SignalKind) -> Tone {
    match kind {
        SignalKind::Probes { .. } => Tone::Probing,
        SignalKind::IdleRecycling { .. } => Tone::Recycling,
        SignalKind::PoolCleared { .. }
        | SignalKind::PoolReopened { .. }
        | SignalKind::NoReuse { .. }
        | SignalKind::StaysAway { .. } => Tone::Aside,
        SignalKind::InstanceAppeared { .. }
        | SignalKind::InstanceGone {
            has_said_goodbye: true,
            in_flight: 0,
            ..
        } => Tone::Rollout,
        SignalKind::ClientClosed {
            group,
            still_busy: 0,
            transactions: 0,
            ..
        } if group.has_said_goodbye && group.in_flight == 0 => Tone::Rollout,
        SignalKind::ServerClosed { .. }
        | SignalKind::ClientClosed { .. }
        | SignalKind::EqualIdleAge { .. }
        | SignalKind::DialsFail { .. }
        | SignalKind::TurnedAway { .. }
        | SignalKind::HandshakesUnanswered { .. }
        | SignalKind::ReconnectBurst { .. }
        | SignalKind::ClientChurn { .. }
        | SignalKind::ClientLeak { .. }
        | SignalKind::ErrorReplies { .. }
        | SignalKind::AuthenticationFails { .. }
        | SignalKind::RoleChanged { .. }
        | SignalKind::ServerRestarted
        | SignalKind::RepliesMissing { .. }
        | SignalKind::ClientsUnreached { .. }
        | SignalKind::Retransmits { .. }
        | SignalKind::RoundTripTime { .. }
        | SignalKind::SlowOperations { .. }
        | SignalKind::PoolGrew { .. }
        | SignalKind::InstanceGone { .. }
        | SignalKind::PoolDestroyed(_)
        | SignalKind::SilentAfterTrouble { .. } => Tone::Trouble,
    }
}

/// Whether a signal belongs to a case of its tone; `found` is what the case was found to be so far.
pub(super) fn are_kin(
    case: &Case,
    found: Option<Cause>,
    signal: &Signal,
    tone: Tone,
    pools: &Pools,
) -> bool {
    let together = match tone {
        Tone::Rollout => ROLLOUT,
        Tone::Trouble | Tone::Recycling | Tone::Probing | Tone::Aside => TOGETHER,
    };
    if !is_same_server(case.upstream(), signal.subject.upstream, pools)
        || !is_in_time(case, signal.at, together)
    {
        return false;
    }
    // A client that stays away is an incident of its own: the trouble it comes from may long be over.
    let is_silence = |kind: &SignalKind| matches!(kind, SignalKind::SilentAfterTrouble { .. });
    if is_silence(&signal.kind) != case.kinds().any(is_silence) {
        return false;
    }
    match tone {
        Tone::Probing => true,
        Tone::Rollout => is_same_app(case, signal, pools),
        Tone::Recycling => is_same_client(case, signal),
        Tone::Aside => is_concerned(case, signal),
        Tone::Trouble => {
            let has_settled = found.is_some_and(is_lasting)
                && signal.at.since(case.began_at()) > TOGETHER
                && begins_something(case, &signal.kind);
            is_same_client(case, signal) && !has_settled
        }
    }
}

fn is_in_time(case: &Case, at: Timestamp, together: Duration) -> bool {
    at + together >= case.began_at() && at <= case.heard_at() + together
}

/// One upstream, or members of one replica set.
fn is_same_server(one: UpstreamId, other: UpstreamId, pools: &Pools) -> bool {
    let set = |id| pools.upstream(id).and_then(|upstream| upstream.set_name());
    one == other || (set(one).is_some() && set(one) == set(other))
}

/// The signal is about an instance that the case names, or one of them is about the whole upstream.
fn is_same_client(case: &Case, signal: &Signal) -> bool {
    signal
        .subject
        .instance
        .is_none_or(|instance| case.is_wide() || case.names(instance))
}

/// A signal of the case is about the instance that this one is about, by name or with all others.
fn is_concerned(case: &Case, signal: &Signal) -> bool {
    let concerned = |instance| case.signals().iter().any(|one| one.concerns(instance));
    signal.subject.instance.is_none_or(concerned)
}

fn is_same_app(case: &Case, signal: &Signal, pools: &Pools) -> bool {
    let instance = signal.subject.instance.and_then(|id| pools.instance(id));
    let Some(instance) = instance else {
        return is_same_client(case, signal);
    };
    case.clients().iter().any(|name| name.app == instance.app)
}

/// Trouble that goes on for as long as nobody does something about it, so that other trouble may begin meanwhile.
pub(super) const fn is_lasting(cause: Cause) -> bool {
    match cause {
        Cause::NetworkLoss
        | Cause::NetworkLatency
        | Cause::IdleCutoff
        | Cause::SocketTimeout
        | Cause::ClientPerRequest
        | Cause::ReconnectStorm
        | Cause::PoolCapacity
        | Cause::SlowOperations
        | Cause::AuthFailures
        | Cause::WedgedClient
        | Cause::Deploy
        | Cause::ScaleOut
        | Cause::IdleRecycling
        | Cause::HealthChecks => true,
        Cause::ServerCrash
        | Cause::ServerShutdown
        | Cause::Failover
        | Cause::ServerFreeze
        | Cause::ServerClosing
        | Cause::NetworkReset
        | Cause::NetworkBlackhole
        | Cause::DriverPoolDestroyed
        | Cause::UnhandledAsyncCleanup
        | Cause::AppCrash
        | Cause::Unknown => false,
    }
}

/// A signal that is no consequence of lasting trouble, but the beginning of another. What the case knows already goes
/// on, unless it now takes monitors as well.
fn begins_something(case: &Case, kind: &SignalKind) -> bool {
    let is_known = case.kinds().any(|known| known.is_like(kind));
    if let SignalKind::ServerClosed { group, .. } = kind {
        return !is_known || group.monitors > 0;
    }
    !is_known
        && matches!(
            kind,
            SignalKind::DialsFail { .. }
                | SignalKind::RoleChanged { .. }
                | SignalKind::ServerRestarted
                | SignalKind::RepliesMissing { .. }
                | SignalKind::ClientsUnreached { .. }
                | SignalKind::InstanceGone { .. }
                | SignalKind::ErrorReplies { .. }
        )
}
