//! The filters of a query: who asks for something that does not exist is told what does.

use super::api::{Client, Refusal};
use super::convert::{address_of, client_name};
use crate::clients::ConnectionRow;
use crate::connection::{Role, State};

/// Connections in one answer unless the query says otherwise.
const LIMIT_DEFAULT: usize = 1000;
/// Connections in one answer at most: about 700 bytes each, so some tens of megabytes.
const LIMIT_MAX: usize = 100_000;

/// What a query asks for; every part that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Application, address or `app@address`.
    client: Option<String>,
    state: Option<State>,
    role: Option<Role>,
    upstream: Option<String>,
    pub(super) limit: usize,
}

impl Filter {
    /// Reads the parameters of a query; `known` are those that the path has, `upstreams` the names there are.
    pub(super) fn from_query(
        pairs: Vec<(String, String)>,
        known: &[&str],
        upstreams: &[String],
    ) -> Result<Self, Refusal> {
        let mut filter = Self {
            client: None,
            state: None,
            role: None,
            upstream: None,
            limit: LIMIT_DEFAULT,
        };
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                return Err(Refusal {
                    error: format!("no filter of this path is called {name:?}"),
                    allowed: known.iter().map(|&name| name.to_owned()).collect(),
                });
            }
            match name.as_str() {
                "client" => filter.client = Some(value),
                "state" => filter.state = Some(one_of("state", &value, State::ALL, State::label)?),
                "role" => filter.role = Some(one_of("role", &value, Role::ALL, Role::label)?),
                "upstream" => {
                    if !upstreams.contains(&value) {
                        return Err(Refusal {
                            error: format!("no upstream is called {value:?}"),
                            allowed: upstreams.to_vec(),
                        });
                    }
                    filter.upstream = Some(value);
                }
                _ => filter.limit = limit(&value)?,
            }
        }
        Ok(filter)
    }

    /// Whether a connection is asked for.
    pub(super) fn has_connection(&self, row: &ConnectionRow) -> bool {
        self.state.is_none_or(|state| row.state == state)
            && self.role.is_none_or(|role| row.role == role)
            && self.has_upstream(&row.upstream_name)
            && self.client.as_ref().is_none_or(|client| {
                let address = address_of(row);
                *client == *row.app
                    || *client == address
                    || *client == client_name(&row.app, &address)
            })
    }

    /// Whether a client instance is asked for.
    pub(super) fn has_client(&self, row: &Client) -> bool {
        self.has_upstream(&row.upstream)
            && self
                .client
                .as_ref()
                .is_none_or(|client| [&row.app, &row.address, &row.client].contains(&client))
    }

    fn has_upstream(&self, name: &str) -> bool {
        self.upstream
            .as_ref()
            .is_none_or(|upstream| upstream == name)
    }
}

fn limit(value: &str) -> Result<usize, Refusal> {
    value
        .parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| Refusal {
            error: format!("{value:?} is not a limit"),
            allowed: vec![format!("1 to {LIMIT_MAX}")],
        })
}

fn one_of<T: Copy, const N: usize>(
    what: &str,
    value: &str,
    all: [T; N],
    label: fn(T) -> &'static str,
) -> Result<T, Refusal> {
    all.into_iter()
        .find(|one| label(*one) == value)
        .ok_or_else(|| Refusal {
            error: format!("{value:?} is not a {what}"),
            allowed: all.map(|one| label(one).to_owned()).to_vec(),
        })
}
