//! What a reader would suspect besides, and what was seen that rules it out.
//!
//! Rules have an opinion where their own signs are there. A neighbour of the first cause that has none of its own signs
//! shares its symptoms all the same; it is named with what speaks against it in the case at hand, or not at all.
//!
//! **Invariant:** a suspect is never as sure as an incident needs, so that it is never first.

use super::super::{Case, Cause, Evidence};
use super::Opinion;
use super::facts::{
    clients_stayed, clients_unreached, closed_in_order, credentials_refused, cut_by_reset,
    cut_in_use, ended_at_an_age, ended_by_client, ended_from_afar, greeted, hardly_resent,
    hellos_unanswered, hung_at_use, left_after_refusal, logins_accepted, no_goodbye,
    no_shutdown_said, no_step_down_said, nobody_greeted, nobody_refused, nothing_afterwards,
    of_one_instance, others_are_back, paths_are_slow, put_to_use, refused, refused_after_hello,
    restarted, round_trips, shutdown_said, stayed_open, step_down_said, turned_away,
    unacknowledged, was_troubled, watched, went_on,
};
use super::seen::Seen;
use crate::pools::Pools;

/// How sure a suspect would be of which nothing was seen but the symptom that it shares; each fact against it takes
/// its part.
const SHARES_A_SYMPTOM: f64 = 0.15;

/// What suspects are judged by.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) case: &'a Case,
    pub(super) pools: &'a Pools,
    pub(super) seen: Seen,
}

