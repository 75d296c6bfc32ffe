//! A client that ended its connections itself: with its process, by force, or too early.

use std::time::Duration;

use super::super::super::words::{counted, length, named, within};
use super::super::super::{Case, Cause, Evidence};
use super::super::Opinion;
use super::{fact, note};
use crate::detect::{CloseGroup, DestroyTrigger, Signal, SignalKind};
use crate::pools::{Instance, Pools};
use crate::time::Timestamp;

/// A client that was made for a job is closed within this.
const JOB: Duration = Duration::from_millis(2500);

/// A process with a steady load is no script once it is this old.
const SERVICE: Duration = Duration::from_secs(2);

/// A service whose every connection was used so shortly before is in the middle of its traffic.
const STILL_HOT: Duration = Duration::from_millis(500);

/// A process that closed a client and goes on has dialled again by then.
const COMES_BACK: Duration = Duration::from_millis(900);

/// No more than this where nothing is known to be lost, or the client goes on: not enough to raise an alarm.
const UNHARMED: f64 = 0.4;

/// A client's connections that ended together.
#[derive(Clone, Copy, Debug)]
struct Farewell<'a> {
    signal: &'a Signal,
    group: &'a CloseGroup,
    is_whole: bool,
    still_busy: u64,
    transactions: u64,
    load: u64,
    age: Duration,
    is_after_trouble: bool,
    is_replaced: bool,
    is_alive: Option<bool>,
    is_legacy: bool,
    had_sessions: bool,
    /// Its connections were closed because their requests took too long.
    is_timed_out: bool,
    /// Clients that ended alike, this one included.
    times: u64,
}

fn farewell(case: &Case) -> Option<Farewell<'_>> {
    let all: Vec<Farewell<'_>> = case
        .signals()
        .iter()
        .filter_map(|signal| {
            let SignalKind::ClientClosed {
                group,
                is_whole,
                still_busy,
                transactions,
                load,
                age,
                is_after_trouble,
                is_replaced,
                is_alive,
                is_legacy,
                had_sessions,
            } = &signal.kind
            else {
                return None;
            };
            Some(Farewell {
                signal,
                group,
                is_whole: *is_whole,
                still_busy: *still_busy,
                transactions: *transactions,
                load: *load,
                age: *age,
                is_after_trouble: *is_after_trouble,
                is_replaced: *is_replaced,
                is_alive: *is_alive,
                is_legacy: *is_legacy,
                had_sessions: *had_sessions,
                is_timed_out: false,
                times: 1,
            })
        })
        .collect();
    let first = *all
        .iter()
        .find(|farewell| farewell.is_whole && !farewell.is_after_trouble)
        .or_else(|| all.first())?;
    let times = all.iter().filter(|farewell| farewell.left_work()).count() as u64;
    // One of several that shows the process alive shows it for all.
    let is_alive = if all.iter().any(|one| one.is_alive == Some(true)) {
        Some(true)
    } else {
        first.is_alive
    };
    let instance = first.signal.subject.instance;
    let is_timed_out = case
        .signals()
        .iter()
        .filter(|other| other.subject.instance == instance)
        .any(|other| tells_of_time_out(&other.kind));
    Some(Farewell {
        is_alive,
        is_timed_out,
        times,
        ..first
    })
}

const fn tells_of_time_out(kind: &SignalKind) -> bool {
    if let SignalKind::EqualIdleAge {
        by_server,
        in_flight,
        ..
    } = kind
    {
        return !*by_server && *in_flight > 0;
    }
    if let SignalKind::PoolDestroyed(destroyed) = kind {
        return matches!(destroyed.trigger, DestroyTrigger::RepeatedTimeouts);
    }
    false
}

