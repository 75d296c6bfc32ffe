//! An incident in words: its cause in one sentence, and its course.

use std::fmt::Write as _;

use super::{Case, Cause, Incident, Moment};
use crate::detect::{CloseGroup, Signal, SignalKind};
use crate::pools::Pools;
use crate::timeline::UpstreamId;

/// Moments of a course that are told.
const MOMENTS_MAX: usize = 48;

/// Clients named in a sentence.
const NAMED_MAX: usize = 3;

/// The cause in one sentence with names, counts and times.
pub(super) fn summary(incident: &Incident, _case: &Case, pools: &Pools) -> String {
    let server = upstream(incident.upstream, pools);
    let who = who(incident);
    let mut text = match incident.cause() {
        Cause::Deploy => format!("Instances of {who} were replaced in good order"),
        Cause::ScaleOut => format!("Instances were added to {who}"),
        Cause::ServerCrash => format!(
            "The server {server} ended without a word and took the connections of {who} with it"
        ),
        Cause::ServerShutdown => format!("The server {server} was told to stop, and told {who} so"),
        Cause::Failover => {
            format!("Another member than {server} became primary, and {who} moved to it")
        }
        Cause::ServerFreeze => {
            format!("The server {server} stopped answering {who} while its host still does")
        }
        Cause::ServerClosing => {
            format!("The server {server} stays up and closes single connections of {who}")
        }
        Cause::NetworkReset => format!("Something between {who} and {server} reset connections"),
        Cause::NetworkBlackhole => format!("Nothing arrives any more between {who} and {server}"),
        Cause::NetworkLoss => format!("Packets between {who} and {server} are lost"),
        Cause::NetworkLatency => {
            format!("Packets between {who} and {server} take longer than before")
        }
        Cause::IdleCutoff => {
            format!("Something between {who} and {server} ends connections that were idle")
        }
        Cause::SocketTimeout => {
            format!("{who} gives its operations at {server} less time than they need")
        }
        Cause::IdleRecycling => {
            format!("Pools of {who} replace idle connections, as they were told to")
        }
        Cause::DriverPoolDestroyed => {
            format!("{who} tore its own pool to {server} down with operations under way")
        }
        Cause::UnhandledAsyncCleanup => format!(
            "{who} closed its client while operations that nobody waited for were under way"
        ),
        Cause::AppCrash => format!("A process of {who} ended without closing anything"),
        Cause::ClientPerRequest => format!("{who} makes a mongo client for each request"),
        Cause::ReconnectStorm => format!("{who} dials {server} without pause"),
        Cause::PoolCapacity => format!(
            "The server {server} turns connections of {who} away: more are wanted than it accepts"
        ),
        Cause::SlowOperations => format!("Slow operations of {who} at {server} occupy the pools"),
        Cause::AuthFailures => format!("The server {server} refuses the credentials of {who}"),
        Cause::HealthChecks => format!(
            "Bare connections without a byte come to {server}: health checks, left out of everything else"
        ),
        Cause::WedgedClient => {
            format!("{who} will not connect to {server} again before its process is restarted")
        }
        Cause::Unknown => {
            format!("Connections between {who} and {server} broke, and nothing known explains it")
        }
    };
    let first = incident
        .causes
        .first()
        .and_then(|best| best.evidence.first());
    if let Some(evidence) = first {
        // Writing to a string cannot fail.
        write!(text, ": {}", evidence.fact).ok();
    }
    write!(text, " (since {})", incident.opened_at).ok();
    let logged = incident.logged.first();
    if let Some(logged) = logged {
        write!(
            text,
            "; its log has \"{}\" between {} and {}",
            logged.message, logged.from, logged.until
        )
        .ok();
    }
    text.push('.');
    capital(&text)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn upstream(id: UpstreamId, pools: &Pools) -> &str {
    pools.upstream(id).map_or("?", |upstream| &*upstream.name)
}

/// The clients by name: a few, and how many more.
fn who(incident: &Incident) -> String {
    let mut names: Vec<String> = incident
        .clients
        .iter()
        .take(NAMED_MAX)
        .map(|client| {
            if client.app.is_empty() {
                format!("a client at {}", client.address)
            } else {
                format!("{} at {}", client.app, client.address)
            }
        })
        .collect();
    let more = incident.clients.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    match names.split_last() {
        None => "an unnamed client".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

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
    all
}

fn moments(signal: &Signal, pools: &Pools) -> Vec<Moment> {
    let server = upstream(signal.subject.upstream, pools);
    let client = signal
        .subject
        .instance
        .and_then(|id| pools.instance(id))
        .map_or_else(
            || "clients".to_owned(),
            |instance| {
                if instance.app.is_empty() {
                    instance.address.to_string()
                } else {
                    instance.app.to_string()
                }
            },
        );
    let mut all = vec![Moment {
        at: signal.at,
        what: words(&signal.kind, &client, server),
    }];
    if let SignalKind::PoolDestroyed(destroyed) = &signal.kind {
        all.push(Moment {
            at: destroyed.from,
            what: format!("from here on {client} may log \"Pool was force destroyed\""),
        });
    }
    if let SignalKind::RepliesMissing {
        resumed_at: Some(at),
        ..
    } = &signal.kind
    {
        all.push(Moment {
            at: *at,
            what: format!("replies of {server} came again"),
        });
    }
    all
}

fn closed(group: &CloseGroup) -> String {
    let mut text = format!("{} of {} connections", group.closed, group.of);
    if group.in_flight > 0 {
        write!(text, ", {} with requests under way", group.in_flight).ok();
    }
    text
}

fn words(kind: &SignalKind, client: &str, server: &str) -> String {
    match kind {
        SignalKind::ServerClosed { group, .. } => {
            format!("the side of {server} ended {} of {client}", closed(group))
        }
        SignalKind::ClientClosed { group, .. } => {
            let how = if group.has_said_goodbye {
                "after a goodbye"
            } else {
                "without a goodbye"
            };
            format!("{client} ended {} {how}", closed(group))
        }
        SignalKind::EqualIdleAge { age, closed, .. } => format!(
            "{closed} connections of {client} ended after {:.1} s without a byte",
            age.as_secs_f64()
        ),
        SignalKind::DialsFail { failure, count, .. } => {
            format!("{count} dials to {server} failed: {}", failure.label())
        }
        SignalKind::TurnedAway { count, .. } => {
            format!("{server} accepted {count} connections and ended them before it answered")
        }
        SignalKind::HandshakesUnanswered { count, .. } => {
            format!("{server} accepted {count} connections and left their first hello unanswered")
        }
        SignalKind::ReconnectBurst { opened, lost, .. } => {
            format!(
                "{client} began to open connections without pause: {opened}, after {lost} were lost"
            )
        }
        SignalKind::ClientChurn { created, .. } => {
            format!("{client} began to make mongo clients: {created} so far")
        }
        SignalKind::Probes { count, .. } => format!("{count} bare connections came to {server}"),
        SignalKind::ErrorReplies { code, count, .. } => {
            format!("{server} answered {count} requests of {client} with error {code}")
        }
        SignalKind::AuthenticationFails { count, user, .. } => format!(
            "{server} refused the credentials of {} {count} times",
            user.as_deref().unwrap_or(client)
        ),
        SignalKind::RoleChanged { from, to } => {
            format!("{server} became {}, it was {}", to.label(), from.label())
        }
        SignalKind::ServerRestarted => format!("another process answers at {server}"),
        SignalKind::RepliesMissing {
            connections,
            waited,
            ..
        } => format!(
            "replies of {server} were missing on {connections} connections of {client}, for {:.1} s",
            waited.as_secs_f64()
        ),
        SignalKind::Retransmits { count, .. } => format!("{count} segments were sent again"),
        SignalKind::RoundTripTime { now, before, .. } => format!(
            "the round-trip time rose from {:.1} to {:.1} ms",
            before.as_secs_f64() * 1e3,
            now.as_secs_f64() * 1e3
        ),
        SignalKind::SlowOperations { now, before, .. } => format!(
            "operations of {client} took {:.0} ms instead of {:.0} ms",
            now.as_secs_f64() * 1e3,
            before.as_secs_f64() * 1e3
        ),
        SignalKind::PoolGrew { from, to, .. } => {
            format!("the pool of {client} grew from {from} to {to}")
        }
        SignalKind::PoolCleared { closed, .. } => {
            format!("{client} cleared its pool, {closed} connections went with it")
        }
        SignalKind::IdleRecycling { closed, age } => format!(
            "{client} replaced {closed} connections that were idle for {:.1} s",
            age.as_secs_f64()
        ),
        SignalKind::InstanceAppeared { .. } => format!("a new process of {client} connected"),
        SignalKind::InstanceGone { .. } => format!("{client} said goodbye and went"),
        SignalKind::PoolDestroyed(destroyed) => format!(
            "{client} lost its pool to {server}, which its driver then destroyed: {}",
            destroyed.trigger.label()
        ),
        SignalKind::SilentAfterTrouble { silent, .. } => format!(
            "{client} has not dialled {server} for {:.0} s although it can be reached",
            silent.as_secs_f64()
        ),
    }
}
