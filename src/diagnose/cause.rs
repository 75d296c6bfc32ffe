//! The causes that are told apart.

use serde::{Deserialize, Serialize};

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident $label:literal $severity:ident;)+) => {
        /// Why an incident happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Cause {
            $($(#[$doc])* $name,)+
        }

        impl Cause {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The value of the `cause` label.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// How bad it is by its nature.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }
        }
    };
}

causes! {
    /// Instances of an application were replaced one after the other, each saying goodbye.
    Deploy "deploy" Info;
    /// Instances of an application were added.
    ScaleOut "scale_out" Info;
    /// The server's process ended without a word.
    ServerCrash "server_crash" Critical;
    /// The server was told to stop, and said so.
    ServerShutdown "server_shutdown" Warning;
    /// Another member became primary.
    Failover "failover" Warning;
    /// The server's host answers, the server does not.
    ServerFreeze "server_freeze" Critical;
    /// A server that stays up closes single connections.
    ServerClosing "server_closing" Warning;
    /// Something between resets connections.
    NetworkReset "network_reset" Critical;
    /// Nothing arrives any more, and nobody says so.
    NetworkBlackhole "network_blackhole" Critical;
    /// Part of the packets is lost.
    NetworkLoss "network_loss" Warning;
    /// Packets take longer than before.
    NetworkLatency "network_latency" Warning;
    /// Something between ends connections that were idle for too long.
    IdleCutoff "idle_cutoff" Warning;
    /// The client gives its operations less time than they need.
    SocketTimeout "socket_timeout" Warning;
    /// Pools replace connections that were idle for too long, as they were told to.
    IdleRecycling "idle_recycling" Info;
    /// An application tore its own pool down with requests in flight or in the queue.
    DriverPoolDestroyed "driver_pool_destroyed" Critical;
    /// An application closed its client while operations that nobody waits for were under way.
    UnhandledAsyncCleanup "unhandled_async_cleanup" Warning;
    /// A process of an application ended without closing anything.
    AppCrash "app_crash" Critical;
    /// An application makes a client for each request.
    ClientPerRequest "client_per_request" Warning;
    /// A client dials far more often than it lost connections, without pause.
    ReconnectStorm "reconnect_storm" Critical;
    /// The server turns connections away: more are wanted than it accepts.
    PoolCapacity "pool_capacity" Critical;
    /// Slow operations occupy the pools.
    SlowOperations "slow_operations" Warning;
    /// Credentials are refused.
    AuthFailures "auth_failures" Warning;
    /// Probes that never speak the protocol; recognised and left out of everything else.
    HealthChecks "health_checks" Info;
    /// A client that will never connect again before its process is restarted.
    WedgedClient "wedged_client" Critical;
    /// Nothing known fits.
    Unknown "unknown" Warning;
}

/// How bad an incident is: the `severity` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A healthy change, told so that it is not taken for trouble.
    Info,
    /// Somebody should look at it today.
    Warning,
    /// Requests fail.
    Critical,
}

impl Severity {
    /// The value of the `severity` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}