impl Farewell<'_> {
    /// Operations were under way.
    const fn left_work(&self) -> bool {
        self.group.in_flight > 0 || self.still_busy > 0 || self.transactions > 0
    }

    /// Whoever waited was told of an error: requests were cut off; or all of the pool was at work, so that others were
    /// in its queue; or a service had its client closed in the middle of its traffic. A close that waits for the last
    /// requests of an orderly stop shows none of these.
    fn lost_work(&self) -> bool {
        let is_cut = self.group.in_flight > 0 || self.transactions > 0;
        let has_queue = self.still_busy > 0 && self.group.idle == 0;
        let is_hot = self
            .group
            .idle_ages
            .is_some_and(|(_, longest)| longest < STILL_HOT);
        let is_in_traffic = self.age >= SERVICE && is_hot && self.was_busy();
        is_cut || has_queue || is_in_traffic
    }

    /// It was made for a job rather than for the life of its process.
    fn is_of_a_job(&self) -> bool {
        self.age < JOB || self.times > 1
    }

    /// Whether the process goes on is not known yet.
    fn may_come_back(&self, now: Timestamp) -> bool {
        now.since(self.signal.at + self.group.span) < COMES_BACK
    }

    /// A client that is closed ends its monitors, too: these went on.
    const fn keeps_watching(&self) -> bool {
        self.group.monitors == 0 && self.group.monitors_left > 0
    }

    /// Nearly the whole pool was at work, rather than a request or two that an orderly stop did not wait for.
    const fn was_busy(&self) -> bool {
        let under_way = self.group.in_flight + self.still_busy;
        under_way >= 2 && under_way * 2 >= self.group.closed.saturating_sub(self.group.monitors)
    }

    /// Each of its sockets is a client's only one.
    fn is_php(&self, pools: &Pools) -> bool {
        let instance = self.signal.subject.instance;
        let instance = instance.and_then(|id| pools.instance(id));
        instance.is_some_and(Instance::is_php)
    }

    fn evidence(&self) -> Vec<Evidence> {
        let CloseGroup {
            closed,
            of,
            in_flight,
            requests_lost,
            commands_lost,
            monitors,
            has_said_goodbye,
            span,
            ..
        } = self.group;
        let at = self.signal.at;
        let mut all = vec![fact(
            at,
            *closed,
            format!(
                "{} ended {}{}{}",
                // Others of the instance went on.
                match self.signal.subject.mongo_client {
                    Some(_) => "one mongo client",
                    None => "the client",
                },
                match (closed, of) {
                    (1, 1) => "its only connection".to_owned(),
                    (closed, of) if closed == of => format!("all its {of} connections"),
                    (closed, of) => format!("{closed} of its {}", counted(*of, "connection")),
                },
                match closed {
                    1 => String::new(),
                    _ => format!(" within {}", within(*span)),
                },
                match monitors {
                    0 => String::new(),
                    1 => ", a monitor among them".to_owned(),
                    some => format!(", {some} monitors among them"),
                }
            ),
        )];
        if *in_flight > 0 {
            all.push(fact(
                at,
                *requests_lost,
                format!(
                    "{} {} unanswered on {in_flight} of them{}",
                    counted(*requests_lost, "request"),
                    if *requests_lost == 1 { "was" } else { "were" },
                    named(commands_lost)
                ),
            ));
        }
        if self.still_busy > 0 {
            all.push(fact(
                at,
                self.still_busy,
                "connections with a request under way were closed one by one as their requests ended",
            ));
        }
        if self.transactions > 0 {
            all.push(fact(at, self.transactions, "transactions were left open"));
        }
        all.push(note(
            at,
            if *has_said_goodbye {
                "it said goodbye (`endSessions`)"
            } else {
                "it did not say goodbye (no `endSessions`)"
            },
        ));
        all
    }

    fn opinion(
        &self,
        cause: Cause,
        confidence: f64,
        evidence: Vec<Evidence>,
        against: Vec<Evidence>,
    ) -> Opinion {
        let is_consequence = self.is_after_trouble || self.is_timed_out;
        let ceiling = if is_consequence {
            0.3
        } else if self.keeps_watching() {
            UNHARMED
        } else {
            0.95
        };
        let mut against = against;
        if self.keeps_watching() {
            against.push(fact(
                self.signal.at,
                self.group.monitors_left,
                "its monitors went on; a client that is closed ends them as well",
            ));
        }
        if self.is_timed_out {
            against.push(note(
                self.signal.at,
                "its connections were closed at one age, with requests unanswered: they timed out",
            ));
        }
        if self.is_after_trouble {
            against.push(note(
                self.signal.at,
                "the server or the network was in trouble just before, and drivers close connections then",
            ));
        }
        Opinion {
            cause,
            confidence: confidence.clamp(0.0, ceiling),
            evident_at: self.signal.at,
            evidence,
            against,
        }
    }
}

