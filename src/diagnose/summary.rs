//! An incident in one sentence: what happened to whom, since when, and the fact that says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::kinship::is_lasting;
use super::words::{client, clock, counted, listed};
use super::{Case, Cause, ClientName, Failures, Incident, Logged};
use crate::detect::SignalKind;
use crate::pools::Pools;

/// Clients, or applications, named in a sentence.
const NAMED_MAX: usize = 3;

/// Clients named one by one; more are named by their applications.
const SINGLE_MAX: usize = 2;

/// The cause in one sentence with names, counts and times.
pub(super) fn summary(incident: &Incident, case: &Case, pools: &Pools) -> String {
    let server = pools
        .upstream(incident.upstream)
        .map_or("?", |upstream| &*upstream.name);
    let who = Who::of(&incident.clients);
    let mut text = sentence(incident.cause(), &who, server);
    if incident.cause() == Cause::SlowOperations && has_grown(case) {
        text += " and fill the pools";
    }
    let since = if is_lasting(incident.cause()) {
        "since"
    } else {
        "at"
    };
    // Writing to a string cannot fail.
    write!(text, " {since} {} UTC", clock(incident.opened_at)).ok();
    let best = incident.causes.first();
    if let Some(evidence) = best.and_then(|best| best.evidence.first()) {
        write!(text, ": {}", evidence.fact).ok();
    }
    let worse: Vec<String> = incident
        .aggravations
        .iter()
        .map(|aggravation| aggravation.cause.label().to_owned())
        .collect();
    if !worse.is_empty() {
        write!(text, "; made worse by {}", listed(&worse)).ok();
    }
    text += &logged(&incident.logged);
    text.push('.');
    text
}

/// A pool is seen to be larger than it was.
fn has_grown(case: &Case) -> bool {
    case.kinds()
        .any(|kind| matches!(kind, SignalKind::PoolGrew { .. }))
}

/// `The server mongo-0 died without a word under orders@10.0.0.11`.
fn sentence(cause: Cause, who: &Who, server: &str) -> String {
    let Who {
        names,
        apps,
        is_one,
    } = who;
    let s = if *is_one { "s" } else { "" };
    match cause {
        Cause::Deploy => format!("Instances of {apps} were replaced in good order"),
        Cause::ScaleOut => format!("Instances of {apps} were added"),
        Cause::ServerCrash => {
            format!("The server {server} died without a word while {names} used it")
        }
        Cause::ServerShutdown => {
            format!("The server {server} was told to stop while {names} used it")
        }
        Cause::Failover => {
            format!("The server {server} lost the role of primary while {names} used it")
        }
        Cause::ServerFreeze => {
            format!("The server {server} stopped answering {names}, while its host is there")
        }
        Cause::ServerClosing => {
            format!("The server {server} stays up but closes connections of {names}")
        }
        Cause::NetworkReset => format!("Something between {names} and {server} reset connections"),
        Cause::NetworkBlackhole => format!("Nothing gets through between {names} and {server}"),
        Cause::NetworkLoss => format!("Packets between {names} and {server} get lost"),
        Cause::NetworkLatency => format!("The network between {names} and {server} became slow"),
        Cause::IdleCutoff => {
            format!("Something between {names} and {server} cuts connections that are idle")
        }
        Cause::SocketTimeout => {
            format!("{names} give{s} {server} less time than its operations need")
        }
        Cause::IdleRecycling => {
            format!("{names} replace{s} idle connections to {server}, as configured")
        }
        Cause::DriverPoolDestroyed => {
            format!("{names} tore down the own pool to {server} with operations under way")
        }
        Cause::UnhandledAsyncCleanup => format!(
            "{names} closed a client while operations nobody waited for were under way at {server}"
        ),
        Cause::AppCrash => format!("A process of {names} died without closing its connections"),
        Cause::ClientPerRequest => format!("{names} make{s} one mongo client after the other"),
        Cause::ReconnectStorm => format!("{names} dial{s} {server} without pause"),
        Cause::PoolCapacity => {
            format!("{server} turns connections of {names} away, for it has too many")
        }
        Cause::SlowOperations => format!("Operations of {names} at {server} became slow"),
        Cause::AuthFailures => format!("{server} refuses the credentials of {names}"),
        Cause::HealthChecks => {
            format!("{names} only check{s} whether {server} accepts connections")
        }
        Cause::WedgedClient => {
            format!("{names} will not connect to {server} again before a restart")
        }
        Cause::Unknown => {
            format!("Connections or requests of {names} to {server} failed, and nothing known fits")
        }
    }
}

/// What to look for in whose log.
fn logged(all: &[Logged]) -> String {
    let mut messages: Vec<&str> = Vec::new();
    for one in all {
        if !messages.contains(&&*one.message) {
            messages.push(&one.message);
        }
    }
    let expected: Vec<String> = messages
        .into_iter()
        .filter_map(|message| expected(message, all))
        .collect();
    if expected.is_empty() {
        return String::new();
    }
    format!("; expect {}", expected.join(", then "))
}

