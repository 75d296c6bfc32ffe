//! What to check or do where the network is the cause.

use std::time::Duration;

use super::super::words::length;
use super::super::{Advice, Cause, Place};
use super::driver::{Driver, Feature};
use super::{Scene, plain, say};

/// Below this, half of an age is too short for a pool or for keepalive: a connection would be replaced, or a probe sent,
/// between any two operations.
const WORTH_ADAPTING: Duration = Duration::from_secs(10);

/// Figures that settings are made of, in seconds.
const FIGURES: [u64; 14] = [
    5, 10, 15, 20, 30, 60, 90, 120, 180, 240, 300, 600, 1200, 1800,
];

/// What is surely below an age at which connections are cut: half of it at the most, as people write it.
fn below(age: Duration) -> Option<Duration> {
    if age < WORTH_ADAPTING {
        return None;
    }
    let half = age / 2;
    let figures = FIGURES.into_iter().map(Duration::from_secs);
    figures.rev().find(|figure| *figure <= half)
}

/// What cuts has its time in one of these.
const IDLE_TIMES: &str = "grep -rsnE 'timeout +(client|server|tunnel)|proxy_timeout|idle_timeout' /etc/haproxy /etc/nginx \
                          /etc/envoy; sysctl net.netfilter.nf_conntrack_tcp_timeout_established";

/// Something ends connections that rest too long.
fn of_idle_cutoff(scene: &Scene) -> Vec<Advice> {
    let mut all = vec![say(
        "Look for idle time-outs of load balancers, proxies, NAT and firewalls on the way, and raise the one that ends \
         connections at the age above.",
        Place::Shell,
        IDLE_TIMES,
    )];
    let Some((idle, limit)) = scene
        .idle_age
        .and_then(|idle| Some((idle, below(idle.age)?)))
    else {
        all.push(plain(&too_short(scene)));
        all.extend(scene.each(
            "Until then, operations that meet a connection that is gone survive it when they are retried",
            Driver::retries,
        ));
        return all;
    };
    let give_up = if idle.is_pause {
        "Let pools give connections up before they are cut: half of the shortest pause that was too long, or less, for \
         they were cut some time in it"
    } else {
        "Let pools give connections up before they are cut, at half of that age or less"
    };
    all.extend(scene.each(give_up, |driver| driver.idle_limit(limit)));
    all.extend(keepalive(scene, limit));
    all.extend(scene.each(
        "Operations that meet a connection that is gone survive it when they are retried",
        |driver| driver.retries().filter(|_| !driver.has(Feature::IdleTime)),
    ));
    all
}

/// Why no setting of a pool is named.
fn too_short(scene: &Scene) -> String {
    let age = scene
        .idle_age
        .map_or_else(String::new, |idle| format!(" of {}", length(idle.age)));
    format!(
        "An age{age} is too short for keepalive or for an idle limit of the pool below it: that would replace connections \
         between any two operations. Nothing but the time-out itself helps."
    )
}

/// Keepalive helps where packets are counted. Whose it is depends on whose sockets they are.
fn keepalive(scene: &Scene, delay: Duration) -> Vec<Advice> {
    let seconds = delay.as_secs();
    let mut all = vec![say(
        "Or let keepalive speak before that, which helps where packets are counted (NAT, firewalls) and not where \
         bytes are (proxies). Connections through poolscope, to either side, have poolscope's: 2 minutes unless set.",
        Place::Shell,
        format!("export POOLSCOPE_KEEPALIVE={seconds}s"),
    )];
    let has_kernel = |driver: &Driver| !driver.has(Feature::OwnKeepAlive);
    if scene.drivers.is_empty() || scene.drivers.iter().any(has_kernel) {
        let every = (seconds / 3).clamp(1, 10);
        all.push(say(
            "Connections past poolscope have the kernel's, on the clients' hosts.",
            Place::Shell,
            format!(
                "sysctl -w net.ipv4.tcp_keepalive_time={seconds} net.ipv4.tcp_keepalive_intvl={every}"
            ),
        ));
    }
    all.extend(scene.each(
        "Connections past poolscope have the driver's, which does not ask the kernel",
        |driver| driver.keepalive(delay),
    ));
    all
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the caller deals the causes out"
)]
pub(super) fn of_the_network(cause: Cause, scene: &Scene) -> Vec<Advice> {
    let (host, port, address) = (scene.host(), scene.port(), &scene.address);
    match cause {
        Cause::NetworkReset => vec![
            say(
                "Look for who resets: rules of firewalls and load balancers, tables of connections that are full.",
                Place::Shell,
                "nft list ruleset | grep -i reset; conntrack -S; dmesg -T | grep -i conntrack",
            ),
            say(
                "See from which side and hop the next reset comes: its TTL differs from that of the server's packets.",
                Place::Shell,
                format!("tcpdump -nvi any 'tcp port {port} and tcp[tcpflags] & tcp-rst != 0'"),
            ),
        ],
        Cause::NetworkBlackhole => vec![
            say(
                "Look for the hop at which packets end.",
                Place::Shell,
                format!("mtr -rwbzT -P {port} {host}"),
            ),
            say(
                "Without a limit the kernel sends a lost packet again for a quarter of an hour; on the hosts of clients \
                 and of poolscope it can be told to give up after some 100 s.",
                Place::Shell,
                "sysctl -w net.ipv4.tcp_retries2=8",
            ),
        ],
        Cause::IdleCutoff => of_idle_cutoff(scene),
        _ => vec![say(
            "Measure loss and round-trip times on the way, hop by hop and socket by socket.",
            Place::Shell,
            format!("mtr -rwbzT -P {port} {host}; ss -tin dst '{address}'"),
        )],
    }
}
