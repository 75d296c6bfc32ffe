//! Processes behind one address, told apart by how they count requests.
//!
//! A driver that counts for its whole process sends rising ids, whatever mongo client sends them. Of several processes
//! it is the one that had counted nearest below that opened a connection; an id that none of them can have counted began
//! another.

use std::collections::VecDeque;
use std::time::Duration;

use super::numbering::Introduction;
use crate::time::Timestamp;

/// Processes of one instance that are told apart.
pub(crate) const PROCESSES_MAX: usize = 64;

/// Introductions of one process that others are compared with.
const COMPARED_MAX: usize = 16;

/// A process whose client is growing opens one connection after the other within this time, and counts no further than
/// [`STEP_MAX`] meanwhile. How far another has counted is known a second late, unless handshakes have a count of their
/// own.
const GROWING: Duration = Duration::from_millis(100);
const STEP_MAX: u32 = 16;

/// Handshakes that are read in any order may leave so many out for a moment.
const OUT_OF_ORDER_MAX: u32 = 8;

/// A process's number among those of its instance, rising in order of first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(u64);

/// They are known to be two.
pub(crate) fn are_apart(one: Option<ProcessId>, other: Option<ProcessId>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// The processes of one instance.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    known: Vec<Process>,
    started: u64,
}

#[derive(Debug)]
struct Process {
    id: ProcessId,
    /// One of the first messages of its life was among its introductions.
    has_begun: bool,
    /// The newest last.
    introductions: VecDeque<Introduction>,
    /// How far it has counted.
    count: i32,
    /// Numbers since its first introduction that were none of its introductions.
    unseen: u32,
    counted_at: Timestamp,
}

impl Processes {
    /// A connection was introduced. Says by which process.
    pub(crate) fn introduced(&mut self, introduction: Introduction) -> ProcessId {
        let at = introduction.at;
        // Of what a server at its limit turned away, nothing was read.
        let mut growing = self.known.iter().filter(|process| process.is_growing(at));
        let is_each_seen = introduction.is_counted_apart
            && growing.all(|process| process.unseen <= OUT_OF_ORDER_MAX);
        let likely = self
            .known
            .iter_mut()
            .filter(|process| process.may_have_counted(introduction))
            .min_by_key(|process| {
                let distance = process.count.abs_diff(introduction.request_id);
                let is_likelier = is_each_seen || (process.is_growing(at) && distance <= STEP_MAX);
                (!is_likelier, distance, process.turn(at))
            });
        if let Some(process) = likely {
            if process.introductions.len() >= COMPARED_MAX {
                process.introductions.pop_front();
            }
            process.introductions.push_back(introduction);
            process.unseen = process.unseen_after(introduction.request_id);
            process.has_begun |= introduction.begins_process();
            process.counted(introduction.request_id, at);
            return process.id;
        }
        self.started += 1;
        let id = ProcessId(self.started);
        let fresh = Process {
            id,
            has_begun: introduction.begins_process(),
            introductions: VecDeque::from([introduction]),
            count: introduction.request_id,
            unseen: 0,
            counted_at: at,
        };
        if self.known.len() < PROCESSES_MAX {
            self.known.push(fresh);
        } else if let Some(quietest) = self.known.iter_mut().min_by_key(|one| one.counted_at) {
            *quietest = fresh;
        }
        id
    }

    /// It was seen to begin: it is none that was made up because another's ids came in an unlikely order.
    pub(crate) fn has_begun(&self, process: ProcessId) -> bool {
        let mut known = self.known.iter();
        known.any(|one| one.id == process && one.has_begun)
    }

    /// A connection of a process has sent a request with this id.
    pub(crate) fn counted(&mut self, process: ProcessId, request_id: i32, at: Timestamp) {
        let mut known = self.known.iter_mut();
        if let Some(process) = known.find(|one| one.id == process) {
            process.counted(request_id, at);
        }
    }
}

impl Process {
    fn may_have_counted(&self, introduction: Introduction) -> bool {
        // The newest first: one of thousands of processes that come and go is told apart by it.
        let mut own = self.introductions.iter().rev();
        own.all(|own| own.may_be_counted_with(&introduction))
    }

    /// It counted a moment ago.
    fn is_growing(&self, at: Timestamp) -> bool {
        at.since(self.counted_at) <= GROWING
    }

    /// Of several that may go on with the same number one that is growing comes first, as it dials without a pause. None
    /// is: then it is the turn of whoever has been quiet for longest, as half a second lies between the checks of each
    /// (Server Discovery and Monitoring specification § minHeartbeatFrequencyMS).
    fn turn(&self, at: Timestamp) -> Duration {
        let quiet = at.since(self.counted_at);
        if self.is_growing(at) {
            quiet
        } else {
            Duration::MAX.saturating_sub(quiet)
        }
    }

    fn unseen_after(&self, request_id: i32) -> u32 {
        let distance = self.count.abs_diff(request_id);
        if request_id > self.count {
            self.unseen.saturating_add(distance.saturating_sub(1))
        } else {
            self.unseen.saturating_sub(1)
        }
    }

