//! Which scenario is played on which drivers, and what poolscope has to say.

use std::time::Duration;

use super::shape::Shape;
use super::stage::{Place, Stage};
use super::suffices::Suffices;
use super::{applications, healthy as fine, legacy, network, servers, storms};
use crate::support::Driver;
use crate::support::Driver::{
    Go18, Java36, Mongoc123, Node4, Node6, Node7, Node36Legacy, Node36Unified, Php115, PyMongo3,
    PyMongo4, PyMongo4Async, Rust,
};

/// What has to be said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// One alarm, with one of these causes at first rank.
    Alarm(&'static [&'static str]),
    /// An alarm for each of these causes, in order.
    Alarms(&'static [&'static str]),
    /// No alarm, and information with this cause.
    Info(&'static str),
    /// No alarm.
    Quiet,
}

/// A message that the application must have been told by its driver, and a word of what it is owed to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    /// The message.
    pub(super) message: &'static str,
    /// The trigger that must be named has one of these words.
    pub(super) words: &'static [&'static str],
}

/// What must be said of connections that are opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reopening {
    /// Nothing is demanded.
    Any,
    /// They are a storm, and make the incident worse.
    Storm,
    /// They are told in the course of the incident, and are no storm.
    Course,
}

/// Sets a stage.
pub(super) type Set = fn(Place) -> Stage;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    /// Its name, which names files, too.
    pub(super) name: &'static str,
    /// What has to be said.
    pub(super) expect: Expect,
    /// From when on the evidence suffices.
    pub(super) suffices: Suffices,
    /// What the legacy pool tells its application, where it does.
    pub(super) owed: Option<Owed>,
    /// What must be said of connections that are opened again.
    pub(super) reopening: Reopening,
    /// The drivers it is played on.
    pub(super) drivers: &'static [Driver],
    /// What sets its stage.
    pub(super) set: Set,
    /// The play.
    pub(super) play: fn(&mut Stage),
}

/// They replace what was idle for too long.
const RECYCLING: &[Driver] = &[
    PyMongo4,
    PyMongo4Async,
    PyMongo3,
    Node36Unified,
    Node4,
    Node6,
    Node7,
    Rust,
    Go18,
    Java36,
];
/// Their `close` gives up operations that are under way; the others' waits for them. Rust's immediate `shutdown` ends
/// the monitors only: operations go on, and on the pool that is left.
const INTERRUPTING: &[Driver] = &[
    PyMongo4Async,
    Node36Legacy,
    Node36Unified,
    Node4,
    Node6,
    Node7,
    Go18,
];
/// The same for a `close` that is not told to do so.
/// Of Node 4 and Node 3.6's unified topology only operations in the queue fail: their pools close what is in use when it
/// is given back, and their `endSessions` takes its turn. On the wire it is a close in good order.
const ALWAYS_INTERRUPTING: &[Driver] = &[PyMongo4Async, Node6, Node7];
const LEGACY: &[Driver] = &[Node36Legacy];
/// One of each way of keeping pools, and of closing them: Node 6 does not wait for the answer to its goodbye.
const SOME: &[Driver] = &[
    PyMongo4,
    Node36Legacy,
    Node6,
    Node7,
    Rust,
    Go18,
    Java36,
    Mongoc123,
    Php115,
];
/// Those of them that number requests by the process, or draw alike in each: what is new tells whether it is a process.
const SOME_TELLING: &[Driver] = &[PyMongo4, Node36Legacy, Node7, Rust, Go18, Java36];
/// Those that number requests by the client: nothing tells a process from one client more.
const NOT_TELLING: &[Driver] = &[Mongoc123, Php115];
/// It takes most of a minute: one of each way of telling processes apart.
const LEAKING_SLOWLY: &[Driver] = &[PyMongo4, Node7, Rust, Node36Legacy, Mongoc123, Php115];
const WITH_SOCKET_TIMEOUT: &[Driver] = &[
    PyMongo4,
    PyMongo4Async,
    PyMongo3,
    Node36Legacy,
    Node36Unified,
    Node4,
    Node6,
    Node7,
    Go18,
    Java36,
    Mongoc123,
    Php115,
];

/// Nothing is heard for so long (`SILENCE`), from the fault on, at which requests are always under way.
const SILENCE: Suffices = Suffices::After(Duration::from_millis(1500));
/// Each of them takes 1.2 s, and four of them occupy enough connections (`OCCUPIED_MIN` over `LOAD_WINDOW`).
const FIRST_SLOW_REPLIES: Suffices = Suffices::After(Duration::from_millis(1200));
/// A round trip of 0.3 s, and others so much later (`ROUND_TRIP_SPREAD`).
const SLOW_ROUND_TRIPS: Suffices = Suffices::After(Duration::from_millis(1300));
/// A monitor asks within two seconds, and has its answer 0.3 s later.
const A_HEARTBEAT: Suffices = Suffices::After(Duration::from_millis(2300));
/// In so many different seconds something was dialled (`SECONDS_MIN` of the detector of storms).
const WITHOUT_PAUSE: Suffices = Suffices::After(Duration::from_secs(3));