/// One message, of all instances that log it.
fn expected(message: &str, all: &[Logged]) -> Option<String> {
    let same = || all.iter().filter(|one| one.message == message);
    let failed = same().map(|one| one.failed).reduce(Failures::and)?;
    let from = same().map(|one| one.from).min()?;
    // Where one of them has no end there is none.
    let until = same()
        .map(|one| one.until)
        .reduce(|one, other| Some(one?.max(other?)))?;
    let until = until.map_or_else(|| " on".to_owned(), |until| format!(" to {}", clock(until)));
    let mut names: Vec<ClientName> = same().map(|one| one.client.clone()).collect();
    names.sort();
    names.dedup();
    Some(format!(
        "\"{message}\" in the log of {}, {}, from {}{until}",
        Who::of(&names).names,
        failed.words(),
        clock(from),
    ))
}

/// The clients of a sentence.
#[derive(Debug)]
struct Who {
    /// A few by name, more by application.
    names: String,
    /// Applications.
    apps: String,
    /// A verb behind the names is in the singular.
    is_one: bool,
}

impl Who {
    fn of(clients: &[ClientName]) -> Self {
        let mut counts = BTreeMap::<&str, usize>::new();
        for client in clients {
            *counts.entry(&client.app).or_default() += 1;
        }
        let unnamed = "clients without an application name";
        let app = |app: &str| {
            let name = if app.is_empty() { unnamed } else { app };
            name.to_owned()
        };
        let apps = few(counts.keys().map(|name| app(name)).collect());
        let names = if clients.is_empty() {
            "clients".to_owned()
        } else if clients.len() <= SINGLE_MAX {
            let names = clients.iter().map(|one| client(&one.app, &one.address));
            listed(&names.collect::<Vec<_>>())
        } else {
            let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
            counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
            let named = counts.iter().map(|&(name, count)| {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                if name.is_empty() {
                    counted(count, "unnamed client")
                } else {
                    format!("{} of {name}", counted(count, "instance"))
                }
            });
            few(named.collect())
        };
        Self {
            names,
            apps: if clients.is_empty() {
                "an application".to_owned()
            } else {
                apps
            },
            is_one: clients.len() == 1,
        }
    }
}

/// As many as a sentence bears, and how many more.
fn few(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        names.truncate(NAMED_MAX);
        names.push(format!("{more} more"));
    }
    listed(&names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::timeline::Commands;

    fn clients(all: &[(&str, &str)]) -> Vec<ClientName> {
        all.iter()
            .map(|(app, address)| ClientName {
                address: (*address).into(),
                app: (*app).into(),
            })
            .collect()
    }

    #[test]
    fn few_clients_are_named_and_many_counted_by_application() {
        let one = Who::of(&clients(&[("orders", "10.0.0.1")]));
        assert_eq!((&*one.names, one.is_one), ("orders@10.0.0.1", true));
        let two = Who::of(&clients(&[("", "10.0.0.2"), ("orders", "10.0.0.1")]));
        assert_eq!(two.names, "10.0.0.2 and orders@10.0.0.1");
        let many = Who::of(&clients(&[
            ("", "10.0.0.9"),
            ("billing", "10.0.0.1"),
            ("orders", "10.0.0.1"),
            ("orders", "10.0.0.2"),
            ("web", "10.0.0.3"),
        ]));
        assert_eq!(
            many.names,
            "2 instances of orders, 1 unnamed client, 1 instance of billing and 1 more"
        );
        assert_eq!(Who::of(&[]).names, "clients");
    }

    #[test]
    fn each_message_is_told_once_with_what_is_known_of_its_number() {
        let at = Timestamp::from_nanos;
        let forced = Logged {
            message: "Pool was force destroyed".to_owned(),
            client: clients(&[("orders", "10.0.0.1")]).remove(0),
            wire_at: at(0),
            from: at(1_000_000_000),
            until: Some(at(2_000_000_000)),
            failed: Failures::AtLeast(1),
            basis: String::new(),
            hanging: 0,
            hanging_commands: Commands::default(),
            trigger: String::new(),
        };
        let again = Logged {
            until: Some(at(3_000_000_000)),
            ..forced.clone()
        };
        let destroyed = Logged {
            message: "pool destroyed".to_owned(),
            until: None,
            failed: Failures::Unknown,
            ..forced.clone()
        };
        assert_eq!(
            logged(&[forced, destroyed, again]),
            "; expect \"Pool was force destroyed\" in the log of orders@10.0.0.1, at least 2 times, from 00:00:01.000 to \
             00:00:03.000, then \"pool destroyed\" in the log of orders@10.0.0.1, as often as the destroyed pool is used, \
             from 00:00:01.000 on"
        );
        assert_eq!(logged(&[]), "");
    }

    #[test]
    fn every_cause_has_a_sentence_that_names_whom_and_where() {
        let who = Who::of(&clients(&[("orders", "10.0.0.1")]));
        for cause in Cause::ALL {
            let text = sentence(*cause, &who, "db0");
            assert!(text.contains("orders"), "{cause:?}: {text}");
            let is_about_the_client = matches!(
                cause,
                Cause::Deploy | Cause::ScaleOut | Cause::AppCrash | Cause::ClientPerRequest
            );
            assert!(text.contains("db0") || is_about_the_client, "{text}");
            // The moment, the evidence and what is logged come on top.
            assert!(text.len() <= 90, "{} is long: {text}", text.len());
        }
    }
}
