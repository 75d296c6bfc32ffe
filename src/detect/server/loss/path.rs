//! What was sent on a path, second by second, and whether it loses.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::super::thresholds::{
    LOSS_BY_CHANCE, LOSS_CHANCE, LOSS_OVER, LOSS_SECONDS_MIN, LOSS_SHARE_MIN, LOSS_WINDOW,
    LOSS_WINDOW_LONG, RESENT_BY_CHANCE, RESENT_MIN, RESENT_SHARE_MIN,
};
use crate::time::Timestamp;
use crate::timeline::ConnectionId;

/// Where a path begins to lose, the share of what is lost rises by this at least.
const DENSER: f64 = 1.5;

/// Connections that are told apart in an episode.
const CONNECTIONS_MAX: usize = 512;

/// What was sent to one side of an upstream.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// The newest last; no more than the long window has.
    seconds: VecDeque<Second>,
    pub(super) episode: Option<Episode>,
    /// When something was found to be sent again last.
    resent_at: Timestamp,
    is_news: bool,
}

#[derive(Debug, Default)]
struct Second {
    number: u64,
    /// When the first that was lost in it was noticed.
    first_at: Option<Timestamp>,
    traffic: Traffic,
    connections: BTreeSet<ConnectionId>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    /// Sent again.
    pub(super) resent: u64,
    /// Of those, what the other side did not have already.
    pub(super) lost: u64,
}

#[derive(Debug, Default)]
pub(super) struct Episode {
    pub(super) began_at: Timestamp,
    pub(super) traffic: Traffic,
    pub(super) connections: BTreeSet<ConnectionId>,
}

impl Path {
    /// So much was sent, as a sample of `at` tells.
    pub(super) fn sent(&mut self, at: Timestamp, count: u64) {
        let traffic = Traffic {
            sent: count,
            ..Traffic::default()
        };
        self.second(at).traffic.add(traffic);
        if let Some(episode) = &mut self.episode {
            episode.traffic.add(traffic);
        }
    }

    /// So much was sent again, and went on.
    pub(super) fn resent(
        &mut self,
        at: Timestamp,
        noticed_at: Timestamp,
        traffic: Traffic,
        id: ConnectionId,
    ) {
        let second = self.second(at);
        second.traffic.add(traffic);
        second.first_at.get_or_insert(noticed_at);
        if second.connections.len() < CONNECTIONS_MAX {
            second.connections.insert(id);
        }
        if let Some(episode) = &mut self.episode {
            episode.traffic.add(traffic);
            if episode.connections.len() < CONNECTIONS_MAX {
                episode.connections.insert(id);
            }
        }
        self.resent_at = at;
        self.is_news = true;
    }

    fn second(&mut self, at: Timestamp) -> &mut Second {
        let number = second_of(at);
        let is_new = self.seconds.back().is_none_or(|last| last.number < number);
        if is_new {
            let oldest = number.saturating_sub(LOSS_WINDOW_LONG.as_secs());
            self.seconds.retain(|second| second.number >= oldest);
            self.seconds.push_back(Second {
                number,
                ..Second::default()
            });
        }
        let newest = self.seconds.len() - 1;
        &mut self.seconds[newest]
    }

    /// Looks whether it is lossy; returns whether something new is known of it.
    pub(super) fn look(&mut self, at: Timestamp) -> bool {
        if self.episode.is_some() && at.since(self.resent_at) > LOSS_OVER {
            // What it was made of must not begin another.
            *self = Self::default();
        }
        let is_news = std::mem::take(&mut self.is_news);
        if is_news && self.episode.is_none() {
            self.episode = [LOSS_WINDOW, LOSS_WINDOW_LONG]
                .into_iter()
                .find_map(|window| self.lossy(window, at))
                .or_else(|| self.lossy_since(at));
        }
        is_news && self.episode.is_some()
    }

    /// An episode, where enough was lost within a window that ends at `at`.
    fn lossy(&self, window: Duration, at: Timestamp) -> Option<Episode> {
        let all = self.within(window, at);
        (is_spread(&all) && traffic(&all).is_lossy()).then(|| episode(&all))?
    }

    /// The same from any second of the short window on: what was sent before it began to lose says nothing of it. There
    /// are as many chances of an accident as beginnings, so each may have so much less.
    fn lossy_since(&self, at: Timestamp) -> Option<Episode> {
        let all = self.within(LOSS_WINDOW, at);
        let chance = LOSS_CHANCE / LOSS_WINDOW.as_secs_f64();
        let mut rests = (0..all.len()).map(|position| &all[position..]);
        episode(rests.find(|rest| is_spread(rest) && traffic(rest).is_lost(chance))?)
    }

