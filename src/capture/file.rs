//! Packets from files.
//!
//! Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

use std::io::{self, BufRead as _, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{Block, InterfaceDescriptionBlock, PcapBlockOwned, PcapError, create_reader};

use super::segment::Link;
use crate::time::Timestamp;

/// The longest block that is read; a packet has at most 256 KiB.
const BLOCK_LEN_MAX: usize = 1024 * 1024;

/// Interfaces of one section.
const INTERFACES_MAX: usize = 4096;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// The last moment that is believed, in the year 2262: what is reckoned from it must not overflow.
const MOMENT_MAX: u64 = u64::MAX / 2;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot be read: {0}")]
    File(#[from] io::Error),
    /// It is something else.
    #[error("is neither a pcap nor a pcapng file")]
    NoCapture,
    /// The disk failed.
    #[error("cannot be read to its end")]
    Broken,
}

/// How the reading of a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileEnd {
    /// Behind its last packet.
    Whole,
    /// Within a packet, as when the capturing program was killed.
    Cut,
    /// Where it could not be understood.
    Damaged,
}

/// What the packets of one interface have in common.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Link,
    /// Units of its time stamps in a second.
    units: u64,
    /// Seconds to be added.
    offset: i64,
}

/// The first bytes of a file that gzip packed (RFC 1952 § 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What is in a file, unpacked where gzip packed it.
pub(super) fn unpacked(from: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut from = BufReader::new(from);
    Ok(if from.fill_buf()?.starts_with(&GZIP) {
        Box::new(MultiGzDecoder::new(from))
    } else {
        Box::new(from)
    })
}

/// Shows every packet with its moment.
pub(super) fn read_packets(
    from: impl Read + Send,
    mut each: impl FnMut(Timestamp, Link, &[u8]),
) -> Result<FileEnd, ReadError> {
    let mut reader = create_reader(BLOCK_LEN_MAX, from).map_err(|error| match error {
        PcapError::ReadError => ReadError::Broken,
        PcapError::Eof
        | PcapError::BufferTooSmall
        | PcapError::UnexpectedEof
        | PcapError::Incomplete(_)
        | PcapError::HeaderNotRecognized
        | PcapError::NomError(..)
        | PcapError::OwnedNomError(..) => ReadError::NoCapture,
    })?;
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut is_big_endian = false;
    let mut last = Timestamp::default();
    loop {
        let held = reader.data().len();
        match reader.next() {
            Ok((len, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => interfaces.push(Interface {
                        link: Link(header.network.0),
                        units: if header.is_nanosecond_precision() {
                            SECOND
                        } else {
                            1_000_000
                        },
                        offset: 0,
                    }),
                    PcapBlockOwned::Legacy(packet) => {
                        if let Some(interface) = interfaces.first() {
                            let units = u64::from(packet.ts_sec)
                                .saturating_mul(interface.units)
                                .saturating_add(packet.ts_usec.into());
                            last = interface.moment(units);
                            each(last, interface.link, packet.data);
                        }
                    }
                    PcapBlockOwned::NG(Block::SectionHeader(section)) => {
                        is_big_endian = section.big_endian();
                        interfaces.clear();
                    }
                    PcapBlockOwned::NG(Block::InterfaceDescription(described)) => {
                        if interfaces.len() >= INTERFACES_MAX {
                            return Ok(FileEnd::Damaged);
                        }
                        interfaces.push(Interface::new(&described, is_big_endian));
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let index = usize::try_from(packet.if_id).unwrap_or(usize::MAX);
                        if let Some(interface) = interfaces.get(index) {
                            let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                            last = interface.moment(units);
                            each(last, interface.link, packet.packet_data());
                        }
                    }
                    PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                        // It has no moment of its own.
                        if let Some(interface) = interfaces.first() {
                            each(last, interface.link, packet.packet_data());
                        }
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                if len == 0 {
                    return Ok(FileEnd::Damaged);
                }
                reader.consume(len);
            }
            Err(PcapError::Eof) => return Ok(FileEnd::Whole),
            Err(PcapError::UnexpectedEof) => return Ok(FileEnd::Cut),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|_| ReadError::Broken)?;
                // Without progress there would be no end.
                if reader.data().len() == held && !reader.reader_exhausted() {
                    return Ok(FileEnd::Damaged);
                }
            }
            Err(PcapError::ReadError) => return Err(ReadError::Broken),
            Err(_) => return Ok(FileEnd::Damaged),
        }
    }
}

impl Interface {
    /// draft-ietf-opsawg-pcapng § 4.2: `if_tsresol` is a negative power of 10, or of 2 when its first bit is set.
    fn new(described: &InterfaceDescriptionBlock<'_>, is_big_endian: bool) -> Self {
        let power = u32::from(described.if_tsresol & 0x7f);
        let base: u64 = if described.if_tsresol & 0x80 == 0 {
            10
        } else {
            2
        };
        // The parser reads the option as if every section were little-endian.
        let offset = if is_big_endian {
            described.if_tsoffset.swap_bytes()
        } else {
            described.if_tsoffset
        };
        Self {
            link: Link(described.linktype.0),
            units: base.checked_pow(power).unwrap_or(u64::MAX),
            offset,
        }
    }

    /// The moment of a time stamp.
    fn moment(&self, units: u64) -> Timestamp {
        let nanos = u128::from(units) * u128::from(SECOND) / u128::from(self.units);
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX);
        let offset = i128::from(self.offset) * i128::from(SECOND);
        let nanos = nanos.saturating_add(offset).max(0);
        Timestamp::from_nanos(
            u64::try_from(nanos).map_or(MOMENT_MAX, |nanos| nanos.min(MOMENT_MAX)),
        )
    }
}
