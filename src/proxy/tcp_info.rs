//! What the kernel knows of the sockets of open connections, asked about once a second.
//!
//! ```text
//! connection task ──watch──▶ registry of its thread ◀──once a second── sampler of the thread ──▶ TcpGauge
//! ```
//!
//! A slow or lossy network shows here and nowhere else in what a proxy sees. Everything happens on the thread of the
//! connection, so that a socket is never asked while it is being closed.
//!
//! **Invariant:** a turn asks at most [`SAMPLES_MAX`] connections: first those with an unanswered request, then the
//! others by turns.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::clients::{ConnectionId, TcpGauge};
use crate::timeline::TcpState;

/// Time between two turns.
const TURN: Duration = Duration::from_secs(1);

/// Connections asked in a turn; two system calls each, about a microsecond together.
const SAMPLES_MAX: usize = 512;

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::default();
}

#[derive(Debug, Default)]
struct Registry {
    open: BTreeMap<ConnectionId, Sockets>,
    /// The last one that was asked by turns.
    asked: Option<ConnectionId>,
}

#[derive(Debug)]
struct Sockets {
    /// The client's and the server's. Both are open for as long as they stand here.
    descriptors: [RawFd; 2],
    gauge: TcpGauge,
}

/// A connection whose sockets are sampled until this is dropped, on the thread that made it.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    id: ConnectionId,
    /// The sockets outlive the watch.
    _sockets: [&'a TcpStream; 2],
}

/// Samples the sockets of a connection from now on.
pub(super) fn watch<'a>(
    gauge: TcpGauge,
    client: &'a TcpStream,
    server: &'a TcpStream,
) -> Watch<'a> {
    let id = gauge.id();
    let sockets = Sockets {
        descriptors: [client.as_raw_fd(), server.as_raw_fd()],
        gauge,
    };
    REGISTRY.with_borrow_mut(|registry| registry.open.insert(id, sockets));
    Watch {
        id,
        _sockets: [client, server],
    }
}

impl Drop for Watch<'_> {
    /// Asks once more, for the end to know how it was.
    fn drop(&mut self) {
        // A thread that ends may have dropped its registry before the tasks: then nobody asks any more.
        let sockets = REGISTRY.try_with(|registry| registry.borrow_mut().open.remove(&self.id));
        if let Ok(Some(sockets)) = sockets {
            sockets.sample();
        }
    }
}

/// Samples the sockets of a connection that is being watched on this thread, out of turn.
pub(super) fn refresh(id: ConnectionId) {
    REGISTRY.with_borrow(|registry| {
        if let Some(sockets) = registry.open.get(&id) {
            sockets.sample();
        }
    });
}

/// Samples the sockets of this thread's connections, for ever.
pub(super) async fn sample_forever() {
    let mut turn = tokio::time::interval(TURN);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        REGISTRY.with_borrow_mut(Registry::turn);
    }
}

impl Registry {
    fn turn(&mut self) {
        // Half of the places, so that very many busy ones do not keep the others from their turn.
        let busy = self.open.values().filter(|one| one.gauge.is_busy());
        let mut left = SAMPLES_MAX;
        for sockets in busy.take(SAMPLES_MAX / 2) {
            sockets.sample();
            left -= 1;
        }
        let after = self.asked.map_or(0, |asked| asked.0 + 1);
        let rest = self.open.range(ConnectionId(after)..);
        let again = self.open.range(..ConnectionId(after));
        let mut asked = self.asked;
        for (id, sockets) in rest.chain(again).take(left) {
            sockets.sample();
            asked = Some(*id);
        }
        self.asked = asked;
    }
}

impl Sockets {
    fn sample(&self) {
        let [client, server] = self.descriptors.map(tcp_state);
        if client.is_some() || server.is_some() {
            self.gauge
                .told([client, server].map(Option::unwrap_or_default));
        }
    }
}

/// Words of `struct tcp_info` up to `tcpi_dsack_dups`; a newer kernel knows more and cuts its answer. The first two
/// words are bytes and bits. Source: linux/tcp.h.
const WORDS: usize = 55;
/// Words that are told by all kernels since 2.6.10, up to `tcpi_total_retrans`. The others stay 0 with an older one.
const WORDS_MIN: usize = TOTAL_RETRANSMITS + 1;
/// `tcpi_unacked`: segments.
const UNACKED: usize = 6;
/// `tcpi_last_ack_recv`: milliseconds.
const LAST_ACK_RECEIVED: usize = 14;
/// `tcpi_rtt`: microseconds.
const RTT: usize = 17;
/// `tcpi_total_retrans`: segments.
const TOTAL_RETRANSMITS: usize = 25;
/// `tcpi_data_segs_out`: segments.
const DATA_SEGMENTS_OUT: usize = 39;
/// `tcpi_dsack_dups`: segments.
const DUPLICATES: usize = 54;

/// Asks the kernel; `None` when it does not tell.
fn tcp_state(descriptor: RawFd) -> Option<TcpState> {
    let words = ask(descriptor)?;
    let millis = u64::from(words[LAST_ACK_RECEIVED]);
    Some(TcpState {
        rtt: Duration::from_micros(u64::from(words[RTT])),
        segments: words[DATA_SEGMENTS_OUT],
        retransmits: words[TOTAL_RETRANSMITS],
        duplicates: words[DUPLICATES],
        unacked: words[UNACKED],
        since_ack: Duration::from_millis(millis),
    })
}

