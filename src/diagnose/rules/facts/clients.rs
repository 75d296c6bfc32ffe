//! What clients do, and whether it works.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a fact is looked for in the signals that have it; a new one is no business of the others"
)]

use std::time::Duration;

use super::super::super::Evidence;
use super::super::super::words::{counted, length};
use super::super::server::{connections_to, fact, note};
use super::{Scene, credentials_refused, first, signal};
use crate::connection::{AuthenticationResult, Initiator};
use crate::detect::{SignalKind, is_of_a_client};
use crate::pools::{Connection, InstanceId};

/// Who waits for longer and then ends a connection gave up on the server.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Connections of one instance that were opened since the incident began, where the incident is about one.
fn fresh<'a>(scene: &Scene<'a>, instance: InstanceId) -> impl Iterator<Item = &'a Connection> {
    let since = scene.case.began_at();
    scene.pools.connections().filter(move |connection| {
        connection.instance == Some(instance)
            && is_of_a_client(connection)
            && connection.opened_at >= since
    })
}

fn instance(scene: &Scene<'_>) -> Option<InstanceId> {
    let mut signals = scene.case.signals().iter();
    signals.find_map(|signal| signal.subject.instance)
}

pub(in super::super) fn nothing_afterwards(scene: &Scene<'_>) -> Option<Evidence> {
    let instance = instance(scene)?;
    let signal = signal(scene, |kind| {
        matches!(
            kind,
            SignalKind::ClientClosed {
                is_alive: None | Some(false),
                ..
            }
        )
    })?;
    let is_silent = fresh(scene, instance).next().is_none();
    let text = if is_silent {
        "nothing came from the process afterwards; one that closes its pool goes on"
    } else {
        "what came afterwards is no continuation of the process"
    };
    Some(note(signal.at, text))
}

/// What a storm opens does not last.
pub(in super::super) fn put_to_use(scene: &Scene<'_>) -> Option<Evidence> {
    let all = fresh(scene, instance(scene)?);
    let (mut greeted, mut used) = (0, 0);
    for connection in all.filter(|connection| connection.hello_answered_at.is_some()) {
        greeted += 1;
        used += u64::from(connection.last.operations > 0);
    }
    (used > 0).then(|| {
        let text = format!(
            "what was opened worked: {used} of {} carried operations",
            counted(greeted, "connection")
        );
        fact(scene.case.began_at(), used, text)
    })
}

pub(in super::super) fn of_one_instance(scene: &Scene<'_>) -> Option<Evidence> {
    let address = scene.pools.instance(instance(scene)?)?.address;
    first(scene, |kind| {
        let SignalKind::ClientChurn { created, .. } = kind else {
            return None;
        };
        let text = format!(
            "{} are of one instance at {address}, rather than of as many",
            counted(*created, "mongo client")
        );
        Some((*created, text))
    })
}

/// Connections on which a login ended in this way since.
fn logins<'a>(
    scene: &Scene<'a>,
    result: AuthenticationResult,
) -> impl Iterator<Item = &'a Connection> {
    let since = scene.case.began_at();
    connections_to(scene.pools, scene.case.upstream()).filter(move |connection| {
        let login = connection.authentication.as_ref();
        login.is_some_and(|(at, login)| *at >= since && login.result == result)
    })
}

pub(in super::super) fn logins_accepted(scene: &Scene<'_>) -> Option<Evidence> {
    let accepted = logins(scene, AuthenticationResult::Ok).count() as u64;
    (accepted > 0).then(|| {
        let text = format!("the server accepted {} since", counted(accepted, "login"));
        fact(scene.case.began_at(), accepted, text)
    })
}

pub(in super::super) fn nobody_refused(scene: &Scene<'_>) -> Option<Evidence> {
    let is_said = credentials_refused(scene).is_some();
    let unsaid = scene.seen.unsaid("credentials were refused");
    unsaid.filter(|_| !is_said)
}

pub(in super::super) fn refused_after_hello(scene: &Scene<'_>) -> Option<Evidence> {
    let refused = logins(scene, AuthenticationResult::Failed);
    let refused = refused.filter(|connection| connection.hello_answered_at.is_some());
    let count = refused.count() as u64;
    (count > 0).then(|| {
        let text = format!(
            "the server answered the hello of {} before it refused the login",
            counted(count, "connection")
        );
        fact(scene.case.began_at(), count, text)
    })
}

pub(in super::super) fn left_after_refusal(scene: &Scene<'_>) -> Option<Evidence> {
    let left = logins(scene, AuthenticationResult::Failed).filter(|connection| {
        let end = connection.ended;
        end.is_some_and(|end| end.ending.initiator == Initiator::Client)
    });
    let count = left.count() as u64;
    (count > 0).then(|| {
        let text = format!(
            "{} ended from the client's side after the refusal",
            counted(count, "connection")
        );
        fact(scene.case.began_at(), count, text)
    })
}

/// A process that dies in good times was not in trouble.
pub(in super::super) fn was_troubled(scene: &Scene<'_>) -> Option<Evidence> {
    let signal = signal(scene, |kind| {
        matches!(kind, SignalKind::SilentAfterTrouble { .. })
    })?;
    let instance = signal.subject.instance?;
    let ends = scene.pools.connections().filter_map(|connection| {
        let is_its = connection.instance == Some(instance);
        Some((connection, connection.ended.filter(|_| is_its)?))
    });
    let (mut broken, mut given_up) = (0, 0);
    for (connection, end) in ends {
        if end.ending.initiator == Initiator::Server {
            broken += 1;
        } else {
            let is_long = connection.idle_age(end.at) >= LONG_WAIT;
            given_up += u64::from(end.was_in_flight() && is_long);
        }
    }
    let (count, how) = if broken > 0 {
        (broken, "had ended from the server's side".to_owned())
    } else {
        (
            given_up,
            format!("had waited for a reply for more than {}", length(LONG_WAIT)),
        )
    };
    (count > 0).then(|| {
        let connections = counted(count, "connection");
        let text = format!("it was in trouble before: {connections} of it {how}");
        fact(signal.at, count, text)
    })
}

pub(in super::super) fn others_are_back(scene: &Scene<'_>) -> Option<Evidence> {
    first(scene, |kind| match kind {
        SignalKind::SilentAfterTrouble { others_back, .. } if *others_back > 0 => Some((
            *others_back,
            format!("{} came back since", counted(*others_back, "other client")),
        )),
        _ => None,
    })
}
