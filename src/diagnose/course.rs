//! The course of an incident: what happened when, oldest first.

mod part;

use std::time::Duration;

use self::part::Part;
use super::reopenings::reopenings;
use super::words::{client, clock, counted, length, within};
use super::{Case, Moment};
use crate::connection::ServerRole;
use crate::detect::{CloseGroup, Signal, SignalKind};
use crate::pools::Pools;

/// Moments that are told.
const MOMENTS_MAX: usize = 48;

/// Cleared pools that are told, besides.
const CLEARS_MAX: usize = 16;

/// Other things that went with it and are told, besides.
const OTHERS_MAX: usize = 8;

/// The course of events, oldest first.
pub(super) fn course(case: &Case, pools: &Pools) -> Vec<Moment> {
    let mut all: Vec<Moment> = case
        .signals()
        .iter()
        .flat_map(|signal| moments(signal, pools))
        .collect();
    all.sort_by_key(|moment| moment.at);
    all.dedup();
    all.truncate(MOMENTS_MAX);
    all.extend(asides(case, pools));
    all.sort_by_key(|moment| moment.at);
    all
}

/// What went with it.
fn asides(case: &Case, pools: &Pools) -> Vec<Moment> {
    let is_clear = |signal: &&Signal| matches!(signal.kind, SignalKind::PoolCleared { .. });
    let is_told_apart = |signal: &&Signal| {
        is_clear(signal) || matches!(signal.kind, SignalKind::PoolReopened { .. })
    };
    let others = case.asides().iter().filter(|signal| !is_told_apart(signal));
    let others = others.flat_map(|signal| moments(signal, pools));
    let clears = case.asides().iter().filter(is_clear);
    let mut all = clears_of(clears.flat_map(|signal| moments(signal, pools)).collect());
    all.extend(others.take(OTHERS_MAX));
    all.extend(reopenings(case, pools));
    all
}

/// Of many cleared pools the first, and that there were more.
fn clears_of(mut all: Vec<Moment>) -> Vec<Moment> {
    all.dedup();
    if let Some(next) = all.get(CLEARS_MAX) {
        let more = Moment {
            at: next.at,
            what: format!(
                "more pools are cleared from here on: {} at the least",
                all.len() - CLEARS_MAX
            ),
        };
        all.truncate(CLEARS_MAX);
        all.push(more);
    }
    all
}

/// Who and where, as sentences have them.
#[derive(Clone, Copy, Debug)]
struct Scene<'a> {
    /// The client instance; `None` where the whole upstream is concerned.
    client: Option<&'a str>,
    server: &'a str,
    part: Part,
}

impl Scene<'_> {
    /// ` of orders@10.0.0.11`, or nothing.
    fn of(self) -> String {
        self.client
            .map_or_else(String::new, |client| format!(" of {client}"))
    }

    /// The one who acts.
    fn actor(&self) -> &str {
        self.client.unwrap_or("a client")
    }
}

fn moments(signal: &Signal, pools: &Pools) -> Vec<Moment> {
    let instance = signal.subject.instance.and_then(|id| pools.instance(id));
    let name = instance.map(|instance| client(&instance.app, &instance.address.to_string()));
    let upstream = pools.upstream(signal.subject.upstream);
    let scene = Scene {
        client: name.as_deref(),
        server: upstream.map_or("?", |upstream| &*upstream.name),
        part: Part::of(signal, pools),
    };
    let mut all = vec![Moment {
        at: signal.at,
        what: words(&signal.kind, scene),
    }];
    if let SignalKind::PoolDestroyed(destroyed) = &signal.kind {
        all.push(Moment {
            at: destroyed.from,
            what: format!(
                "from here until {} {} may log \"Pool was force destroyed\"",
                clock(destroyed.until),
                scene.actor()
            ),
        });
    }
    if let SignalKind::RepliesMissing {
        resumed_at: Some(at),
        ..
    } = &signal.kind
    {
        all.push(Moment {
            at: *at,
            what: format!("replies of {} came again", scene.server),
        });
    }
    all
}

/// `9 of 10 connections`, `its only connection`.
fn closed(group: &CloseGroup) -> String {
    match (group.closed, group.of) {
        (1, 1) => "the only connection".to_owned(),
        (closed, of) if closed == of => format!("all {}", counted(of, "connection")),
        (closed, of) => format!("{closed} of {}", counted(of, "connection")),
    }
}

/// `, 2 with a request under way`, or nothing.
fn busy(group: &CloseGroup) -> String {
    match (group.in_flight, group.closed) {
        (0, _) => String::new(),
        (1, 1) => ", with a request under way".to_owned(),
        (some, _) => format!(", {some} with a request under way"),
    }
}

