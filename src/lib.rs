//! poolscope: a transparent TCP proxy between applications and mongod that reads the MongoDB wire protocol
//! without changing a byte, and tells who holds which connections, in what state, and why they break.

pub mod clients;
pub mod config;
pub mod connection;
pub mod metrics;
pub mod time;
pub mod wire;
