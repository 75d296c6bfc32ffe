//! From packets to TCP segments.
//!
//! ```text
//! link type        bytes before the network header
//!   0, 108  null        4: address family (the IP version says the same)
//!        1  Ethernet   14, and 4 for each VLAN tag
//! 12, 14, 101, 228, 229   0: raw IP
//!      113  cooked v1  16: the last two are the ether type
//!      276  cooked v2  20: the first two are the ether type
//! ```
//!
//! Source: the list of link-layer header types of tcpdump.org; RFC 791, 2883, 8200, 9293.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, LaxNetSlice, LaxSlicedPacket, TcpOptionElement, TcpSlice, TransportSlice,
};

use super::sender::is_after;

/// The link-layer header type of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(pub(super) i32);

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// A TCP segment.
    Segment(Segment<'a>),
    /// Something else.
    Other,
    /// Its headers cannot be read.
    Unreadable,
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the flags of the header"
)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) syn: bool,
    pub(super) ack: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    /// Where data begins that its sender says it had received before (D-SACK).
    pub(super) received_twice: Option<u32>,
    /// What was captured of its data.
    pub(super) payload: &'a [u8],
    /// How much data it had.
    pub(super) payload_len: u32,
}

/// Reads the headers of a packet.
pub(super) fn segment(link: Link, data: &[u8]) -> Seen<'_> {
    let packet = match link.0 {
        0 | 108 => data.get(4..).and_then(from_ip),
        1 => LaxSlicedPacket::from_ethernet(data).ok(),
        12 | 14 | 101 | 228 | 229 => from_ip(data),
        113 => cooked(data, 14, 16),
        276 => cooked(data, 0, 20),
        _ => None,
    };
    packet.map_or(Seen::Unreadable, |packet| from_packet(&packet))
}

fn from_ip(data: &[u8]) -> Option<LaxSlicedPacket<'_>> {
    LaxSlicedPacket::from_ip(data).ok()
}

/// The ether type stands at `kind`, the network header at `begin`.
fn cooked(data: &[u8], kind: usize, begin: usize) -> Option<LaxSlicedPacket<'_>> {
    let kind: [u8; 2] = data.get(kind..kind + 2)?.try_into().ok()?;
    let kind = EtherType(u16::from_be_bytes(kind));
    Some(LaxSlicedPacket::from_ether_type(kind, data.get(begin..)?))
}

fn from_packet<'a>(packet: &LaxSlicedPacket<'a>) -> Seen<'a> {
    let (addrs, ip_payload, said_len) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let addrs: [IpAddr; 2] = [
                header.source_addr().into(),
                header.destination_addr().into(),
            ];
            let before = header.slice().len();
            (
                addrs,
                ip.payload(),
                usize::from(header.total_len()).checked_sub(before),
            )
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let addrs: [IpAddr; 2] = [
                header.source_addr().into(),
                header.destination_addr().into(),
            ];
            let before = ip.extensions().slice().len();
            // Zero stands for a length that does not fit, as of what the kernel cuts only later.
            let len = usize::from(header.payload_length());
            (
                addrs,
                ip.payload(),
                len.checked_sub(before).filter(|_| len > 0),
            )
        }
        Some(LaxNetSlice::Arp(_)) => return Seen::Other,
        None => {
            let is_ip = packet.stop_err.is_some();
            return if is_ip { Seen::Unreadable } else { Seen::Other };
        }
    };
    if ip_payload.fragmented {
        return Seen::Unreadable;
    }
    let tcp = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => tcp,
        Some(_) => return Seen::Other,
        None => {
            let is_tcp = ip_payload.ip_number == etherparse::ip_number::TCP;
            return if is_tcp {
                Seen::Unreadable
            } else {
                Seen::Other
            };
        }
    };
    let [from, to] = addrs.map(|addr| addr.to_canonical());
    let payload = tcp.payload();
    let captured = payload.len();
    let len = said_len
        .and_then(|len| len.checked_sub(tcp.header_slice().len()))
        .map_or(captured, |len| len.max(captured));
    Seen::Segment(Segment {
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        acknowledged: tcp.acknowledgment_number(),
        syn: tcp.syn(),
        ack: tcp.ack(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        received_twice: received_twice(tcp),
        payload,
        payload_len: u32::try_from(len).unwrap_or(u32::MAX),
    })
}

/// The first block of a selective acknowledgement, where everything up to its end was acknowledged, or another block
/// contains it: that data came a second time (RFC 2883 § 4).
fn received_twice(tcp: &TcpSlice<'_>) -> Option<u32> {
    let all = tcp.acknowledgment_number();
    let mut options = tcp.options_iterator();
    let (first, others) = options.find_map(|option| match option {
        Ok(TcpOptionElement::SelectiveAcknowledgement(first, others)) => Some((first, others)),
        _ => None,
    })?;
    let is_inside = |(begin, end): (u32, u32)| !is_after(begin, first.0) && !is_after(first.1, end);
    let is_known = !is_after(first.1, all) || others.into_iter().flatten().any(is_inside);
    is_known.then_some(first.0)
}