/// What a server says of itself.
fn role(role: ServerRole) -> &'static str {
    match role {
        // A member in transition, such as one that rolls back or starts.
        ServerRole::Other => "neither primary nor secondary",
        ServerRole::Unknown => "a server without a role",
        ServerRole::Primary
        | ServerRole::Secondary
        | ServerRole::Arbiter
        | ServerRole::Mongos
        | ServerRole::Standalone => role.label(),
    }
}

#[expect(clippy::too_many_lines, reason = "one entry for each kind of signal")]
fn words(kind: &SignalKind, scene: Scene<'_>) -> String {
    let server = scene.server;
    match kind {
        SignalKind::ServerClosed {
            group,
            instances,
            instances_before,
            is_client_side,
            ..
        } => {
            let side = if *is_client_side { "client" } else { "server" };
            let when = match group.closed {
                1 => String::new(),
                _ => format!(" within {}", within(group.span)),
            };
            let whose = match scene.client {
                // So many are all instances' together.
                Some(client) if instances < instances_before => {
                    format!(" to {server}, of {client},")
                }
                _ => scene.of(),
            };
            format!(
                "{}{whose} ended from the {side}'s side{when}{}",
                closed(group),
                busy(group)
            )
        }
        SignalKind::DialsFail { failure, count, .. } => {
            format!(
                "dials to {server} begin to fail: {} {}",
                count,
                failure.label()
            )
        }
        SignalKind::TurnedAway { count, .. } => {
            format!("{server} begins to end connections before it answers: {count} so far")
        }
        SignalKind::HandshakesUnanswered { count, .. } => format!(
            "{server} leaves the first hello of {} unanswered",
            counted(*count, "connection")
        ),
        SignalKind::EqualIdleAge {
            age,
            closed,
            by_server,
            at_first_use,
            ..
        } => {
            let closed = counted(*closed, "connection");
            let of = scene.of();
            match (by_server, at_first_use) {
                (true, true) => format!("{closed}{of} broke at the first use after a pause"),
                (false, true) => format!("{closed}{of} hung at the first use after a pause"),
                (true | false, false) => {
                    format!("{closed}{of} ended after {} without a byte", length(*age))
                }
            }
        }
        SignalKind::ErrorReplies { code, count, .. } => format!(
            "{server} begins to answer requests{} with error {code}: {count} so far",
            scene.of()
        ),
        SignalKind::AuthenticationFails { count, user, .. } => format!(
            "{server} begins to refuse the credentials of {}: {} so far",
            user.as_deref().unwrap_or(scene.actor()),
            counted(*count, "time")
        ),
        SignalKind::RoleChanged { from, to } => {
            format!(
                "{server} says that it is {}; it was {}",
                role(*to),
                role(*from)
            )
        }
        SignalKind::ServerRestarted => format!("another process answers at {server}"),
        SignalKind::RepliesMissing {
            connections,
            waited,
            ..
        } => format!(
            "{server} falls silent: no byte on {}{} for {}",
            counted(*connections, "connection"),
            scene.of(),
            length(*waited)
        ),
        SignalKind::ClientsUnreached {
            connections,
            waited,
            ..
        } => format!(
            "clients fall silent: nothing is acknowledged on {}{} for {}",
            counted(*connections, "connection"),
            scene.of(),
            length(*waited)
        ),
        SignalKind::Retransmits {
            count,
            sent,
            connections,
            is_client_side,
            ..
        } => format!(
            "segments to {} begin to be sent again: {count} of {sent} on {}",
            side(*is_client_side, server),
            counted(*connections, "connection")
        ),
        SignalKind::RoundTripTime {
            now,
            before,
            is_client_side,
        } => format!(
            "the round-trip time to {} rises from {} to {}",
            side(*is_client_side, server),
            length(*before),
            length(*now)
        ),
        SignalKind::ClientClosed { .. }
        | SignalKind::ReconnectBurst { .. }
        | SignalKind::ClientChurn { .. }
        | SignalKind::ClientLeak { .. }
        | SignalKind::NoReuse { .. }
        | SignalKind::Probes { .. }
        | SignalKind::SlowOperations { .. }
        | SignalKind::PoolGrew { .. }
        | SignalKind::PoolCleared { .. }
        | SignalKind::PoolReopened { .. }
        | SignalKind::IdleRecycling { .. }
        | SignalKind::InstanceAppeared { .. }
        | SignalKind::InstanceGone { .. }
        | SignalKind::PoolDestroyed(_)
        | SignalKind::SilentAfterTrouble { .. }
        | SignalKind::StaysAway { .. } => of_a_client(kind, scene),
    }
}

fn side(is_client_side: bool, server: &str) -> &str {
    if is_client_side { "clients" } else { server }
}

