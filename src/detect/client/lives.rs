//! Which connections are one process's, as far as request ids tell.
//!
//! A process that counts its ids goes on where it stood; one that began anew begins with the first. Several processes
//! behind one address count each for itself: what another of them may have opened tells nothing.

use std::collections::BTreeSet;

use crate::pools::{Connection, Numbering};

/// Operations of the others that make a difference to a count.
const TELLING: u64 = 20;

/// How far a process has counted, as the connections that one client closed tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trail {
    numbering: Numbering,
    /// Highest id that compares with those of first messages.
    newest: i32,
}

/// The highest id of a connection that compares with those of first messages.
fn newest(connection: &Connection) -> Option<i32> {
    let first = connection.first_request_id?;
    Some(match connection.numbering {
        Numbering::Counted => first.max(connection.last.request_id),
        Numbering::CountedApart | Numbering::Drawn | Numbering::Dials | Numbering::Unknown => first,
    })
}

impl Trail {
    /// That of connections of one process.
    pub(super) fn of<'a>(connections: impl Iterator<Item = &'a Connection>) -> Option<Self> {
        let mut trail: Option<Self> = None;
        for connection in connections {
            let Some(newest) = newest(connection) else {
                continue;
            };
            let trail = trail.get_or_insert(Self {
                numbering: connection.numbering,
                newest,
            });
            if trail.numbering == connection.numbering {
                trail.newest = trail.newest.max(newest);
            }
        }
        trail
    }

    /// Whether `fresh`, opened since, shows that the process goes on, rather than that another began in its place;
    /// `others` are open connections beside it that are older.
    pub(super) fn goes_on<'a>(
        self,
        fresh: &Connection,
        others: impl Iterator<Item = &'a Connection>,
    ) -> Option<bool> {
        let id = fresh.first_request_id?;
        if fresh.numbering != self.numbering {
            return None;
        }
        if self.numbering.shows_earlier_dial(id) {
            return Some(true);
        }
        let begins = self.numbering.begins_process(id);
        let mut rivals = others.filter(|other| other.numbering == self.numbering);
        if !self.numbering.is_counted() {
            let is_alone = self.numbering == Numbering::Drawn && rivals.next().is_none();
            return (begins || is_alone).then_some(!begins);
        }
        // The process that counted nearest below it opened it.
        let rival = rivals.filter_map(newest).filter(|rival| *rival < id).max();
        let goes_on = id > self.newest;
        let is_anothers = if goes_on {
            rival.is_some_and(|rival| rival >= self.newest)
        } else {
            rival.is_some()
        };
        (!is_anothers).then_some(goes_on)
    }
}

/// Whether connections that a client closed and others, which are open, were one process's. `None`: cannot be told.
///
/// One process numbers the requests of all, in the order of time, so that its count is the sum of them.
pub(super) fn are_one_process(
    closed: &[&Connection],
    others: &[&Connection],
    operations_closed: u64,
    operations_others: u64,
) -> Option<bool> {
    let closed: Vec<&Connection> = with_requests(closed);
    let numbering = closed.first()?.numbering;
    let others: Vec<&Connection> = with_requests(others)
        .into_iter()
        .filter(|other| other.numbering == numbering)
        .collect();
    if others.is_empty() || !numbering.is_counted() {
        return None;
    }
    let is_out_of_order = closed.iter().any(|one| {
        others.iter().any(|other| {
            let order = one.last.from_client_at.cmp(&other.last.from_client_at);
            order.is_ne() && order != one.last.request_id.cmp(&other.last.request_id)
        })
    });
    if is_out_of_order {
        return Some(false);
    }
    let count = closed.iter().map(|one| one.last.request_id).max()?;
    let count = u64::try_from(count).ok()?;
    if operations_others < TELLING {
        // It did next to nothing by itself: what it numbered higher than that, others counted.
        let highest = others.iter().map(|one| one.last.request_id).max()?;
        let highest = u64::try_from(highest).ok()?;
        return (highest > operations_others * 2 + TELLING).then_some(true);
    }
    let alone = count.abs_diff(operations_closed);
    let together = count.abs_diff(operations_closed + operations_others);
    if together * 2 < alone {
        Some(true)
    } else if alone * 2 < together {
        Some(false)
    } else {
        None
    }
}