    fn within(&self, window: Duration, at: Timestamp) -> Vec<&Second> {
        let oldest = second_of(at).saturating_sub(window.as_secs());
        let seconds = self.seconds.iter();
        seconds.filter(|second| second.number >= oldest).collect()
    }
}

fn second_of(at: Timestamp) -> u64 {
    at.as_millis() / 1000
}

/// In several seconds something was lost.
fn is_spread(seconds: &[&Second]) -> bool {
    let lossy = seconds.iter().filter(|second| second.first_at.is_some());
    lossy.count() >= LOSS_SECONDS_MIN
}

fn traffic(seconds: &[&Second]) -> Traffic {
    let mut sum = Traffic::default();
    for second in seconds {
        sum.add(second.traffic);
    }
    sum
}

/// What is lost in `all`, without what was lost long before and is another story: it began where leaving out more would
/// not make it denser.
fn episode(all: &[&Second]) -> Option<Episode> {
    let mut from = all;
    let mut whole = traffic(from).resent_share();
    for (position, first) in all.iter().enumerate() {
        let rest = &all[position..];
        let share = traffic(rest).resent_share();
        if first.first_at.is_some() && is_spread(rest) && share >= whole * DENSER {
            (from, whole) = (rest, share);
        }
    }
    let connections = from.iter().flat_map(|second| &second.connections);
    Some(Episode {
        began_at: from.iter().find_map(|second| second.first_at)?,
        traffic: traffic(from),
        connections: connections.copied().collect(),
    })
}

impl Traffic {
    pub(super) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.resent += other.resent;
        self.lost += other.lost;
    }

    fn resent_share(self) -> f64 {
        float(self.resent) / float(self.sent.max(1))
    }

    /// So much is lost, and chance does not explain it.
    fn is_lossy(self) -> bool {
        // Acknowledgements that are lost make the other side say that it had everything; so do hosts without processor
        // time, but not so often.
        let is_resent = self.resent >= RESENT_MIN
            && is_share(self.resent, self.sent, RESENT_SHARE_MIN)
            && !self.is_chance(self.resent, RESENT_BY_CHANCE, LOSS_CHANCE);
        self.is_lost(LOSS_CHANCE) || is_resent
    }

    /// What did not arrive alone says so; an accident of it is less probable than `chance`.
    fn is_lost(self, chance: f64) -> bool {
        is_share(self.lost, self.sent, LOSS_SHARE_MIN)
            && !self.is_chance(self.lost, LOSS_BY_CHANCE, chance)
    }

    /// Whether `count` of those sent may well be an accident where a share of `usual` is: the tail of a Poisson
    /// distribution, λᵏ/k!, which bounds it where k is well above λ.
    fn is_chance(self, count: u64, usual: f64, least: f64) -> bool {
        let expected = float(self.sent) * usual;
        let mut chance = 1.0;
        for position in 1..=count {
            chance *= expected / float(position);
            if chance < least && float(position) > expected {
                return false;
            }
        }
        true
    }
}

fn is_share(count: u64, of: u64, least: f64) -> bool {
    count > 0 && float(count) >= float(of) * least
}

#[expect(clippy::cast_precision_loss, reason = "counts of segments")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In which second after ten without loss it is told that a path loses, to which 300 segments are sent a second, and
    /// so many of them again that had not arrived.
    #[track_caller]
    fn check(lost: &[u64], expected: Option<u64>) {
        let start = Timestamp::default() + Duration::from_hours(500_000);
        let mut path = Path::default();
        let mut told = (1..)
            .zip([0; 10].iter().chain(lost))
            .filter_map(|(second, lost)| {
                let at = start + Duration::from_secs(second);
                path.sent(at, 300);
                let traffic = Traffic {
                    sent: 0,
                    resent: *lost,
                    lost: *lost,
                };
                if *lost > 0 {
                    path.resent(at, at, traffic, ConnectionId(1));
                }
                path.look(at + Duration::from_millis(250)).then_some(second)
            });
        let told = told.next().map(|second| second - 10);
        assert_eq!(told, expected, "{lost:?}");
    }

    #[test]
    fn what_was_sent_before_a_path_began_to_lose_does_not_hide_it() {
        check(&[6; 6], Some(3));
        check(&[4; 6], Some(5));
        check(&[0, 0, 6, 6, 6], Some(5));
    }

    #[test]
    fn chance_has_as_many_beginnings_as_are_looked_at() {
        check(&[1; 12], None);
        check(&[3, 3, 2], None);
        check(&[3, 3, 3], None);
        check(&[18, 0, 0, 0, 0], None);
        check(&[9, 9, 0, 0, 0], None);
    }
}