const fn goodbye(has_said_goodbye: bool) -> &'static str {
    if has_said_goodbye {
        "after a goodbye"
    } else {
        "without a goodbye"
    }
}

/// What a client does, or what happens to its pool.
#[expect(clippy::too_many_lines, reason = "one entry for each kind of signal")]
fn of_a_client(kind: &SignalKind, scene: Scene<'_>) -> String {
    let (client, server) = (scene.actor(), scene.server);
    match kind {
        SignalKind::ClientClosed { group, .. } => format!(
            "{client} ends {}{} {}{}",
            match scene.part {
                Part::Whole | Part::MongoClient => closed(group),
                // Not all that it has: it has others by now.
                Part::GoesOn => counted(group.closed, "connection"),
            },
            scene.part.told(),
            goodbye(group.has_said_goodbye),
            busy(group)
        ),
        SignalKind::ReconnectBurst {
            opened,
            lost,
            lasted,
            ..
        } => format!(
            "{client} begins to dial without pause: {} within {}, {}",
            counted(*opened, "connection"),
            length(*lasted),
            match lost {
                0 => "although none was lost".to_owned(),
                1 => "after one was lost".to_owned(),
                lost => format!("after {lost} were lost"),
            }
        ),
        SignalKind::ClientChurn {
            created, window, ..
        } => format!(
            "{client} begins to make mongo clients: {created} within {}",
            length(*window)
        ),
        SignalKind::ClientLeak {
            left, to, lasted, ..
        } => format!(
            "{client} begins to leave mongo clients behind: {left} of {to} lie idle, made within {}",
            length(*lasted)
        ),
        SignalKind::NoReuse {
            opened,
            operations,
            window,
            ..
        } => format!(
            "{client} does not use connections again: {} within {} for {}",
            counted(*opened, "connection"),
            length(*window),
            counted(*operations, "operation")
        ),
        SignalKind::Probes { count, .. } => {
            format!(
                "{} without a byte came to {server}",
                counted(*count, "connection")
            )
        }
        SignalKind::SlowOperations { now, before, .. } => format!(
            "operations{} begin to take {} instead of {}",
            scene.of(),
            length(*now),
            length(*before)
        ),
        SignalKind::PoolGrew { from, to, .. } => {
            format!("the pool of {client} grew from {from} to {to}")
        }
        SignalKind::PoolCleared { sign, closed } => {
            let with_it = match closed {
                0 => String::new(),
                1 => ", and 1 connection goes with it".to_owned(),
                some => format!(", and {some} connections go with it"),
            };
            format!(
                "{client} clears its pool to {server} ({}: {}){with_it}",
                sign.trigger().label(),
                sign.told()
            )
        }
        SignalKind::IdleRecycling { closed, age } => format!(
            "{client} begins to replace connections that were idle for {}: {closed} so far",
            length(*age)
        ),
        SignalKind::InstanceAppeared { .. } => format!("a new process of {client} connects"),
        SignalKind::InstanceGone {
            has_said_goodbye,
            in_flight,
            ..
        } => {
            let left = match in_flight {
                0 => String::new(),
                _ => format!(", with {} under way", counted(*in_flight, "request")),
            };
            format!("{client} goes {}{left}", goodbye(*has_said_goodbye))
        }
        SignalKind::PoolDestroyed(destroyed) => format!(
            "{client} loses its pool to {server}; its driver destroys it later: {}",
            destroyed.trigger.label()
        ),
        SignalKind::SilentAfterTrouble { silent, .. } => format!(
            "{client} has not dialled {server} for {} although it can be reached",
            length((*silent).max(Duration::from_secs(1)))
        ),
        SignalKind::StaysAway {
            silent, monitors, ..
        } => {
            let alive = match monitors {
                0 => "whether its process is there, nothing tells",
                _ => "its process is there",
            };
            format!(
                "{server} is back, and {client}, which was at work, has sent nothing for {}; {alive}",
                length(*silent)
            )
        }
        // Told apart, by [`reopenings`].
        SignalKind::PoolReopened { .. }
        | SignalKind::ServerClosed { .. }
        | SignalKind::EqualIdleAge { .. }
        | SignalKind::DialsFail { .. }
        | SignalKind::TurnedAway { .. }
        | SignalKind::HandshakesUnanswered { .. }
        | SignalKind::ErrorReplies { .. }
        | SignalKind::AuthenticationFails { .. }
        | SignalKind::RoleChanged { .. }
        | SignalKind::ServerRestarted
        | SignalKind::RepliesMissing { .. }
        | SignalKind::ClientsUnreached { .. }
        | SignalKind::Retransmits { .. }
        | SignalKind::RoundTripTime { .. } => String::new(),
    }
}
