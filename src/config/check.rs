//! From texts to a configuration that can be meant: the last source that has a value wins, every value lies in
//! its range, and the parts fit together.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{ConfigError, Problem};
use super::keys::{
    ADVERTISED, CAPTURE_LIMIT, CLIENT_TTL, CONNECT_TIMEOUT, DRAIN_TIMEOUT, INFLATE_LIMIT,
    JOURNAL_MAX_FILES, JOURNAL_MAX_SIZE, JOURNAL_PATH, KEEPALIVE, Key, LISTEN, LOG_FORMAT,
    LOG_LEVEL, MAX_CLIENTS, MAX_CONNECTIONS, METRICS_DETAIL, NAME, OBSERVE_BUDGET, UPSTREAM,
    WEB_LISTEN_ADDRESS, WORKERS,
};
use super::layer::{Layer, ListenerSettings, Origin, Setting};
use super::values::{self, Host, HostPort};
use super::{Config, JournalConfig, Limits, ListenerConfig, Loaded, LogConfig, WebConfig};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// Below a millisecond not even the loopback answers; a client that waits minutes has given up.
const CONNECT_TIMEOUT_RANGE: RangeInclusive<Duration> = MILLISECOND..=Duration::from_mins(5);
/// The kernel takes whole seconds, at most 32,767 of them (`TCP_KEEPIDLE`, tcp(7)).
const KEEPALIVE_RANGE: RangeInclusive<Duration> = SECOND..=Duration::from_hours(9);
/// Zero ends everything at once; whoever waits longer than an hour has forgotten about it.
const DRAIN_TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::ZERO..=HOUR;
/// Shorter than a scrape interval loses counts; longer than a month is for ever.
const CLIENT_TTL_RANGE: RangeInclusive<Duration> = SECOND..=Duration::from_hours(30 * 24);
/// Each client has about 110 series: the upper end is a million of them.
const MAX_CLIENTS_RANGE: RangeInclusive<usize> = 1..=10_000;
/// Each connection takes two descriptors; Linux allows a process 1,048,576 (`fs.nr_open`).
const MAX_CONNECTIONS_RANGE: RangeInclusive<usize> = 1..=500_000;
/// A handshake with full metadata has about a kilobyte; no message has more than 48 million bytes.
const CAPTURE_LIMIT_RANGE: RangeInclusive<usize> = 1024..=48 << 20;
const INFLATE_LIMIT_RANGE: RangeInclusive<usize> = 1024..=48 << 20;
/// More threads than any machine has cores only cost.
const WORKERS_RANGE: RangeInclusive<usize> = 1..=1024;
/// A file begins with what is open; below this it would hold little else.
const JOURNAL_MAX_SIZE_RANGE: RangeInclusive<usize> = 64 << 10..=64 << 30;
/// Each rotation renames all of them.
const JOURNAL_MAX_FILES_RANGE: RangeInclusive<usize> = 1..=1000;
/// As many as the metrics have room for (`upstream` label).
const LISTENERS_MAX: usize = 64;

/// Puts the sources, weakest first, together and checks the result.
pub(super) fn check(layers: &[Layer]) -> Result<Loaded, ConfigError> {
    let mut checker = Checker {
        layers,
        problems: Vec::new(),
        origins: BTreeMap::new(),
    };
    let config = checker.config();
    match config {
        Some(config) if checker.problems.is_empty() => Ok(Loaded {
            config,
            origins: checker.origins,
            warnings: Vec::new(),
        }),
        _ => Err(ConfigError::new(checker.problems)),
    }
}

struct Checker<'a> {
    layers: &'a [Layer],
    problems: Vec<Problem>,
    origins: BTreeMap<&'static str, Origin>,
}

/// A listener together with what the checks across listeners need.
struct Parsed {
    config: ListenerConfig,
    dial: HostPort,
    listen_origin: Origin,
    upstream_origin: Origin,
    name_origin: Origin,
}

