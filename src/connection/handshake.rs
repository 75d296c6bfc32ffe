//! What client and server say of themselves: the `client` metadata of a hello, and its reply.
//!
//! Both come from peers. Every text is cut, every list is bounded, and what has another type than the
//! specification says is left out.
//!
//! Sources: MongoDB Handshake specification § Specification, § Deviations; Server Discovery and Monitoring
//! § Parsing a hello or legacy hello response; `OP_COMPRESSED` specification § hello. The order of the checks
//! for the server's role is that of SDAM § type.

use std::hash::{DefaultHasher, Hash, Hasher};

use bson::raw::{RawArray, RawDocument};

use super::document::{array, elements, embedded, integer, is_true, items, text};
use super::{ClientMetadata, ServerFacts, ServerRole};
use crate::wire::{Compressor, ReplyFields};

/// Longest application name kept, in bytes. The specification allows 128; more shows who breaks it.
const APPLICATION_LEN_MAX: usize = 512;

/// Longest other text kept, in bytes. mongod refuses a `client` document beyond 1024 bytes in all.
const TEXT_LEN_MAX: usize = 256;

/// Members of a replica set kept. A set has at most 50.
const MEMBERS_MAX: usize = 64;

/// Compressors kept of one list. The protocol names four.
const COMPRESSORS_MAX: usize = 8;

/// What a hello says of its sender.
#[derive(Debug, Default)]
pub(super) struct Introduction {
    /// The `client` document and the options beside it.
    pub(super) metadata: ClientMetadata,
    /// `internalClient` is present: the sender is a member of a cluster.
    pub(super) is_internal: bool,
}

impl Introduction {
    /// Reads a hello; an absent one (it was larger than the capture limit) says nothing.
    pub(super) fn from_hello(document: Option<&RawDocument>) -> Self {
        let mut introduction = Self::default();
        let metadata = &mut introduction.metadata;
        for (name, element) in document.into_iter().flat_map(elements) {
            match name {
                "client" => {
                    if let Some(client) = embedded(&element) {
                        read_client(client, metadata);
                    }
                }
                "compression" => {
                    metadata.compressors_offered = array(&element).map_or(Vec::new(), compressors);
                }
                "loadBalanced" => metadata.load_balanced = is_true(&element),
                // Drivers send "2", some Go 2.x send true: whatever it is, it is there.
                "backpressure" => metadata.backpressure = true,
                "speculativeAuthenticate" | "saslSupportedMechs" => {
                    metadata.announces_credentials = true;
                }
                "internalClient" => introduction.is_internal = true,
                _ => {}
            }
        }
        introduction
    }
}

fn read_client(client: &RawDocument, metadata: &mut ClientMetadata) {
    for (part, element) in elements(client) {
        if part == "platform" {
            metadata.platform = text(&element, TEXT_LEN_MAX).unwrap_or_default();
        }
        for (name, element) in embedded(&element).into_iter().flat_map(elements) {
            let (field, len_max) = match (part, name) {
                ("application", "name") => (&mut metadata.application, APPLICATION_LEN_MAX),
                ("driver", "name") => (&mut metadata.driver_name, TEXT_LEN_MAX),
                ("driver", "version") => (&mut metadata.driver_version, TEXT_LEN_MAX),
                ("os", "type") => (&mut metadata.os_type, TEXT_LEN_MAX),
                ("os", "name") => (&mut metadata.os_name, TEXT_LEN_MAX),
                ("os", "architecture") => (&mut metadata.os_architecture, TEXT_LEN_MAX),
                ("os", "version") => (&mut metadata.os_version, TEXT_LEN_MAX),
                ("env", "name") => (&mut metadata.env_name, TEXT_LEN_MAX),
                ("env", "region") => (&mut metadata.env_region, TEXT_LEN_MAX),
                ("env", "container") => {
                    if let Some(container) = embedded(&element) {
                        read_container(container, metadata);
                    }
                    continue;
                }
                _ => continue,
            };
            *field = text(&element, len_max).unwrap_or_default();
        }
    }
}

fn read_container(container: &RawDocument, metadata: &mut ClientMetadata) {
    for (name, element) in elements(container) {
        let field = match name {
            "runtime" => &mut metadata.container_runtime,
            "orchestrator" => &mut metadata.container_orchestrator,
            _ => continue,
        };
        *field = text(&element, TEXT_LEN_MAX).unwrap_or_default();
    }
}

