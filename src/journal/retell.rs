//! What is open, told again.

use crate::connection::Role;
use crate::pools::{Connection, Pools};
use crate::time::Timestamp;
use crate::timeline::{Entry, Fact};

/// Everything known of the connections that are open, as entries with the moments they had, in their order. Each is
/// made when its turn comes: all of them together take megabytes.
pub(super) fn retell(pools: &Pools) -> impl ExactSizeIterator<Item = Entry> {
    let open: Vec<&Connection> = pools
        .connections()
        .filter(|connection| connection.is_open())
        .collect();
    let uses: Vec<_> = pools.session_uses().collect();
    // Facts of one moment stay in the order in which they belong, uses of sessions last.
    let mut order: Vec<(Timestamp, usize, usize)> = Vec::new();
    for (place, connection) in open.iter().enumerate() {
        let entries = retell_one(connection, pools).into_iter().enumerate();
        order.extend(entries.map(|(number, entry)| (entry.at, place, number)));
    }
    let uses_at = uses.iter().enumerate();
    order.extend(uses_at.map(|(number, (.., at))| (*at, open.len(), number)));
    order.sort_unstable();
    // The facts of a handshake follow each other.
    let (mut made_for, mut made) = (None, Vec::new());
    order.into_iter().map(move |(at, place, number)| {
        let Some(connection) = open.get(place) else {
            let (connection, session, _) = uses[number];
            return Entry {
                at,
                connection,
                fact: Fact::SessionUsed(session),
            };
        };
        if made_for != Some(place) {
            made_for = Some(place);
            made = retell_one(connection, pools);
        }
        made[number].clone()
    })
}

fn retell_one(connection: &Connection, pools: &Pools) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut tell = |at: Timestamp, fact: Fact| {
        entries.push(Entry {
            at,
            connection: connection.id,
            fact,
        });
    };
    let opened_at = connection.opened_at;
    let opened = crate::timeline::Opened {
        upstream: connection.upstream,
        peer: connection.peer,
    };
    tell(opened_at, Fact::Opened(opened));
    if let Some(at) = connection.dialled_at {
        tell(at, Fact::Dialled(at.since(opened_at)));
    }
    if let Some(failure) = connection.dial_failure {
        tell(opened_at, Fact::DialFailed(failure));
    }
    let instance = connection.instance.and_then(|id| pools.instance(id));
    if let (Some(at), Some(instance)) = (connection.introduced_at, instance) {
        let client = Box::new((*instance.client).clone());
        let request_id = connection.first_request_id.unwrap_or_default();
        tell(at, Fact::Introduced { client, request_id });
    }
    let upstream = pools.upstream(connection.upstream);
    if let Some(at) = connection.hello_answered_at {
        let asked_at = connection.introduced_at.unwrap_or(opened_at);
        tell(at, Fact::HelloAnswered(at.since(asked_at)));
        if let Some(server) = upstream.and_then(|upstream| upstream.server.as_ref()) {
            let mut server = Box::new((**server).clone());
            server.connection_id = connection.server_connection_id;
            tell(at, Fact::Described(server));
        }
    }
    if let Some((at, authentication)) = &connection.authentication {
        tell(*at, Fact::Authenticated(authentication.clone()));
    }
    if let Some(at) = connection.ready_at {
        tell(at, Fact::Ready(at.since(opened_at)));
    }
    // When these were found is not remembered, only that it was after the connection stood.
    let stood_at = connection.stood_at();
    if connection.role != Role::Unknown {
        tell(stood_at, Fact::RoleFound(connection.role));
    }
    if let Some(interval) = connection.heartbeat {
        tell(stood_at, Fact::Heartbeat(interval));
    }
    for _ in 0..connection.transactions_open {
        tell(stood_at, Fact::TransactionStarted);
    }
    if let Some(reason) = connection.opaque {
        tell(stood_at, Fact::TurnedOpaque(reason));
    }
    if let Some((at, error)) = connection.last_error {
        tell(at, Fact::Failed(error));
    }
    if let Some(at) = connection.said_goodbye_at {
        tell(at, Fact::SessionsEnded(Vec::new()));
    }
    let last = connection.last;
    let sampled_at = last.from_client_at.max(last.from_server_at).max(stood_at);
    tell(sampled_at, Fact::Sampled(last));
    entries
}
