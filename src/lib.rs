//! poolscope: a transparent TCP proxy between applications and mongod that reads the MongoDB wire protocol
//! without changing a byte, and tells who holds which connections, in what state, and why they break.
//!
//! ```text
//! driver ──TCP──▶ listener ▶ relay ════════════ bytes, untouched ════════════▶ upstream mongod
//!                              ║ shows each chunk after it was written
//!                              ▼
//!                 tap ▶ wire (framer, sections, BSON walk) ▶ connection (tracker)
//!                              │ per exchange: relaxed atomics of cells resolved beforehand
//!                              │ per fact: the connection's record changes, and an entry goes on
//!                              ▼                                        │ bounded channel
//!                          clients ──picture──▶ metrics · admin         ▼
//!                              └──counters, once a second──▶ live: observer ──▶ journal
//!                                                              │ pools ▶ detect ▶ diagnose
//!                                                              ▼
//!                                incidents, mongo clients ──▶ metrics · admin ──HTTP──▶ Prometheus · CLI
//! ```
//!
//! Three rules carry the rest.
//!
//! 1. **Write first, look second, fail open.** The relay forwards a chunk before anyone decodes it. Looking that
//!    fails or panics makes its connection opaque, is counted, and the bytes go on.
//! 2. **The core is pure.** `time`, `wire`, `connection`, `timeline`, `clients`, `pools`, `detect`, `diagnose` and
//!    `observer` do no IO, read no clock and have no globals: time comes in as a value. So the same timeline gives
//!    the same incidents, be it live traffic, a journal, a packet capture or a test.
//! 3. **Cost is paid per connection, not per operation.** An exchange touches cells that were resolved at accept
//!    or handshake: no look-up, no lock shared between connections, no queue, no allocation.
//!
//! # Floors
//!
//! A module uses only modules above it in this list.
//!
//! | module | what it is for |
//! |---|---|
//! | [`time`] | moments as plain integers |
//! | [`wire`] | the protocol: chunks in, messages out |
//! | [`connection`] | one connection's state machine: messages in, facts out |
//! | [`timeline`] | entries: facts with their moments, also as text |
//! | [`clients`] | who holds which connections: facts in, pictures out |
//! | [`pools`] | which connections are whose pool, and what a pool goes through |
//! | [`detect`] | what is off: entries and tables in, signals out |
//! | [`diagnose`] | what it means: signals in, incidents out |
//! | [`observer`] | the four above behind one door: entries in order and ticks in, incidents out |
//! | [`clock`] [`telemetry`] [`config`] [`metrics`] | the only clock; logging; settings; the exposition |
//! | [`journal`] [`live`] | the timeline in files, and read back; the thread that reasons about live traffic |
//! | [`capture`] | packet captures instead of live traffic |
//! | [`proxy`] [`admin`] | moving bytes; answering HTTP |
//! | [`app`] | wiring, start order, drain |
//! | [`cli`] | what people type |
//!
//! # Words
//!
//! *Chunk*: bytes of one read. *Direction*: to the server or to the client. *Message*: one unit of the wire
//! protocol, *section* a part of an `OP_MSG`. *Exchange*: a request with its replies. *Handshake*: from accept until
//! the first ordinary command may be sent. *Role*: what a connection is for (application, monitor, round-trip
//! monitor, probe, tool, member). *Ending*: initiator × manner × phase. *Observation*: a fact that changes what
//! is known about a connection. *Client instance*: one process of an application, as far as the wire tells.
//! *Mongo client*: one `MongoClient` object; an instance may hold several. *Pool*: one mongo client's connections
//! to one server. *Opaque*: forwarded, no longer decoded. *Tap*: what is shown the forwarded bytes. *Entry*: one
//! fact about one connection with its moment. *Timeline*: entries in the order of their moments. *Sample*: the
//! counters of a connection at one moment, told as an entry. *Tick*: time passing on a fixed grid. *Journal*: the
//! timeline in files. *Signal*: a detector's finding. *Case*: signals that belong together. *Incident*: a case with a
//! cause that is sure enough to be told. *Cause*: why, from a closed list, with evidence for and against.

pub mod time;

pub mod wire;

pub mod connection;

pub mod timeline;

pub mod clients;

pub mod pools;

pub mod detect;

pub mod diagnose;

pub mod observer;

pub mod capture;
pub mod clock;
pub mod config;
pub mod journal;
pub mod live;
pub mod metrics;
pub mod telemetry;

pub mod admin;
pub mod proxy;

pub mod app;

pub mod cli;