impl Checker<'_> {
    fn config(&mut self) -> Option<Config> {
        let connect_timeout = self.duration(CONNECT_TIMEOUT, &CONNECT_TIMEOUT_RANGE);
        let keepalive = self.duration(KEEPALIVE, &KEEPALIVE_RANGE);
        let drain_timeout = self.duration(DRAIN_TIMEOUT, &DRAIN_TIMEOUT_RANGE);
        let workers = self.value(WORKERS, |text| values::workers(text, &WORKERS_RANGE));
        let web = self.value(WEB_LISTEN_ADDRESS, values::listen_address);
        let clients_max = self.value(MAX_CLIENTS, |t| values::count(t, &MAX_CLIENTS_RANGE));
        let client_ttl = self.duration(CLIENT_TTL, &CLIENT_TTL_RANGE);
        let connections_max = self.value(MAX_CONNECTIONS, |t| {
            values::count(t, &MAX_CONNECTIONS_RANGE)
        });
        let capture_limit = self.value(CAPTURE_LIMIT, |t| values::size(t, &CAPTURE_LIMIT_RANGE));
        let inflate_limit = self.value(INFLATE_LIMIT, |t| values::size(t, &INFLATE_LIMIT_RANGE));
        let observe_budget = self.value(OBSERVE_BUDGET, values::share);
        let metrics_detail = self.value(METRICS_DETAIL, values::metrics_detail);
        let journal = self.journal();
        let filter = self.value(LOG_LEVEL, values::log_filter);
        let format = self.value(LOG_FORMAT, values::log_format);
        let listeners = self.listeners(web);

        Some(Config {
            listeners,
            connect_timeout: connect_timeout?,
            keepalive: keepalive?,
            web: WebConfig { listen: web? },
            limits: Limits {
                clients_max: clients_max?,
                client_ttl: client_ttl?,
                connections_max: connections_max?,
                capture_limit_bytes: capture_limit?,
                inflate_limit_bytes: inflate_limit?,
                observe_percent: observe_budget?,
            },
            drain_timeout: drain_timeout?,
            workers: workers?,
            log: LogConfig {
                filter: filter?,
                format: format?,
            },
            metrics_detail: metrics_detail?,
            journal: journal?,
        })
    }

    fn journal(&mut self) -> Option<JournalConfig> {
        let path = self.value(JOURNAL_PATH, values::optional_path);
        let max_size = self.value(JOURNAL_MAX_SIZE, |t| {
            values::size(t, &JOURNAL_MAX_SIZE_RANGE)
        });
        let files_max = self.value(JOURNAL_MAX_FILES, |t| {
            values::count(t, &JOURNAL_MAX_FILES_RANGE)
        });
        Some(JournalConfig {
            path: path?,
            size_max_bytes: max_size?,
            files_max: files_max?,
        })
    }

    fn problem(&mut self, origin: &Origin, path: &str, reason: impl AsRef<str>) {
        let reason = reason.as_ref();
        self.problems.push(Problem {
            place: origin.to_string(),
            reason: match origin {
                Origin::File { .. } => format!("{path}: {reason}"),
                // The name of a variable or flag says the key already.
                Origin::Default | Origin::Environment(_) | Origin::Flag(_) => reason.to_owned(),
            },
        });
    }

    fn duration(&mut self, key: Key, range: &RangeInclusive<Duration>) -> Option<Duration> {
        self.value(key, |text| values::duration(text, range))
    }

    /// The value of the last source that has one. The others are read as well: a mistake does not become right
    /// by being covered.
    fn value<T>(&mut self, key: Key, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let default = key.default.map(|text| Setting {
            text: text.to_owned(),
            origin: Origin::Default,
        });
        let layers = self.layers;
        let given = layers
            .iter()
            .filter_map(|layer| layer.settings.get(key.path));
        let mut result = None;
        for setting in default.iter().chain(given) {
            match parse(&setting.text) {
                Ok(value) => {
                    self.origins.insert(key.path, setting.origin.clone());
                    result = Some(value);
                }
                Err(reason) => self.problem(&setting.origin, key.path, reason),
            }
        }
        result
    }

    /// The listeners of the last source that has any.
    fn listeners(&mut self, web: Option<SocketAddr>) -> Vec<ListenerConfig> {
        let layers = self.layers;
        let settings = layers
            .iter()
            .rev()
            .map(|layer| layer.listeners.as_slice())
            .find(|listeners| !listeners.is_empty())
            .unwrap_or_default();
        if settings.is_empty() {
            self.problems.push(Problem {
                place: "listeners".to_owned(),
                reason: "there is none; give --listen ADDR with --upstream HOST:PORT, or write listeners in the file"
                    .to_owned(),
            });
        }
        if let Some(first) = settings.get(LISTENERS_MAX) {
            self.problem(
                &first.origin,
                "listeners",
                format!(
                    "there are {}, at most {LISTENERS_MAX} are possible",
                    settings.len()
                ),
            );
        }
        let parsed: Vec<Parsed> = settings
            .iter()
            .filter_map(|listener| self.listener(listener))
            .collect();
        self.check_names(&parsed);
        self.check_addresses(&parsed, web);
        parsed.into_iter().map(|parsed| parsed.config).collect()
    }

    fn listener(&mut self, settings: &ListenerSettings) -> Option<Parsed> {
        let listen = self.required(
            settings,
            settings.listen.as_ref(),
            LISTEN,
            values::listen_address,
        );
        let dial = self.required(
            settings,
            settings.upstream.as_ref(),
            UPSTREAM,
            values::host_port,
        );
        let mut advertised = Vec::new();
        for setting in &settings.advertised {
            match values::host_port(&setting.text) {
                Ok(_) => advertised.push(setting.text.clone()),
                Err(reason) => self.problem(&setting.origin, ADVERTISED.path, reason),
            }
        }
        let upstream = settings.upstream.as_ref()?;
        let named = settings.name.as_ref().unwrap_or(upstream);
        let name = match values::name(&named.text) {
            Ok(name) => Some(name),
            // When the name is the upstream itself, what is wrong with it was said before.
            Err(_) if settings.name.is_none() && dial.is_none() => None,
            Err(reason) => {
                self.problem(&named.origin, NAME.path, reason);
                None
            }
        };
        Some(Parsed {
            dial: dial?,
            listen_origin: settings.listen.as_ref()?.origin.clone(),
            upstream_origin: upstream.origin.clone(),
            name_origin: named.origin.clone(),
            config: ListenerConfig {
                name: name?,
                listen: listen?,
                upstream: upstream.text.clone(),
                advertised,
            },
        })
    }

    fn required<T>(
        &mut self,
        listener: &ListenerSettings,
        setting: Option<&Setting>,
        key: Key,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(setting) = setting else {
            let reason = match &listener.origin {
                Origin::Flag(_) => format!("has no --{} to go with it", key.flag),
                Origin::Environment(_) => format!("has no {} to go with it", key.env),
                Origin::Default | Origin::File { .. } => {
                    format!("has no {}", key.flag)
                }
            };
            self.problem(&listener.origin, "listener", reason);
            return None;
        };
        parse(&setting.text)
            .map_err(|reason| self.problem(&setting.origin, key.path, reason))
            .ok()
    }

    fn check_names(&mut self, listeners: &[Parsed]) {
        for (position, listener) in listeners.iter().enumerate() {
            let is_taken = listeners
                .iter()
                .take(position)
                .any(|other| other.config.name == listener.config.name);
            if is_taken {
                self.problem(
                    &listener.name_origin,
                    NAME.path,
                    format!(
                        "two upstreams are called {:?}; give one of them a name of its own",
                        listener.config.name
                    ),
                );
            }
        }
    }

    fn check_addresses(&mut self, listeners: &[Parsed], web: Option<SocketAddr>) {
        let web_origin = self.origins.get(WEB_LISTEN_ADDRESS.path).cloned();
        for (position, listener) in listeners.iter().enumerate() {
            let listen = listener.config.listen;
            if let Some(other) = listeners
                .iter()
                .take(position)
                .find(|other| overlap(other.config.listen, listen))
            {
                self.problem(
                    &listener.listen_origin,
                    LISTEN.path,
                    format!(
                        "{listen} is taken by the listener on {}",
                        other.config.listen
                    ),
                );
            }
            if let (Some(web), Some(origin)) = (web, &web_origin)
                && overlap(web, listen)
            {
                // The listener is at fault only where nobody chose the web address.
                let (origin, path) = match origin {
                    Origin::Default => (&listener.listen_origin, LISTEN.path),
                    given @ (Origin::File { .. } | Origin::Environment(_) | Origin::Flag(_)) => {
                        (given, WEB_LISTEN_ADDRESS.path)
                    }
                };
                self.problem(
                    &origin.clone(),
                    path,
                    format!("the listener on {listen} and the web address {web} are the same"),
                );
            }
            for own in listeners.iter().map(|other| other.config.listen).chain(web) {
                if reaches(&listener.dial, own) {
                    self.problem(
                        &listener.upstream_origin,
                        UPSTREAM.path,
                        format!(
                            "{} is our own address {own}: the proxy would call itself without end",
                            listener.config.upstream
                        ),
                    );
                }
            }
        }
    }
}

/// Whether two addresses cannot be listened on at once. An unspecified address takes its port on every address
/// of its family; port 0 never meets anything.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// Whether dialling `to` would arrive at our own `listen`, as far as that can be said without looking names up
/// or reading the addresses of the machine.
fn reaches(to: &HostPort, listen: SocketAddr) -> bool {
    if to.port != listen.port() {
        return false;
    }
    let listen_ip = listen.ip().to_canonical();
    match &to.host {
        Host::Name(name) => {
            let is_localhost = name == "localhost" || name.ends_with(".localhost");
            is_localhost && (listen_ip.is_loopback() || listen_ip.is_unspecified())
        }
        Host::Ip(ip) => {
            // Dialling an unspecified address arrives at the loopback (Linux, ip(7)).
            let ip = match ip.to_canonical() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
                ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
            };
            // An IPv6 wildcard commonly takes IPv4 as well; an IPv4 one never takes IPv6.
            let is_covered = listen_ip.is_ipv6() || ip.is_ipv4();
            ip == listen_ip || (listen_ip.is_unspecified() && ip.is_loopback() && is_covered)
        }
    }
}
