//! poolscope: a transparent TCP proxy between applications and mongod that reads the MongoDB wire protocol
//! without changing a byte, and tells who holds which connections, in what state, and why they break.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod connection;
pub mod telemetry;
pub mod time;
pub mod wire;