/// Those whose newest request is an ordinary one, so that their ids are of one count.
fn with_requests<'a>(connections: &[&'a Connection]) -> Vec<&'a Connection> {
    connections
        .iter()
        .filter(|connection| connection.last.operations > 0)
        .copied()
        .collect()
}

/// Which of an instance's clients, the oldest first, one process may have made; each by how its driver numbers, and
/// its lowest id. Ids of one process rise from client to client, or are drawn and hardly ever repeat; short-lived
/// processes begin anew, and draw the same.
pub(super) fn of_one_process(clients: &[Option<(Numbering, i32)>]) -> Vec<bool> {
    let rising = longest_rise(clients);
    let mut drawn = BTreeSet::new();
    clients
        .iter()
        .zip(rising)
        .map(|(client, rises)| match client {
            Some((Numbering::Counted | Numbering::CountedApart, _)) => rises,
            Some((Numbering::Drawn, id)) => drawn.insert(*id),
            Some((Numbering::Dials | Numbering::Unknown, _)) | None => true,
        })
        .collect()
}

/// The members of the longest strictly rising series among counted ids.
fn longest_rise(clients: &[Option<(Numbering, i32)>]) -> Vec<bool> {
    // By length less one: the position of the lowest id that ends a rise of that length.
    let mut ends: Vec<(i32, usize)> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; clients.len()];
    for (position, client) in clients.iter().enumerate() {
        let Some((_, id)) = client.filter(|(numbering, _)| numbering.is_counted()) else {
            continue;
        };
        let length = ends.partition_point(|(end, _)| *end < id);
        if let Some(place) = before.get_mut(position) {
            *place = length
                .checked_sub(1)
                .and_then(|shorter| ends.get(shorter))
                .map(|(_, at)| *at);
        }
        match ends.get_mut(length) {
            Some(end) => *end = (id, position),
            None => ends.push((id, position)),
        }
    }
    let mut is_member = vec![false; clients.len()];
    let mut next = ends.last().map(|(_, at)| *at);
    while let Some(at) = next {
        if let Some(member) = is_member.get_mut(at) {
            *member = true;
        }
        next = before.get(at).copied().flatten();
    }
    is_member
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(ids: &[i32]) -> Vec<Option<(Numbering, i32)>> {
        ids.iter()
            .map(|id| Some((Numbering::Counted, *id)))
            .collect()
    }

    #[test]
    fn clients_with_rising_ids_are_one_process() {
        assert_eq!(of_one_process(&counted(&[1, 5, 9, 13])), [true; 4]);
    }

    #[test]
    fn processes_that_begin_anew_are_not_one() {
        let alike = of_one_process(&counted(&[2, 2, 1, 2]));
        assert_eq!(alike.iter().filter(|is_of_one| **is_of_one).count(), 2);
        let scripts = of_one_process(&counted(&[2; 12]));
        assert_eq!(scripts.iter().filter(|is_of_one| **is_of_one).count(), 1);
    }

    #[test]
    fn a_process_that_leaks_is_found_beside_others() {
        let mixed = of_one_process(&counted(&[1, 4, 1, 7, 2, 10, 13]));
        assert!(mixed.iter().filter(|is_of_one| **is_of_one).count() >= 5);
    }

    #[test]
    fn each_process_of_pymongo_begins_with_the_same_draw() {
        let first = Some((Numbering::Drawn, 1_804_289_383));
        let later = |id| Some((Numbering::Drawn, id));
        assert_eq!(of_one_process(&[first, first, first]), [true, false, false]);
        assert_eq!(of_one_process(&[first, later(7), later(9)]), [true; 3]);
        assert_eq!(of_one_process(&[None, None]), [true; 2]);
    }
}