/// Something better than that nothing is known may be found by then (`PATIENCE` of the rule for `unknown`).
const PATIENCE: Suffices = Suffices::After(Duration::from_secs(3));

fn with_auth(place: Place) -> Stage {
    Stage::with_server(place, applications::auth_options(), false)
}

fn with_few_connections(place: Place) -> Stage {
    Stage::with_server(place, servers::capacity_options(), false)
}

const fn alarm(
    name: &'static str,
    causes: &'static [&'static str],
    drivers: &'static [Driver],
    set: Set,
    play: fn(&mut Stage),
) -> Scenario {
    Scenario {
        name,
        expect: Expect::Alarm(causes),
        suffices: Suffices::AtOnce,
        owed: None,
        reopening: Reopening::Any,
        drivers,
        set,
        play,
    }
}

const fn healthy(
    name: &'static str,
    expect: Expect,
    drivers: &'static [Driver],
    set: Set,
    play: fn(&mut Stage),
) -> Scenario {
    Scenario {
        name,
        expect,
        suffices: Suffices::Never,
        owed: None,
        reopening: Reopening::Any,
        drivers,
        set,
        play,
    }
}

impl Scenario {
    /// Whether nothing is wrong in it.
    pub(super) fn is_healthy(&self) -> bool {
        matches!(self.expect, Expect::Info(_) | Expect::Quiet)
    }

    /// Whether it is about what only the kernel can do to packets.
    pub(super) fn takes_root(&self, shape: Shape) -> bool {
        shape.has_wire() || self.is_set_by(&[Stage::behind_wire, Stage::with_remote_application])
    }

    /// Whether these surroundings make another case of it. A set's members and what has a wire of its own are where they
    /// are, so is a server whose first user is made on its own host, and so are applications that are told apart by
    /// their hosts.
    pub(super) fn is_for(&self, shape: Shape) -> bool {
        let has_hosts = ["deploy", "scale_out", "scale_in", "network_reset_one_host"];
        if shape.application_delay().is_some() && has_hosts.contains(&self.name) {
            return false;
        }
        if shape.authenticates() {
            return !self.is_set_by(&[with_auth]);
        }
        !shape.has_wire()
            || self.is_set_by(&[Stage::alone, Stage::behind_relay, with_few_connections])
    }

    fn is_set_by(&self, sets: &[Set]) -> bool {
        sets.iter().any(|set| std::ptr::fn_addr_eq(self.set, *set))
    }

    const fn evident(self, suffices: Suffices) -> Self {
        Self { suffices, ..self }
    }

    const fn owed_to(self, words: &'static [&'static str]) -> Self {
        self.telling(legacy::MESSAGE, words)
    }

    const fn telling(self, message: &'static str, words: &'static [&'static str]) -> Self {
        Self {
            owed: Some(Owed { message, words }),
            ..self
        }
    }

    const fn with(self, reopening: Reopening) -> Self {
        Self { reopening, ..self }
    }
}