/// The compressors of a list that the protocol has a name for; Node writes `["none"]` for no compression.
fn compressors(list: &RawArray) -> Vec<Compressor> {
    items(list)
        .take(COMPRESSORS_MAX)
        .filter_map(|element| compressor(&text(&element, TEXT_LEN_MAX)?))
        .collect()
}

fn compressor(name: &str) -> Option<Compressor> {
    [
        Compressor::Noop,
        Compressor::Snappy,
        Compressor::Zlib,
        Compressor::Zstd,
    ]
    .into_iter()
    .find(|known| known.label() == name)
}

/// Reads the reply to a hello. The connection's compressor is negotiated by its first hello alone, and so is
/// `negotiated` when this reply names none.
pub(super) fn server_facts(
    reply: &RawDocument,
    fields: &ReplyFields,
    negotiated: Option<Compressor>,
) -> ServerFacts {
    let mut facts = ServerFacts {
        topology_version: fields.topology_version,
        compressor: negotiated,
        ..ServerFacts::default()
    };
    let mut announced = Announced::default();
    let mut members = [const { Vec::new() }; 3];
    for (name, element) in elements(reply) {
        match name {
            "connectionId" => facts.connection_id = integer(&element),
            "setName" => facts.set_name = text(&element, TEXT_LEN_MAX),
            "me" => facts.me = text(&element, TEXT_LEN_MAX),
            "primary" => facts.primary = text(&element, TEXT_LEN_MAX),
            "hosts" => members[0] = array(&element).map_or(Vec::new(), names),
            "passives" => members[1] = array(&element).map_or(Vec::new(), names),
            "arbiters" => members[2] = array(&element).map_or(Vec::new(), names),
            "maxWireVersion" => {
                facts.max_wire_version = integer(&element).and_then(|n| i32::try_from(n).ok());
            }
            "setVersion" => facts.set_version = integer(&element),
            "compression" => {
                let list = array(&element).map_or(Vec::new(), compressors);
                facts.compressor = list.first().copied().or(negotiated);
            }
            "msg" => {
                announced.is_router = text(&element, TEXT_LEN_MAX).as_deref() == Some("isdbgrid");
            }
            "isWritablePrimary" | "ismaster" => announced.is_writable |= is_true(&element),
            "secondary" => announced.is_secondary = is_true(&element),
            "arbiterOnly" => announced.is_arbiter = is_true(&element),
            "isreplicaset" => announced.is_uninitiated = is_true(&element),
            _ => {}
        }
    }
    facts.members = members.into_iter().flatten().take(MEMBERS_MAX).collect();
    facts.role = announced.role(facts.set_name.is_some());
    facts
}

fn names(list: &RawArray) -> Vec<String> {
    items(list)
        .take(MEMBERS_MAX)
        .filter_map(|element| text(&element, TEXT_LEN_MAX))
        .collect()
}

/// What a hello reply says about the server's role.
#[derive(Clone, Copy, Debug, Default)]
struct Announced {
    is_router: bool,
    is_writable: bool,
    is_secondary: bool,
    is_arbiter: bool,
    is_uninitiated: bool,
}

impl Announced {
    const fn role(self, is_in_set: bool) -> ServerRole {
        if self.is_router {
            ServerRole::Mongos
        } else if self.is_uninitiated {
            ServerRole::Other
        } else if !is_in_set {
            ServerRole::Standalone
        } else if self.is_writable {
            ServerRole::Primary
        } else if self.is_arbiter {
            ServerRole::Arbiter
        } else if self.is_secondary {
            ServerRole::Secondary
        } else {
            ServerRole::Other
        }
    }
}