    fn counted(&mut self, request_id: i32, at: Timestamp) {
        self.count = self.count.max(request_id);
        self.counted_at = self.counted_at.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(millis: u64, request_id: i32) -> Introduction {
        let at = Timestamp::default() + Duration::from_millis(millis);
        Introduction {
            at: at + Duration::from_millis(2),
            opened_at: at,
            request_id,
            is_counted_apart: false,
        }
    }

    /// The same of a driver whose handshakes have a count of their own.
    fn told_apart(millis: u64, request_id: i32) -> Introduction {
        Introduction {
            is_counted_apart: true,
            ..told(millis, request_id)
        }
    }

    #[test]
    fn processes_are_told_apart_by_what_they_count() {
        let mut processes = Processes::default();
        let mut introduced = |millis, request_id| processes.introduced(told(millis, request_id));
        let old = introduced(1_000, 2);
        assert_eq!(introduced(1_003, 1), old, "two threads, read in any order");
        assert_eq!(introduced(1_040, 9), old);
        let new = introduced(1_100, 1);
        assert_ne!(new, old);
        assert_eq!(introduced(1_102, 14), old);
        assert_eq!(introduced(1_103, 4), new);
        assert_eq!(introduced(1_180, 11), new, "the old one is beyond that");
        assert_eq!(introduced(1_190, 17), old);
    }

    #[test]
    fn a_process_that_grows_goes_before_one_that_had_counted_nearer() {
        let mut processes = Processes::default();
        let mut introduced = |millis, request_id| processes.introduced(told(millis, request_id));
        // Its hundred operations since are not known yet.
        let old = [(1_000, 1), (1_012, 2), (1_020, 4), (1_023, 7)];
        let old = old.map(|(millis, request_id)| introduced(millis, request_id));
        let new = [(1_363, 1), (1_398, 2), (1_417, 5), (1_422, 8)];
        let new = new.map(|(millis, request_id)| introduced(millis, request_id));
        assert!(old.iter().all(|one| *one == old[0]));
        assert!(new.iter().all(|one| *one == new[0] && *one != old[0]));
    }

    #[test]
    fn of_handshakes_with_a_count_of_their_own_the_next_number_tells_the_process() {
        let mut processes = Processes::default();
        let mut introduced =
            |millis, request_id| processes.introduced(told_apart(millis, request_id));
        let old = [(1_000, 1), (1_010, 2), (1_020, 3), (1_030, 4)];
        let old = old.map(|(millis, request_id)| introduced(millis, request_id));
        let new = [(1_500, 1), (1_550, 2)].map(|(millis, id)| introduced(millis, id));
        assert_ne!(new[0], old[0]);
        // It opens one more while the other one grows.
        assert_eq!(introduced(1_560, 5), old[0]);
        assert_eq!(introduced(1_570, 3), new[0]);
        // A server at its limit turned away what was in between: now the one that grows is as likely.
        assert_eq!(introduced(2_000, 6), old[0]);
        assert_eq!(introduced(2_100, 23), old[0], "as far as one can tell");
        assert_eq!(introduced(2_110, 4), new[0]);
        assert_eq!(introduced(2_120, 5), new[0]);
    }

    #[test]
    fn of_processes_that_have_counted_as_far_it_is_the_turn_of_the_quietest() {
        let mut processes = Processes::default();
        let mut introduced =
            |millis, request_id| processes.introduced(told_apart(millis, request_id));
        // Two pools of three, one filled half a second after the other; a server at its limit turns some away, and each
        // client checks it again half a second later.
        let one = [(1_000, 1), (1_020, 2), (1_020, 3), (1_021, 4)];
        let one = one.map(|(millis, request_id)| introduced(millis, request_id));
        let other = [(1_450, 1), (1_470, 2), (1_470, 3), (1_471, 4)];
        let other = other.map(|(millis, request_id)| introduced(millis, request_id));
        assert_ne!(one[0], other[0]);
        assert_eq!(introduced(1_600, 5), one[0]);
        assert_eq!(introduced(1_610, 6), one[0]);
        assert_eq!(introduced(2_050, 5), other[0]);
        // The one that is filling its pool goes on.
        assert_eq!(introduced(2_060, 6), other[0]);
        assert_eq!(introduced(2_065, 7), other[0]);
    }

    #[test]
    fn processes_that_start_together_and_count_in_step_are_two() {
        let mut processes = Processes::default();
        let mut introduced = |millis, request_id| processes.introduced(told(millis, request_id));
        let one = introduced(1_000, 1);
        assert_eq!(introduced(1_000, 2), one);
        assert_eq!(introduced(1_004, 4), one);
        let other = introduced(1_007, 1);
        assert_ne!(one, other);
        assert_eq!(introduced(1_007, 2), other);
        assert_eq!(introduced(1_011, 5), one);
        assert_eq!(introduced(1_013, 4), other);
        assert_eq!(introduced(1_013, 5), other);
    }

    #[test]
    fn a_process_counts_operations_between_its_introductions() {
        let mut processes = Processes::default();
        let busy = processes.introduced(told(1_000, 1));
        let idle = processes.introduced(told(2_000, 1));
        let later = Timestamp::default() + Duration::from_secs(9);
        processes.counted(busy, 90_000, later);
        processes.counted(idle, 50, later);
        assert_eq!(processes.introduced(told(9_500, 60)), idle);
        assert_eq!(processes.introduced(told(9_600, 91_000)), busy);
    }

    #[test]
    fn processes_that_come_and_go_take_bounded_room() {
        let mut processes = Processes::default();
        for round in 0..1_000 {
            processes.introduced(told(1_000 * (round + 1), 1));
        }
        assert_eq!(processes.known.len(), PROCESSES_MAX);
        assert_eq!(processes.introduced(told(1_000_100, 5)), ProcessId(1_000));
    }
}