/// Every scenario.
pub(super) const SCENARIOS: &[Scenario] = &[
    // Servers.
    alarm(
        "server_crash",
        &["server_crash"],
        &Driver::ALL,
        Stage::alone,
        servers::crash,
    ),
    alarm(
        "server_shutdown",
        &["server_shutdown"],
        &Driver::ALL,
        Stage::alone,
        servers::shutdown,
    ),
    alarm(
        "failover",
        &["failover"],
        &Driver::ALL,
        Stage::set,
        servers::stepdown,
    ),
    alarm(
        "primary_crash",
        &["server_crash"],
        &Driver::ALL,
        Stage::set,
        servers::primary_crash,
    ),
    alarm(
        "primary_shutdown",
        &["server_shutdown"],
        SOME,
        Stage::set,
        servers::primary_shutdown,
    ),
    alarm(
        "server_freeze",
        &["server_freeze"],
        &Driver::ALL,
        Stage::alone,
        servers::freeze,
    )
    .evident(SILENCE),
    alarm(
        "server_freeze_tight",
        &["server_freeze"],
        &Driver::ALL,
        Stage::alone,
        servers::freeze_tight,
    )
    .evident(SILENCE),
    alarm(
        "server_closing",
        &["server_closing"],
        &Driver::ALL,
        Stage::alone,
        servers::closing,
    ),
    alarm(
        "replies_11600",
        &["server_shutdown"],
        SOME,
        Stage::alone,
        servers::replies_shutdown,
    ),
    alarm(
        "replies_10107",
        &["failover"],
        SOME,
        Stage::alone,
        servers::replies_not_primary,
    ),
    alarm(
        "replies_189",
        &["failover"],
        SOME,
        Stage::alone,
        servers::replies_stepped_down,
    ),
    alarm(
        "replies_202",
        &["unknown"],
        SOME,
        Stage::alone,
        servers::replies_from_behind,
    )
    .evident(PATIENCE),
    alarm(
        "slow_operations",
        &["slow_operations"],
        &Driver::ALL,
        Stage::alone,
        servers::slow_operations,
    )
    .evident(FIRST_SLOW_REPLIES),
    alarm(
        "pool_capacity",
        &["pool_capacity"],
        &Driver::ALL,
        with_few_connections,
        servers::capacity,
    )
    .evident(Suffices::TurnedAway),
    // The network.
    alarm(
        "network_reset",
        &["network_reset"],
        &Driver::ALL,
        Stage::behind_relay,
        network::reset_all,
    ),
    alarm(
        "network_reset_one_host",
        &["network_reset"],
        &Driver::ALL,
        Stage::alone,
        network::reset_one_host,
    ),
    alarm(
        "network_blackhole",
        &["network_blackhole"],
        &Driver::ALL,
        Stage::behind_wire,
        network::blackhole,
    )
    .evident(SILENCE),
    alarm(
        "network_blackhole_tight",
        &["network_blackhole"],
        &Driver::ALL,
        Stage::behind_wire,
        network::blackhole_tight,
    )
    .evident(SILENCE),
    alarm(
        "network_loss",
        &["network_loss"],
        SOME,
        Stage::behind_wire,
        network::loss,
    )
    .evident(Suffices::Resent),
    alarm(
        "network_loss_slight",
        &["network_loss"],
        SOME,
        Stage::behind_wire,
        network::slight_loss,
    )
    .evident(Suffices::Resent),
    alarm(
        "network_latency",
        &["network_latency"],
        SOME,
        Stage::behind_wire,
        network::latency,
    )
    .evident(SLOW_ROUND_TRIPS),
    alarm(
        "network_latency_behind_proxy",
        &["network_latency"],
        &[PyMongo4, Node7, Rust],
        Stage::behind_relay,
        network::latency_behind_proxy,
    )
    .evident(A_HEARTBEAT),
    alarm(
        "network_blackhole_of_application",
        &["network_blackhole"],
        SOME,
        Stage::with_remote_application,
        network::remote_blackhole,
    )
    .evident(SILENCE),
    alarm(
        "network_loss_of_application",
        &["network_loss"],
        SOME,
        Stage::with_remote_application,
        network::remote_loss,
    )
    .evident(Suffices::Resent),
    alarm(
        "network_latency_of_application",
        &["network_latency"],
        SOME,
        Stage::with_remote_application,
        network::remote_latency,
    )
    .evident(SLOW_ROUND_TRIPS),
    alarm(
        "idle_cutoff_fin",
        &["idle_cutoff"],
        &Driver::ALL,
        Stage::behind_relay,
        network::idle_fin,
    )
    .evident(Suffices::Cuts),
    alarm(
        "idle_cutoff_reset",
        &["idle_cutoff"],
        SOME,
        Stage::behind_relay,
        network::idle_reset,
    )
    .evident(Suffices::Cuts),
    alarm(
        "idle_cutoff_at_use",
        &["idle_cutoff"],
        &Driver::ALL,
        Stage::behind_relay,
        network::idle_reset_at_use,
    )
    .evident(Suffices::CutsAtUse),
    alarm(
        "idle_cutoff_drop",
        &["idle_cutoff"],
        WITH_SOCKET_TIMEOUT,
        Stage::behind_wire,
        network::idle_drop,
    )
    .evident(SILENCE),
    // Applications.
    alarm(
        "socket_timeout",
        &["socket_timeout"],
        WITH_SOCKET_TIMEOUT,
        Stage::alone,
        servers::socket_timeout,
    )
    .evident(Suffices::AtOnce),
    alarm(
        "auth_failures",
        &["auth_failures"],
        &Driver::ALL,
        with_auth,
        applications::wrong_password,
    ),
    alarm(
        "client_leak",
        &["client_per_request"],
        &Driver::ALL,
        Stage::alone,
        applications::client_leak,
    )
    .evident(Suffices::Clients),
    alarm(
        "client_leak_slow",
        &["client_per_request"],
        LEAKING_SLOWLY,
        Stage::alone,
        applications::client_leak_slow,
    )
    .evident(Suffices::ClientsAtRest),
    alarm(
        "client_churn",
        &["client_per_request"],
        &Driver::ALL,
        Stage::alone,
        applications::client_churn,
    )
    .evident(Suffices::Clients),
    alarm(
        "reconnect_storm",
        &["reconnect_storm"],
        storms::HAMMERS,
        Stage::alone,
        storms::wrong_set,
    )
    .evident(WITHOUT_PAUSE),
    alarm(
        "reconnect_storm_of_many",
        &["reconnect_storm"],
        &[PyMongo4, Node7, Rust],
        Stage::alone,
        storms::wrong_set_on_many,
    )
    .evident(WITHOUT_PAUSE),
    alarm(
        "reconnect_storm_after_crash",
        &["server_crash"],
        storms::RELENTLESS,
        Stage::alone,
        storms::crash_under_hammers,
    )
    .with(Reopening::Storm),
    alarm(
        "pool_reopened",
        &["server_shutdown"],
        &[PyMongo4, Node36Unified, Node7, Rust, Go18],
        Stage::alone,
        storms::reopened,
    )
    .with(Reopening::Course),
    alarm(
        "driver_pool_destroyed",
        &["driver_pool_destroyed"],
        INTERRUPTING,
        Stage::alone,
        applications::forced_close,
    ),
    alarm(
        "unhandled_async_cleanup",
        &["unhandled_async_cleanup"],
        ALWAYS_INTERRUPTING,
        Stage::alone,
        applications::unawaited,
    ),
    alarm(
        "app_crash",
        &["app_crash"],
        &Driver::ALL,
        Stage::alone,
        applications::app_crash,
    ),
    // The legacy pool.
    alarm(
        "force_destroyed_by_close",
        &["driver_pool_destroyed"],
        LEGACY,
        Stage::alone,
        legacy::forced_close,
    )
    .owed_to(&["forced", "close"]),
    alarm(
        "force_destroyed_by_crash",
        &["server_crash"],
        LEGACY,
        Stage::set,
        legacy::primary_crash,
    )
    .owed_to(&["crash"]),
    alarm(
        "force_destroyed_by_freeze",
        &["server_freeze"],
        LEGACY,
        Stage::set,
        legacy::primary_freeze,
    )
    .evident(SILENCE)
    .owed_to(&["freeze"]),
    Scenario {
        // It loses all its sockets in the end, and does not come back.
        expect: Expect::Alarms(&["socket_timeout", "wedged_client"]),
        ..alarm(
            "force_destroyed_by_timeouts",
            &[],
            LEGACY,
            Stage::alone,
            legacy::repeated_timeouts,
        )
        .evident(Suffices::AtOnce)
        .owed_to(&["timeout", "time-out"])
    },
    Scenario {
        expect: Expect::Alarms(&["server_crash", "wedged_client"]),
        ..alarm("wedged_client", &[], LEGACY, Stage::alone, legacy::wedged)
            .telling(legacy::MESSAGE_OF_USE, &["not dialled"])
    },
    // Nothing is wrong.
    healthy(
        "steady",
        Expect::Quiet,
        &Driver::ALL,
        Stage::alone,
        fine::steady,
    ),
    healthy(
        "graceful_close",
        Expect::Quiet,
        &Driver::ALL,
        Stage::alone,
        fine::graceful_close,
    ),
    healthy(
        "deploy",
        Expect::Info("deploy"),
        &Driver::ALL,
        Stage::alone,
        fine::deploy,
    ),
    healthy(
        "scale_out",
        Expect::Info("scale_out"),
        &Driver::ALL,
        Stage::alone,
        fine::scale_out,
    ),
    healthy(
        "idle_recycling",
        Expect::Info("idle_recycling"),
        RECYCLING,
        Stage::alone,
        fine::idle_recycling,
    ),
    healthy(
        "health_checks",
        Expect::Info("health_checks"),
        &Driver::ALL,
        Stage::alone,
        fine::health_checks,
    ),
    healthy(
        "deploy_at_one_address",
        Expect::Info("deploy"),
        SOME_TELLING,
        Stage::alone,
        fine::deploy_at_one_address,
    ),
    healthy(
        "deploy_at_one_address_untold",
        Expect::Quiet,
        NOT_TELLING,
        Stage::alone,
        fine::deploy_at_one_address,
    ),
    healthy(
        "scale_in",
        Expect::Quiet,
        SOME,
        Stage::alone,
        fine::scale_in,
    ),
    healthy(
        "batch_job",
        Expect::Quiet,
        SOME,
        Stage::alone,
        fine::batch_job,
    ),
    healthy(
        "start_of_many",
        Expect::Quiet,
        SOME,
        Stage::alone,
        fine::start_of_many,
    ),
    healthy("reload", Expect::Quiet, SOME, Stage::alone, fine::reload),
    healthy(
        "short_processes",
        Expect::Quiet,
        SOME,
        Stage::alone,
        fine::short_processes,
    ),
];
