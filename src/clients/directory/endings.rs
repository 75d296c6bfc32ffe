//! What connections that ended were for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clients::client::{ClientCell, Unjudged};
use crate::clients::connection::ConnectionCell;
use crate::clients::roles::{Families, Sibling};
use crate::clients::{ConnectionId, lock};
use crate::connection::{Initiator, Role};
use crate::time::Timestamp;

/// When a connection that ended undecided is judged: what its client did on other sockets before has been read.
const JUDGED_AFTER: Duration = Duration::from_secs(1);

/// Siblings looked at when a connection ends undecided, and such connections waiting for their judgement.
pub(super) const SIBLINGS_MAX: usize = 1024;

/// The connections that may say what `connection` was for. The work for one ending is bounded: of a client with
/// very many connections its oldest ones (monitors of long-lived clients) and those opened next to this one.
fn siblings_of(
    connection: &ConnectionCell,
    client: &ClientCell,
    members: &BTreeMap<ConnectionId, Arc<ConnectionCell>>,
) -> Vec<Sibling> {
    if client.key.is_none() {
        // The overflow gathers strangers.
        return vec![connection.sibling()];
    }
    let mut siblings: Vec<Sibling> = if members.len() <= SIBLINGS_MAX {
        present(members.values()).collect()
    } else {
        let oldest = members.values().take(SIBLINGS_MAX / 4);
        let before = members.range(..connection.id).rev().take(SIBLINGS_MAX / 4);
        let after = members.range(connection.id..).take(SIBLINGS_MAX / 2);
        let near = before.chain(after).map(|(_, member)| member);
        present(oldest.chain(near)).collect()
    };
    siblings.sort_unstable_by_key(|sibling| sibling.id);
    siblings.dedup_by_key(|sibling| sibling.id);
    siblings
}

/// Those of them that did not end for their client.
fn present<'a>(
    members: impl Iterator<Item = &'a Arc<ConnectionCell>>,
) -> impl Iterator<Item = Sibling> {
    members
        .filter(|member| !member.has_departed())
        .map(|member| member.sibling())
}

/// The connection ended for its client, `client`, which has no use for it any more: the server's side, or what is on the
/// way to it, may take its time, and monitors that wait for it would count beside those in their place.
pub(in crate::clients) fn left(
    connection: &Arc<ConnectionCell>,
    client: &ClientCell,
    initiator: Initiator,
    at: Timestamp,
) {
    if !connection.depart() {
        return;
    }
    let ending = Sibling {
        is_cut: initiator != Initiator::Client,
        ..connection.sibling()
    };
    if !is_postponed(&ending, connection, client, at) {
        let role = final_role(&ending, connection, client, at);
        count_ended(&ending, role, connection, client);
    }
}

/// Counts a connection by what it was for.
fn count_ended(ending: &Sibling, role: Role, connection: &ConnectionCell, client: &ClientCell) {
    if matches!(role, Role::Application | Role::Tool | Role::Unknown) {
        let operations = connection.operations.load(Ordering::Relaxed);
        client.requests_per_connection.record(operations);
    }
    connection.ended_pooled(ending.is_pooled(role));
}

/// Puts a connection aside whose role the other endings of this moment will tell: sockets that a client closes
/// together are read by different workers, in any order.
fn is_postponed(
    ending: &Sibling,
    connection: &Arc<ConnectionCell>,
    client: &ClientCell,
    at: Timestamp,
) -> bool {
    // The overflow gathers strangers.
    if client.key.is_none() || !ending.is_silent() || ending.was_found_pooled {
        return false;
    }
    let mut unjudged = lock(&client.unjudged);
    if unjudged.len() >= SIBLINGS_MAX {
        return false;
    }
    unjudged.push(Unjudged {
        connection: Arc::clone(connection),
        sibling: *ending,
        ended_at: at,
    });
    true
}

/// Judges and counts what was put aside long enough ago, in the order of opening.
pub(in crate::clients) fn judge_ended(client: &ClientCell, at: Timestamp) {
    let mut unjudged = lock(&client.unjudged);
    let is_due = |one: &mut Unjudged| at.since(one.ended_at) >= JUDGED_AFTER;
    let mut due: Vec<Unjudged> = unjudged.extract_if(.., is_due).collect();
    let Some(first) = due.first() else {
        return;
    };
    let open = siblings_of(&first.connection, client, &lock(&client.members));
    let ended = unjudged.iter().chain(&due).map(|one| &one.sibling);
    let mut families = Families::new(
        open.iter().chain(ended),
        *lock(&client.hints),
        client.heartbeat(),
    );
    due.sort_by_key(|one| one.sibling.order());
    for one in due {
        let mut departed = lock(&client.departed);
        let role = families.final_role(&one.sibling, &departed, one.ended_at);
        departed.ended(&one.sibling, role, one.ended_at);
        families.leave(&one.sibling);
        count_ended(&one.sibling, role, &one.connection, client);
    }
}

/// Decides what a connection was for, and remembers what its siblings need to know of that.
fn final_role(
    ending: &Sibling,
    connection: &ConnectionCell,
    client: &ClientCell,
    at: Timestamp,
) -> Role {
    let mut departed = lock(&client.departed);
    departed.expire(at);
    let siblings: Vec<Sibling> = {
        let members = lock(&client.members);
        match ending.told {
            Role::Unknown if ending.is_silent() => siblings_of(connection, client, &members),
            // All that matters is whether its process has a streaming monitor.
            Role::RoundTripMonitor => present(members.values())
                .filter(|member| member.told == Role::Monitor)
                .find(|member| member.traits.process == ending.traits.process)
                .into_iter()
                .collect(),
            // Nothing its siblings could say matters.
            Role::Unknown
            | Role::Application
            | Role::Monitor
            | Role::Tool
            | Role::Probe
            | Role::Member => Vec::new(),
        }
    };
    let families = Families::new(&siblings, *lock(&client.hints), client.heartbeat());
    let role = families.final_role(ending, &departed, at);
    departed.ended(ending, role, at);
    role
}
