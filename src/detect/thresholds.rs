//! Every number that a detector compares with, its unit and its reason, in one place.
//!
//! Counts are small on purpose: a pool of three connections is as real as one of three hundred. What a small count
//! cannot prove, a rule must not believe without other evidence.

use std::time::Duration;

// --- ends of connections ---

/// Ends of connections that one event caused follow each other within this: a killed process, a reset path and a
/// dying pool all need less than 100 ms, a busy machine somewhat more.
pub(super) const BURST_GAP: Duration = Duration::from_millis(400);

/// A burst is told once it is this old, when most of it is there, and again when it grows.
pub(super) const BURST_TOLD_AFTER: Duration = Duration::from_millis(150);

/// A share of an instance's connections that must end by a reset for the path to be suspected: a process that dies
/// resets only those with unread bytes.
pub(super) const RESET_SHARE: f64 = 0.8;

// --- dials and handshakes ---

/// Failures further apart are different episodes: drivers dial at least every 10 s.
pub(super) const DIALS_GAP: Duration = Duration::from_secs(12);

/// Connections turned away before their hello was answered, within [`TURNED_AWAY_WINDOW`], that are no accident.
pub(super) const TURNED_AWAY_MIN: u64 = 3;

/// Drivers retry a refused handshake at once, or with the next operation.
pub(super) const TURNED_AWAY_WINDOW: Duration = Duration::from_secs(10);

/// A first hello takes milliseconds: mongod answers it without a lock.
pub(super) const HANDSHAKE_LATE: Duration = Duration::from_millis(1500);

// --- what the server says ---

/// Error replies further apart are different episodes.
pub(super) const ERRORS_GAP: Duration = Duration::from_secs(10);

/// Attempts to log in come with each try of a driver, which backs off up to 10 s and waits for a next operation.
pub(super) const AUTHENTICATION_GAP: Duration = Duration::from_secs(30);

// --- silence ---

/// No byte from a server on any connection while requests wait for it: longer than a pause of a garbage collector or
/// a checkpoint, shorter than the shortest time-outs in use (2 s).
pub(super) const SILENCE: Duration = Duration::from_millis(1500);

/// Counters are told once a second, and what did not change is not told: what is known is at least this old.
pub(super) const SAMPLE_AGE: Duration = Duration::from_millis(1100);

/// A request counts as unanswered only when it waits for so many times what its connection is used to: an awaiting
/// `getMore` waits by nature.
pub(super) const USUAL_FACTOR: u32 = 4;

/// A streaming monitor hears from its server every heartbeat; this much later it is silent.
pub(super) const HEARTBEAT_LATE: Duration = Duration::from_millis(1500);

/// A hello that took longer than this was held up.
pub(super) const HELLO_LATE: Duration = Duration::from_secs(1);

// --- network ---

/// Lost segments are compared with those sent over this long.
pub(super) const LOSS_WINDOW: Duration = Duration::from_secs(10);

/// And, where little is sent, over this long.
pub(super) const LOSS_WINDOW_LONG: Duration = Duration::from_mins(1);

/// A share of lost segments that operations feel: each costs a time-out of at least 200 ms.
pub(super) const LOSS_SHARE_MIN: f64 = 0.01;

/// Networks lose so many segments without anybody calling them lossy; inside a data centre it is far less.
pub(super) const LOSS_BY_CHANCE: f64 = 0.002;

/// A share of segments sent again, whatever for, that no load of the hosts explains.
pub(super) const RESENT_SHARE_MIN: f64 = 0.04;

/// And so many at least.
pub(super) const RESENT_MIN: u64 = 15;

/// Hosts that are short of processor time acknowledge late, and so many segments are sent again for that.
pub(super) const RESENT_BY_CHANCE: f64 = 0.01;

/// What is less probable is no accident. Every path is looked at every second, about 10⁷ times a year.
pub(super) const LOSS_CHANCE: f64 = 1e-7;

/// Different seconds of the window in which segments were lost: one lost burst is no lossy path.
pub(super) const LOSS_SECONDS_MIN: usize = 3;

/// When nothing was lost for so long, it is over.
pub(super) const LOSS_OVER: Duration = Duration::from_secs(15);

/// Round-trip times within this are looked at.
pub(super) const ROUND_TRIP_WINDOW: Duration = Duration::from_secs(4);

/// The network is slower when it takes so many times what it took.
pub(super) const ROUND_TRIP_FACTOR: u32 = 4;

/// And at least so much more: hosts delay acknowledgements by up to 40 ms while a slow answer is on its way, and the
/// kernel takes that for the network.
pub(super) const ROUND_TRIP_MORE: Duration = Duration::from_millis(60);

/// Slow measurements that lie no further apart were held up by one event.
pub(super) const ROUND_TRIP_SPREAD: Duration = Duration::from_secs(1);

/// Lasting trouble is told again so often.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Measurements that are needed in the window.
pub(super) const ROUND_TRIPS_MIN: usize = 3;

// --- load ---

/// Operations within this are looked at.
pub(super) const LOAD_WINDOW: Duration = Duration::from_secs(3);

/// The newest of them: counters are told once a second, and what every connection did in it is told at once.
pub(super) const LOAD_NEWEST: Duration = Duration::from_secs(1);

/// Operations are slow when they take so many times what they took.
pub(super) const SLOW_FACTOR: u32 = 5;

/// And at least so long.
pub(super) const SLOW_MIN: Duration = Duration::from_millis(200);

/// Slow operations occupy so many connections on the average: a change stream alone occupies one all the time, and
/// waits by nature.
pub(super) const OCCUPIED_MIN: f64 = 1.5;

/// Without a baseline they are slow when they take this long.
pub(super) const SLOW_ANYWAY: Duration = Duration::from_secs(1);

/// Operations that make a baseline.
pub(super) const BASELINE_OPERATIONS: u64 = 20;

/// A pool grew when it has so many times the connections it had.
pub(super) const GROWTH_FACTOR: u64 = 2;

/// And at least so many more.
pub(super) const GROWTH_MIN: u64 = 2;

/// An instance younger than this is still filling its pool.
pub(super) const GROWTH_SETTLED: Duration = Duration::from_secs(5);

// --- ages ---

/// Ages at which connections end are compared within this.
pub(super) const AGES_WINDOW: Duration = Duration::from_mins(2);

/// A pause in use from which something between may have forgotten the connection: real cut-offs begin at minutes,
/// those of tests at seconds.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(2);

/// Time-outs of one client betray themselves by agreeing within this; timers of a busy process are late by tens of
/// milliseconds.
pub(super) const TIMEOUT_SPREAD: Duration = Duration::from_millis(120);

/// The shortest time-out that is looked for; below it, connections end for many reasons.
pub(super) const TIMEOUT_MIN: Duration = Duration::from_millis(200);

/// Time-outs are set in steps of this.
pub(super) const SETTING_STEP_MS: u32 = 100;

/// They seem early by at most so much: a busy relay reads a request later than it was written.
pub(super) const SETTING_EARLY_MS: u32 = 5;

/// And come late by at most so much.
pub(super) const SETTING_LATE_MS: u32 = 60;

/// Cut-offs agree less well: they are swept for, often once a second.
pub(super) const CUTOFF_SPREAD: Duration = Duration::from_millis(1500);

/// Closes at one age that are no accident.
pub(super) const EQUAL_AGES_MIN: usize = 2;
