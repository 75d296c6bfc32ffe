//! Ports of the loopback that no other test takes.

use std::fs::{File, OpenOptions, create_dir_all};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

/// Below the range from which the kernel takes the ports of outgoing connections (32768 and up), so that none of
/// those can take a port between its reservation and its use.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port reserved for as long as this value lives, also against other test processes on this machine.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// Locked; the kernel unlocks it when the process ends, however it ends.
    _lock: File,
}

impl Port {
    /// Reserves a port on which nobody listens.
    pub(crate) fn reserve() -> Self {
        let directory = std::env::temp_dir().join("poolscope-test-ports");
        create_dir_all(&directory).unwrap();
        for attempt in 0..1000_u32 {
            let random = RandomState::new().hash_one(attempt) % u64::from(RANGE.end - RANGE.start);
            let number = RANGE.start + u16::try_from(random).unwrap();
            let lock = OpenOptions::new()
                .create(true)
                .append(true)
                .open(directory.join(number.to_string()))
                .unwrap();
            let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
            if lock.try_lock().is_ok() && free() {
                return Self {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no free port in {RANGE:?}");
    }

    /// A listener with room for one connection, which is taken: SYNs of all others are dropped until that is accepted,
    /// and are sent again after a second.
    pub(crate) fn listen_full(&self) -> (TcpListener, TcpStream) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // As the standard library's listeners do: connections of an earlier test may still wait at this port.
        socket.set_reuse_address(true).unwrap();
        socket.bind(&self.addr().into()).unwrap();
        socket.listen(0).unwrap();
        let filler = TcpStream::connect(self.addr()).unwrap();
        (socket.into(), filler)
    }

    /// The port.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// The port on 127.0.0.1.
    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