#[expect(
    unsafe_code,
    reason = "no safe interface of the libraries in use asks for TCP_INFO"
)]
fn ask(descriptor: RawFd) -> Option<[u32; WORDS]> {
    let mut words = [0_u32; WORDS];
    let mut len = libc::socklen_t::try_from(size_of_val(&words)).ok()?;
    // SAFETY: the kernel writes at most `len` bytes to `words`, which has as many, and any bytes are valid there;
    // `len` is valid for a write. A descriptor that is no socket is an error, not a danger.
    let answer = unsafe {
        libc::getsockopt(
            descriptor,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let told = usize::try_from(len).ok()?;
    (answer == 0 && told >= WORDS_MIN * size_of::<u32>()).then_some(words)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use std::io::{Read as _, Write as _};

    use std::sync::Arc;

    use super::*;
    use crate::clients::{Directory, DirectoryLimits, Recorder, UpstreamId, UpstreamSpec};
    use crate::time::Timestamp;

    #[test]
    fn a_real_socket_has_a_round_trip_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        for _ in 0..10 {
            client.write_all(b"ping").unwrap();
            server.read_exact(&mut [0; 4]).unwrap();
            server.write_all(b"pong").unwrap();
            client.read_exact(&mut [0; 4]).unwrap();
        }
        let state = tcp_state(client.as_raw_fd()).unwrap();
        // The loopback needs microseconds, a busy machine some more.
        assert!(state.rtt > Duration::ZERO, "{state:?}");
        assert!(state.rtt < Duration::from_secs(5), "{state:?}");
        assert!(state.since_ack < Duration::from_mins(1), "{state:?}");
        // Each ping was written alone and answered before the next.
        assert_eq!(state.segments - state.retransmits, 10, "{state:?}");
        assert!(state.duplicates <= state.retransmits, "{state:?}");

        // What nobody reads stays unacknowledged beyond the window, or acknowledged: never more than was sent.
        assert!(state.unacked < 10, "{state:?}");
    }

    /// Gauges of new connections.
    fn gauges(count: usize) -> Vec<(Recorder, TcpGauge)> {
        let limits = DirectoryLimits {
            clients_max: 10,
            client_ttl: Duration::from_mins(1),
        };
        let upstream = UpstreamSpec {
            name: "db".to_owned(),
            listen: "127.0.0.1:1".to_owned(),
            address: "127.0.0.1:2".to_owned(),
            advertised: Vec::new(),
        };
        let directory = Arc::new(Directory::new(limits, vec![upstream]));
        let open = || {
            let at = Timestamp::from_nanos(1_000_000_000);
            let recorder = directory.open(UpstreamId(0), "10.0.0.1:1".parse().unwrap(), at);
            let gauge = recorder.tcp_gauge();
            (recorder, gauge)
        };
        (0..count).map(|_| open()).collect()
    }

    #[tokio::test]
    async fn a_socket_is_forgotten_before_it_is_closed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = tokio::net::TcpStream::connect(addr).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let watched = || REGISTRY.with_borrow(|registry| registry.open.len());
        let (_recorder, gauge) = gauges(1).remove(0);
        let id = gauge.id();
        {
            let _watch = watch(gauge, &client, &server);
            REGISTRY.with_borrow(|registry| {
                let open = [client.as_raw_fd(), server.as_raw_fd()];
                assert_eq!(registry.open[&id].descriptors, open);
            });
        }
        // The streams, which the watch borrows, are still open here.
        assert_eq!(watched(), 0);
        assert!(tcp_state(client.as_raw_fd()).is_some());
        drop((client, server));

        // A task that is torn down in the midst drops its watch before its streams, as it declared them before.
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let (other, _) = listener.accept().await.unwrap();
        let (_recorder, gauge) = gauges(1).remove(0);
        let tasks = tokio::task::LocalSet::new();
        let task = tasks.spawn_local(async move {
            let _watch = watch(gauge, &stream, &other);
            std::future::pending::<()>().await;
        });
        tasks.run_until(tokio::task::yield_now()).await;
        tasks
            .run_until(async {
                while watched() == 0 {
                    tokio::task::yield_now().await;
                }
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            })
            .await;
        assert_eq!(watched(), 0);
    }

    #[test]
    fn each_has_its_turn_when_there_are_too_many() {
        let count = SAMPLES_MAX + 100;
        let mut registry = Registry::default();
        let connections = gauges(count);
        for (recorder, gauge) in &connections {
            let sockets = Sockets {
                descriptors: [-1, -1],
                gauge: gauge.clone(),
            };
            registry.open.insert(recorder.id(), sockets);
        }
        let ids: Vec<_> = registry.open.keys().copied().collect();
        registry.turn();
        assert_eq!(registry.asked, Some(ids[SAMPLES_MAX - 1]));
        registry.turn();
        // The last hundred, and the first of the next round.
        assert_eq!(registry.asked, Some(ids[SAMPLES_MAX - 101]));
        // Whoever had its turn last may be gone.
        registry.open.remove(&ids[SAMPLES_MAX - 101]);
        registry.turn();
        assert_eq!(registry.asked, Some(ids[SAMPLES_MAX - 201]));
    }

    #[test]
    fn what_is_no_socket_tells_nothing() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(tcp_state(file.as_raw_fd()), None);
        assert_eq!(tcp_state(-1), None);
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(tcp_state(datagrams.as_raw_fd()), None);
    }
}
