//! What the server says: errors that matter to pools, refused credentials, another role, another process.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Detector, Taken};
use super::thresholds::{AUTHENTICATION_GAP, ERRORS_GAP};
use super::{Signal, SignalKind, Subject, about_upstream, is_of_a_client};
use crate::connection::{AuthenticationResult, ServerRole};
use crate::pools::{Connection, InstanceId, Pools, Upstream};
use crate::time::Timestamp;
use crate::timeline::{Fact, UpstreamId};

/// Codes that say nothing about the server: `ClientDisconnect` follows a client's own close, and
/// `UnsupportedOpQueryCommand` answers what an old driver asks by habit.
const MEANINGLESS: [i32; 2] = [279, 352];

/// `AuthenticationFailed` has a signal of its own.
const AUTHENTICATION_FAILED: i32 = 18;

/// `ShutdownInProgress` and `InterruptedAtShutdown`: the server speaks of itself, whoever asked.
const SHUTDOWN: [i32; 2] = [91, 11600];

/// Codes and instances that are told apart.
const EPISODES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Replies {
    errors: BTreeMap<(UpstreamId, i32), Errors>,
    refused: BTreeMap<(UpstreamId, Option<InstanceId>), Refused>,
    /// Instances that logged in before.
    authenticated: BTreeSet<(UpstreamId, InstanceId)>,
    servers: BTreeMap<UpstreamId, Server>,
}

/// What a server said of itself.
#[derive(Clone, Copy, Debug)]
struct Server {
    role: ServerRole,
    process: Option<[u8; 12]>,
    has_led: bool,
}

#[derive(Debug)]
struct Errors {
    began_at: Timestamp,
    last_at: Timestamp,
    count: u64,
    instances: BTreeSet<InstanceId>,
    is_news: bool,
}

#[derive(Debug)]
struct Refused {
    began_at: Timestamp,
    last_at: Timestamp,
    count: u64,
    user: Option<String>,
    is_news: bool,
}

impl Detector for Replies {
    fn record(&mut self, taken: &Taken<'_>, signals: &mut Vec<Signal>) {
        let (entry, connection, pools) = (taken.entry, taken.connection, taken.pools);
        if let Fact::Failed(error) = &entry.fact {
            let is_heard = if is_of_a_client(connection) {
                !MEANINGLESS.contains(&error.code) && error.code != AUTHENTICATION_FAILED
            } else {
                // Members are told what clients of old drivers are not.
                SHUTDOWN.contains(&error.code)
            };
            if is_heard {
                self.failed(entry.at, error.code, error.count, connection);
            }
        } else if let Fact::Authenticated(authentication) = &entry.fact {
            match authentication.result {
                AuthenticationResult::Ok => {
                    if let Some(instance) = connection.instance
                        && self.authenticated.len() < EPISODES_MAX
                    {
                        self.authenticated.insert((connection.upstream, instance));
                    }
                }
                AuthenticationResult::Failed => {
                    self.refused(entry.at, authentication.user.as_deref(), connection);
                }
                AuthenticationResult::Abandoned => {}
            }
        } else if let Fact::Described(_) = &entry.fact {
            self.described(entry.at, connection.upstream, pools, signals);
        }
    }

    fn tick(&mut self, at: Timestamp, _pools: &Pools, signals: &mut Vec<Signal>) {
        for ((upstream, code), errors) in &mut self.errors {
            if std::mem::take(&mut errors.is_news) {
                let kind = SignalKind::ErrorReplies {
                    code: *code,
                    count: errors.count,
                    instances: errors.instances.len() as u64,
                };
                signals.push(about_upstream(*upstream, errors.began_at, at, kind));
            }
        }
        self.errors
            .retain(|_, errors| at.since(errors.last_at) <= ERRORS_GAP);
        for ((upstream, instance), refused) in &mut self.refused {
            if std::mem::take(&mut refused.is_news) {
                let had_succeeded = instance
                    .is_some_and(|instance| self.authenticated.contains(&(*upstream, instance)));
                signals.push(Signal {
                    at: refused.began_at,
                    seen_at: at,
                    subject: Subject {
                        upstream: *upstream,
                        instance: *instance,
                        mongo_client: None,
                    },
                    among: Vec::new(),
                    kind: SignalKind::AuthenticationFails {
                        count: refused.count,
                        user: refused.user.clone(),
                        had_succeeded,
                    },
                });
            }
        }
        self.refused
            .retain(|_, refused| at.since(refused.last_at) <= AUTHENTICATION_GAP);
    }
}

impl Replies {
    fn failed(&mut self, at: Timestamp, code: i32, count: u32, connection: &Connection) {
        let key = (connection.upstream, code);
        if self.errors.len() >= EPISODES_MAX && !self.errors.contains_key(&key) {
            return;
        }
        let errors = self.errors.entry(key).or_insert_with(|| Errors {
            began_at: at,
            last_at: at,
            count: 0,
            instances: BTreeSet::new(),
            is_news: true,
        });
        errors.last_at = at;
        errors.count += u64::from(count);
        errors.is_news = true;
        if errors.instances.len() < EPISODES_MAX && is_of_a_client(connection) {
            errors.instances.extend(connection.instance);
        }
    }

    fn refused(&mut self, at: Timestamp, user: Option<&str>, connection: &Connection) {
        let key = (connection.upstream, connection.instance);
        if self.refused.len() >= EPISODES_MAX && !self.refused.contains_key(&key) {
            return;
        }
        let refused = self.refused.entry(key).or_insert_with(|| Refused {
            began_at: at,
            last_at: at,
            count: 0,
            user: None,
            is_news: true,
        });
        refused.last_at = at;
        refused.count += 1;
        refused.is_news = true;
        if let Some(user) = user {
            refused.user = Some(user.to_owned());
        }
    }

    fn described(
        &mut self,
        at: Timestamp,
        id: UpstreamId,
        pools: &Pools,
        signals: &mut Vec<Signal>,
    ) {
        let Some(server) = pools
            .upstream(id)
            .and_then(|upstream| upstream.server.as_ref())
        else {
            return;
        };
        let process = server.topology_version.map(|version| version.process_id);
        let known = self.servers.get(&id).copied();
        let is_leading = server.role == ServerRole::Primary;
        let now = Server {
            role: server.role,
            process: process.or(known.and_then(|known| known.process)),
            has_led: is_leading || known.is_some_and(|known| known.has_led),
        };
        self.servers.insert(id, now);
        let Some(known) = known else {
            return;
        };
        if known.process.is_some() && now.process != known.process {
            signals.push(about_upstream(id, at, at, SignalKind::ServerRestarted));
        }
        // A set that begins elects its first primary, and members that start become secondaries: nobody's trouble.
        let has_changed = known.role != server.role && server.role != ServerRole::Unknown;
        let moves =
            known.role == ServerRole::Primary || is_leading && self.another_has_led(id, pools);
        if has_changed && moves {
            let kind = SignalKind::RoleChanged {
                from: known.role,
                to: server.role,
            };
            signals.push(about_upstream(id, at, at, kind));
        }
    }

    /// Whether another member of the server's set was primary before.
    fn another_has_led(&self, id: UpstreamId, pools: &Pools) -> bool {
        let set = |id| pools.upstream(id).and_then(Upstream::set_name);
        let mut others = self.servers.iter().filter(|(other, _)| **other != id);
        set(id).is_some() && others.any(|(other, server)| server.has_led && set(*other) == set(id))
    }
}