/// Something that was seen, or `None`.
type Fact = fn(&Scene<'_>) -> Option<Evidence>;

/// A cause that a reader would suspect, and what may speak against it.
type Suspect = (Cause, &'static [Fact]);

/// Those a reader would suspect where this is the cause.
const fn suspects(first: Cause) -> &'static [Suspect] {
    use Cause as C;
    match first {
        C::ServerCrash => &[
            (C::NetworkReset, &[refused, restarted, nobody_greeted]),
            (C::ServerShutdown, &[no_shutdown_said]),
        ],
        C::ServerShutdown => &[
            (C::ServerCrash, &[shutdown_said, went_on]),
            (C::Failover, &[no_step_down_said]),
            (C::NetworkReset, &[shutdown_said, refused]),
        ],
        C::Failover => &[
            (C::ServerCrash, &[went_on, greeted]),
            (C::ServerShutdown, &[no_shutdown_said]),
            (C::NetworkReset, &[step_down_said, went_on]),
        ],
        C::ServerFreeze => &[
            (C::ServerCrash, &[stayed_open]),
            (C::SlowOperations, &[hellos_unanswered]),
        ],
        C::ServerClosing => &[
            (C::NetworkReset, &[closed_in_order, went_on]),
            (C::PoolCapacity, &[cut_in_use]),
        ],
        C::NetworkReset => &[
            (C::ServerCrash, &[greeted, went_on]),
            (C::ServerClosing, &[cut_by_reset]),
            (C::AppCrash, &[greeted]),
        ],
        C::NetworkBlackhole => &[
            (C::AppCrash, &[clients_stayed]),
            (C::ServerFreeze, &[clients_unreached, unacknowledged]),
            (C::ServerCrash, &[stayed_open]),
        ],
        C::NetworkLoss => &[
            (C::ServerFreeze, &[went_on, greeted]),
            (C::NetworkBlackhole, &[went_on, greeted]),
            (C::NetworkLatency, &[round_trips]),
        ],
        C::NetworkLatency => &[
            (C::NetworkLoss, &[hardly_resent]),
            (C::ServerFreeze, &[went_on, greeted]),
            (C::SlowOperations, &[paths_are_slow]),
        ],
        C::IdleCutoff => &[
            (C::NetworkReset, &[went_on, ended_at_an_age]),
            (C::ServerCrash, &[went_on, greeted]),
            (C::IdleRecycling, &[ended_from_afar, hung_at_use]),
        ],
        C::SocketTimeout => &[
            (C::ServerFreeze, &[went_on, greeted]),
            (C::NetworkBlackhole, &[went_on, greeted, hardly_resent]),
            (C::ServerCrash, &[ended_by_client, went_on]),
        ],
        C::DriverPoolDestroyed | C::UnhandledAsyncCleanup => &[
            (C::ServerCrash, &[ended_by_client, went_on, greeted]),
            (C::NetworkReset, &[ended_by_client]),
        ],
        C::AppCrash => &[
            (C::DriverPoolDestroyed, &[nothing_afterwards]),
            (C::ServerCrash, &[ended_by_client, went_on, greeted]),
            (C::Deploy, &[no_goodbye]),
        ],
        C::ClientPerRequest => &[
            (C::ReconnectStorm, &[put_to_use]),
            (C::PoolCapacity, &[greeted]),
            (C::ScaleOut, &[of_one_instance]),
        ],
        C::ReconnectStorm => &[
            (C::PoolCapacity, &[greeted]),
            (C::AuthFailures, &[logins_accepted, nobody_refused]),
            (C::ServerCrash, &[greeted, went_on]),
        ],
        C::PoolCapacity => &[
            (C::ServerCrash, &[went_on]),
            (C::ServerShutdown, &[no_shutdown_said, went_on]),
            (C::ServerClosing, &[turned_away]),
        ],
        C::SlowOperations => &[
            (C::NetworkLatency, &[round_trips, greeted]),
            (C::NetworkLoss, &[hardly_resent]),
            (C::ServerFreeze, &[watched, went_on, greeted]),
        ],
        C::AuthFailures => &[
            (C::PoolCapacity, &[refused_after_hello]),
            (C::ServerClosing, &[left_after_refusal]),
            (C::NetworkReset, &[credentials_refused]),
        ],
        C::WedgedClient => &[
            (C::AppCrash, &[was_troubled]),
            (C::ServerCrash, &[others_are_back, went_on, greeted]),
        ],
        C::Deploy | C::ScaleOut | C::IdleRecycling | C::HealthChecks | C::Unknown => &[],
    }
}

/// Adds what is suspected besides to opinions, the best first; their order stays. What makes it worse is no suspect.
pub(in super::super) fn suspect(
    opinions: &mut Vec<Opinion>,
    worse: &[Opinion],
    case: &Case,
    pools: &Pools,
) {
    let Some(first) = opinions.first().cloned() else {
        return;
    };
    let scene = Scene {
        case,
        pools,
        seen: Seen::of(case, pools, case.upstream(), case.began_at()),
    };
    for (cause, facts) in suspects(first.cause) {
        if worse.iter().any(|other| other.cause == *cause) {
            continue;
        }
        let found: Vec<Evidence> = facts.iter().filter_map(|fact| fact(&scene)).collect();
        if let Some(known) = opinions.iter_mut().find(|known| known.cause == *cause) {
            if known.against.is_empty() {
                known.against = found;
            }
        } else if !found.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "a handful of facts")]
            let confidence = SHARES_A_SYMPTOM / (1 + found.len()) as f64;
            let suspect = Opinion {
                cause: *cause,
                confidence,
                evident_at: first.evident_at,
                evidence: first.evidence.iter().take(1).cloned().collect(),
                against: found,
            };
            let place = 1 + opinions
                .iter()
                .skip(1)
                .take_while(|other| other.confidence >= confidence)
                .count();
            opinions.insert(place, suspect);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity;
    use super::*;

    #[test]
    fn every_alarm_that_is_understood_has_neighbours_and_is_none_of_its_own() {
        for cause in Cause::ALL {
            let is_alarm = cause.severity() > Severity::Info && *cause != Cause::Unknown;
            let neighbours = suspects(*cause);
            assert_eq!(!neighbours.is_empty(), is_alarm, "{cause:?}");
            assert!(neighbours.iter().all(|(other, _)| other != cause));
            assert!(neighbours.iter().all(|(_, facts)| !facts.is_empty()));
        }
    }
}