/// A process ended without closing anything.
pub(super) fn app_crash(case: &Case, pools: &Pools, now: Timestamp) -> Option<Opinion> {
    let farewell = farewell(case)?;
    if farewell.group.has_said_goodbye || !farewell.is_whole || farewell.still_busy > 0 {
        return None;
    }
    let at = farewell.signal.at;
    let mut evidence = farewell.evidence();
    let mut against = Vec::new();
    let is_service = farewell.age >= SERVICE && farewell.load > 0;
    // Several of PHP's are as many processes, each of which says goodbye when it is stopped.
    let is_php = farewell.is_php(pools);
    let are_processes = is_php && farewell.group.closed > 1;
    let is_more = farewell.load > 1
        || farewell.group.monitors > 0
        || are_processes
        || farewell.had_sessions && !is_php;
    let mut confidence: f64 = if farewell.group.in_flight > 0 {
        0.65
    } else if is_service && is_more {
        // It was at work until its last moment, and between two operations then. A driver that closes a client ends its
        // sessions.
        0.55
    } else {
        0.3
    };
    match farewell.is_alive {
        Some(true) => {
            confidence = 0.1;
            against.push(note(at, "the process lives on: other connections of it carry on, or new ones continue its request ids"));
        }
        Some(false) => {
            confidence += 0.25;
            if farewell.is_replaced {
                evidence.push(note(
                    at,
                    "a new process of the application came: its request ids begin anew",
                ));
            }
        }
        None if farewell.may_come_back(now) => {
            confidence = confidence.min(UNHARMED);
            against.push(note(at, "it may yet come back"));
        }
        None => {
            evidence.push(note(at, "nothing came from this process afterwards"));
        }
    }
    if farewell.is_of_a_job() {
        confidence -= 0.2;
        against.push(note(
            at,
            "its clients were made for a single job: their end is no sign that the process ended",
        ));
    }
    Some(farewell.opinion(Cause::AppCrash, confidence, evidence, against))
}

/// A process tore its pool down.
pub(super) fn pool_destroyed(case: &Case, pools: &Pools, now: Timestamp) -> Option<Opinion> {
    let farewell = farewell(case)?;
    if farewell.is_php(pools) {
        // It has neither pools nor a way to close a client.
        return None;
    }
    let at = farewell.signal.at;
    let is_sudden = !farewell.group.has_said_goodbye && farewell.is_whole;
    if !(farewell.left_work() || farewell.is_legacy && is_sudden && farewell.load > 0) {
        return None;
    }
    let mut evidence = farewell.evidence();
    let mut against = Vec::new();
    let mut confidence: f64 = if !farewell.left_work() {
        0.45
    } else if farewell.is_whole && farewell.was_busy() {
        0.55
    } else {
        0.4
    };
    match farewell.is_alive {
        Some(true) => {
            // Nothing but a close of the client ends its monitors with its pool.
            confidence += if farewell.group.monitors > 0 {
                0.38
            } else {
                0.3
            };
            evidence.push(note(
                at,
                "the process lives on: other connections of it carry on, or new ones continue its request ids",
            ));
        }
        Some(false) => {
            confidence = 0.15;
            against.push(note(
                at,
                "the process ended: a new one came in its place, or requests were cut that its driver's close waits for",
            ));
        }
        None if farewell.may_come_back(now) => confidence = confidence.min(UNHARMED),
        None => against.push(note(
            at,
            "nothing came from the process afterwards, as if it had ended",
        )),
    }
    if farewell.is_legacy {
        evidence.push(note(
            at,
            "its driver has the legacy pool, which `close(true)` ends in this way",
        ));
        if farewell.group.in_handshake > 0 {
            confidence += 0.15;
            evidence.push(fact(
                at,
                farewell.group.in_handshake,
                "its pool was growing, so that operations waited in its queue",
            ));
        }
    }
    if farewell.is_of_a_job() {
        confidence -= 0.25;
        against.push(note(
            at,
            "the client was made for a job and closed right after",
        ));
    }
    if farewell.left_work() && !farewell.lost_work() {
        confidence = confidence.min(UNHARMED);
    }
    Some(farewell.opinion(Cause::DriverPoolDestroyed, confidence, evidence, against))
}

/// A client was closed while operations that nobody waited for were under way.
pub(super) fn cleanup(case: &Case, _pools: &Pools, _at: Timestamp) -> Option<Opinion> {
    let farewell = farewell(case)?;
    if !farewell.left_work() {
        return None;
    }
    let at = farewell.signal.at;
    let mut evidence = farewell.evidence();
    let mut against = Vec::new();
    let mut confidence: f64 = 0.3;
    if farewell.group.has_said_goodbye {
        confidence += 0.2;
    } else {
        against.push(note(
            at,
            "it did not say goodbye, which an orderly close does when it has sessions to end",
        ));
    }
    if farewell.still_busy > 0 {
        confidence += 0.1;
    }
    if !farewell.was_busy() {
        confidence -= 0.15;
    }
    if farewell.is_of_a_job() {
        confidence += 0.3;
        evidence.push(fact(
            at,
            farewell.times,
            format!(
                "the client was {} old: made for a job and closed before it was done",
                length(farewell.age)
            ),
        ));
    }
    if farewell.is_alive == Some(false) {
        confidence -= 0.3;
        against.push(note(at, "the process ended, too"));
    }
    if !farewell.lost_work() {
        // A close that waits for what is under way looks the same until it has waited.
        confidence = confidence.min(UNHARMED);
        against.push(note(at, "nothing that was under way was cut off so far"));
    }
    Some(farewell.opinion(Cause::UnhandledAsyncCleanup, confidence, evidence, against))
}
