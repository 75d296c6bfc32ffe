//! The integration tests: one binary, modules named by the behaviour they show, real parts, loopback only.
//!
//! `make test` installs what they run on; `tests/setup/install` does only that.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected should end there"
)]

mod architecture;
mod budget;
mod bypass;
mod capture_parity;
mod captures;
mod clears;
mod codes;
mod command_line;
mod demo;
mod deploy;
mod drain;
mod drivers;
mod exposition;
mod hostile;
mod hung_dials;
mod incidents;
mod journal;
mod mongo_clients;
mod parity;
mod pools;
mod prometheus;
mod readme;
mod relay;
mod restart;
mod scenarios;
mod secrets;
mod soak;
#[expect(
    dead_code,
    reason = "the harness is one piece, whichever of it the tests use"
)]
mod support;
mod timelines;
mod tls;
mod truth;
