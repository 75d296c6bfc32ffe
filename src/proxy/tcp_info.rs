//! What the kernel knows of the sockets of open connections, asked about once a second.
//!
//! A slow or lossy network shows here and nowhere else in what a proxy sees. The worker that owns a connection asks,
//! so that a socket is never asked while it is being closed.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::time::Micros;
use crate::timeline::TcpState;

/// Connections asked in a turn; two system calls each, about a microsecond together.
const SAMPLES_MAX: usize = 512;

/// Whose turn it is to be asked.
///
/// **Invariant:** a turn asks at most [`SAMPLES_MAX`] connections: first those with an unanswered request, then all
/// by turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The first place that was not asked by turns yet.
    next: usize,
}

impl Turns {
    /// Asks some of the connections in `places` places. `is_busy` says whether a place's connection waits for an
    /// answer, and `None` where there is none to ask.
    pub(super) fn turn(
        &mut self,
        places: usize,
        is_busy: impl Fn(usize) -> Option<bool>,
        mut ask: impl FnMut(usize),
    ) {
        // Half of the places, so that very many busy ones do not keep the others from their turn.
        let busy = (0..places).filter(|place| is_busy(*place) == Some(true));
        let mut left = SAMPLES_MAX;
        for place in busy.take(SAMPLES_MAX / 2) {
            ask(place);
            left -= 1;
        }
        let from = self.next.min(places);
        let others = (from..places).chain(0..from);
        let others = others.filter(|place| is_busy(*place).is_some());
        for place in others.take(left) {
            ask(place);
            self.next = place + 1;
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
pub(super) fn tcp_state(socket: BorrowedFd<'_>) -> Option<TcpState> {
    let words = ask(socket)?;
    let millis = u64::from(words[LAST_ACK_RECEIVED]);
    Some(TcpState {
        rtt: Micros::new(words[RTT]),
        segments: words[DATA_SEGMENTS_OUT],
        retransmits: words[TOTAL_RETRANSMITS],
        duplicates: words[DUPLICATES],
        unacked: words[UNACKED],
        since_ack: Duration::from_millis(millis).into(),
    })
}

#[expect(
    unsafe_code,
    reason = "no safe interface of the libraries in use asks for TCP_INFO"
)]
fn ask(socket: BorrowedFd<'_>) -> Option<[u32; WORDS]> {
    let mut words = [0_u32; WORDS];
    let mut len = libc::socklen_t::try_from(size_of_val(&words)).ok()?;
    // SAFETY: the kernel writes at most `len` bytes to `words`, which has as many, and any bytes are valid there;
    // `len` is valid for a write. A descriptor that is no socket is an error, not a danger.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
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

    use std::os::fd::AsFd;

    use super::*;

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
        let state = tcp_state(client.as_fd()).unwrap();
        // The loopback needs microseconds, a busy machine some more.
        assert!(state.rtt > Micros::ZERO, "{state:?}");
        assert!(state.rtt.duration() < Duration::from_secs(5), "{state:?}");
        assert!(
            state.since_ack.duration() < Duration::from_mins(1),
            "{state:?}"
        );
        // Each ping was written alone and answered before the next.
        assert_eq!(state.segments - state.retransmits, 10, "{state:?}");
        assert!(state.duplicates <= state.retransmits, "{state:?}");

        // What nobody reads stays unacknowledged beyond the window, or acknowledged: never more than was sent.
        assert!(state.unacked < 10, "{state:?}");
    }

    /// The places that are asked in a turn.
    fn asked(
        turns: &mut Turns,
        places: usize,
        is_busy: impl Fn(usize) -> Option<bool>,
    ) -> Vec<usize> {
        let mut asked = Vec::new();
        turns.turn(places, is_busy, |place| asked.push(place));
        asked
    }

    #[test]
    fn each_has_its_turn_when_there_are_too_many() {
        let mut turns = Turns::default();
        let places = SAMPLES_MAX + 100;
        let idle = |_| Some(false);
        let first = asked(&mut turns, places, idle);
        assert!(first.into_iter().eq(0..SAMPLES_MAX));
        // The last hundred, and the first of the next round.
        let second = asked(&mut turns, places, idle);
        let expected = (SAMPLES_MAX..places).chain(0..SAMPLES_MAX - 100);
        assert!(second.into_iter().eq(expected));
        // Whoever would be next may be gone, and there may be fewer places than before.
        let gone = |place| (place != SAMPLES_MAX - 100).then_some(false);
        assert_eq!(asked(&mut turns, places, gone)[0], SAMPLES_MAX - 99);
        assert_eq!(asked(&mut turns, 3, idle), [0, 1, 2]);
    }

    #[test]
    fn those_that_wait_for_an_answer_come_first_but_leave_room() {
        let mut turns = Turns::default();
        let asked = asked(&mut turns, 10_000, |place| Some(place >= 5_000));
        assert_eq!(asked.len(), SAMPLES_MAX);
        assert_eq!(asked[..2], [5_000, 5_001]);
        assert_eq!(asked[SAMPLES_MAX / 2..][..2], [0, 1]);
    }

    #[test]
    fn what_is_no_socket_tells_nothing() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(tcp_state(file.as_fd()), None);
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(tcp_state(datagrams.as_fd()), None);
    }
}
