//! A connection of which whole messages come.

use crate::messages::Framer;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};

/// Bytes read at once.
pub const READ_MAX: usize = 64 * 1024;

pub struct Line {
    stream: TcpStream,
    framer: Framer,
}

impl Line {
    pub fn new(mut stream: TcpStream, registry: &Registry, token: Token) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Self {
            stream,
            framer: Framer::new(),
        })
    }

    /// Messages are small and few are under way: a socket that does not take one whole is broken.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if self.stream.write(message)? == message.len() {
            Ok(())
        } else {
            Err(io::Error::other("the socket does not take a small message"))
        }
    }

    /// Reads what has arrived and shows the beginning of each message; false when the peer has closed.
    pub fn read(&mut self, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        loop {
            let len = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut rest = &buffer[..len];
            while !rest.is_empty() {
                let took = self.framer.push(rest).map_err(io::Error::other)?;
                rest = &rest[took..];
                if self.framer.done() {
                    each(self.framer.head());
                    self.framer.reset();
                }
            }
            if len < buffer.len() {
                return Ok(true);
            }
        }
    }
}