/// A number that differs when any fact differs: keeping it instead of the facts saves each connection the
/// names of a whole replica set.
pub(super) fn fingerprint(facts: &ServerFacts) -> u64 {
    let ServerFacts {
        connection_id,
        set_name,
        me,
        members,
        primary,
        role,
        topology_version,
        max_wire_version,
        compressor,
        set_version,
    } = facts;
    let mut hasher = DefaultHasher::new();
    (connection_id, set_name, me, members, primary).hash(&mut hasher);
    (
        role,
        topology_version,
        max_wire_version,
        compressor,
        set_version,
    )
        .hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn every_field_of_the_metadata_is_read() {
        let hello = rawdoc! {
            "ismaster": 1,
            "helloOk": true,
            "client": {
                "application": { "name": "orders" },
                "driver": { "name": "PyMongo|c|async", "version": "4.20.0||" },
                "os": { "type": "Linux", "name": "Debian", "architecture": "x86_64", "version": "12" },
                "platform": "CPython 3.13",
                "env": {
                    "name": "aws.lambda",
                    "region": "eu-central-1",
                    "memory_mb": 1024,
                    "container": { "runtime": "docker", "orchestrator": "kubernetes" },
                },
            },
            "compression": ["none", "zstd", "lz4", "snappy"],
            "loadBalanced": true,
            "backpressure": "2",
            "saslSupportedMechs": "admin.alice",
        };
        let introduction = Introduction::from_hello(Some(&hello));
        assert!(!introduction.is_internal);
        let expected = ClientMetadata {
            application: "orders".into(),
            driver_name: "PyMongo|c|async".into(),
            driver_version: "4.20.0||".into(),
            os_type: "Linux".into(),
            os_name: "Debian".into(),
            os_architecture: "x86_64".into(),
            os_version: "12".into(),
            platform: "CPython 3.13".into(),
            env_name: "aws.lambda".into(),
            env_region: "eu-central-1".into(),
            container_runtime: "docker".into(),
            container_orchestrator: "kubernetes".into(),
            compressors_offered: vec![Compressor::Zstd, Compressor::Snappy],
            load_balanced: true,
            backpressure: true,
            announces_credentials: true,
        };
        assert_eq!(introduction.metadata, expected);
    }

    #[test]
    fn metadata_of_wrong_types_or_of_none_is_empty() {
        let hello = rawdoc! {
            "hello": 1,
            "client": { "application": { "name": 7 }, "driver": "x", "os": [1, 2], "platform": { "a": 1 } },
            "compression": "zlib",
            "loadBalanced": "yes",
        };
        for document in [Some(hello.as_ref()), None] {
            assert_eq!(
                Introduction::from_hello(document).metadata,
                ClientMetadata::default()
            );
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "x".repeat(4096);
        let hello = rawdoc! {
            "hello": 1,
            "client": { "application": { "name": long.as_str() }, "driver": { "name": long.as_str() } },
        };
        let metadata = Introduction::from_hello(Some(&hello)).metadata;
        assert_eq!(metadata.application.len(), APPLICATION_LEN_MAX);
        assert_eq!(metadata.driver_name.len(), TEXT_LEN_MAX);
    }

    #[test]
    fn a_member_of_a_replica_set_describes_it() {
        let reply = rawdoc! {
            "helloOk": true,
            "ismaster": true,
            "setName": "rs0",
            "setVersion": 3,
            "hosts": ["a:1", "b:1"],
            "passives": ["c:1"],
            "arbiters": ["d:1"],
            "primary": "a:1",
            "me": "a:1",
            "connectionId": 42,
            "maxWireVersion": 17,
            "compression": ["zlib", "snappy"],
        };
        let facts = server_facts(&reply, &ReplyFields::default(), None);
        assert_eq!(facts.connection_id, Some(42));
        assert_eq!(facts.set_name.as_deref(), Some("rs0"));
        assert_eq!(facts.me.as_deref(), Some("a:1"));
        assert_eq!(facts.primary.as_deref(), Some("a:1"));
        assert_eq!(facts.members, ["a:1", "b:1", "c:1", "d:1"]);
        assert_eq!(facts.role, ServerRole::Primary);
        assert_eq!(facts.max_wire_version, Some(17));
        assert_eq!(facts.set_version, Some(3));
        assert_eq!(facts.compressor, Some(Compressor::Zlib));

        let again = ServerFacts {
            primary: Some("b:1".into()),
            ..facts.clone()
        };
        assert_eq!(fingerprint(&facts), fingerprint(&facts.clone()));
        assert_ne!(fingerprint(&facts), fingerprint(&again));
    }

    #[test]
    fn roles_follow_the_order_of_the_specification() {
        let check = |reply: bson::raw::RawDocumentBuf, role| {
            let facts = server_facts(&reply, &ReplyFields::default(), None);
            assert_eq!(facts.role, role, "{reply:?}");
        };
        check(rawdoc! { "ismaster": true }, ServerRole::Standalone);
        check(
            rawdoc! { "isWritablePrimary": true, "msg": "isdbgrid" },
            ServerRole::Mongos,
        );
        check(rawdoc! { "isreplicaset": true }, ServerRole::Other);
        check(
            rawdoc! { "setName": "a", "isWritablePrimary": true },
            ServerRole::Primary,
        );
        check(
            rawdoc! { "setName": "a", "ismaster": false, "secondary": true },
            ServerRole::Secondary,
        );
        check(
            rawdoc! { "setName": "a", "arbiterOnly": true },
            ServerRole::Arbiter,
        );
        check(rawdoc! { "setName": "a" }, ServerRole::Other);
    }
}
