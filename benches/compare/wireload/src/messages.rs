//! As much of the MongoDB wire protocol as load needs: writing BSON and `OP_MSG`, and finding where messages end.
//!
//! Nothing is shared with the program under test: a mistake there must not hide itself here.

pub const OP_MSG: i32 = 2013;
pub const HEADER: usize = 16;
pub const MAX_MESSAGE: usize = 48_000_000 + 16_384;

/// A BSON document under construction.
pub struct Doc(Vec<u8>);

impl Doc {
    pub fn new() -> Self {
        Doc(vec![0; 4])
    }
    fn key(&mut self, tag: u8, name: &str) {
        self.0.push(tag);
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
    }
    pub fn f64(mut self, k: &str, v: f64) -> Self {
        self.key(0x01, k);
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    pub fn str(mut self, k: &str, v: &str) -> Self {
        self.key(0x02, k);
        self.0
            .extend_from_slice(&(v.len() as i32 + 1).to_le_bytes());
        self.0.extend_from_slice(v.as_bytes());
        self.0.push(0);
        self
    }
    pub fn doc(mut self, k: &str, v: Doc) -> Self {
        self.key(0x03, k);
        self.0.extend_from_slice(&v.finish());
        self
    }
    pub fn array<I: IntoIterator<Item = Vec<u8>>>(mut self, k: &str, docs: I) -> Self {
        self.key(0x04, k);
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        for (i, d) in docs.into_iter().enumerate() {
            self.key(0x03, &i.to_string());
            self.0.extend_from_slice(&d);
        }
        self.close(start)
    }
    pub fn strings(mut self, k: &str, items: &[&str]) -> Self {
        self.key(0x04, k);
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        for (i, s) in items.iter().enumerate() {
            self = self.str(&i.to_string(), s);
        }
        self.close(start)
    }
    fn close(mut self, start: usize) -> Self {
        self.0.push(0);
        let len = (self.0.len() - start) as i32;
        self.0[start..start + 4].copy_from_slice(&len.to_le_bytes());
        self
    }
    pub fn oid(mut self, k: &str, n: u64) -> Self {
        self.key(0x07, k);
        self.0.extend_from_slice(&[0x65, 0, 0, 0]);
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }
    pub fn bool(mut self, k: &str, v: bool) -> Self {
        self.key(0x08, k);
        self.0.push(v as u8);
        self
    }
    pub fn date(mut self, k: &str, ms: i64) -> Self {
        self.key(0x09, k);
        self.0.extend_from_slice(&ms.to_le_bytes());
        self
    }
    pub fn i32(mut self, k: &str, v: i32) -> Self {
        self.key(0x10, k);
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    pub fn i64(mut self, k: &str, v: i64) -> Self {
        self.key(0x12, k);
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(0);
        let len = self.0.len() as i32;
        self.0[..4].copy_from_slice(&len.to_le_bytes());
        self.0
    }
}

/// An `OP_MSG` with a body and, where asked for, a document sequence. Its ids are zero: whoever sends it writes a
/// header of its own.
pub fn op_msg(body: &[u8], sequence: Option<(&str, &[Vec<u8>])>) -> Vec<u8> {
    let mut m = vec![0; HEADER];
    m.extend_from_slice(&[0; 4]);
    m.push(0);
    m.extend_from_slice(body);
    if let Some((name, docs)) = sequence {
        m.push(1);
        let size = 4 + name.len() + 1 + docs.iter().map(Vec::len).sum::<usize>();
        m.extend_from_slice(&(size as i32).to_le_bytes());
        m.extend_from_slice(name.as_bytes());
        m.push(0);
        for d in docs {
            m.extend_from_slice(d);
        }
    }
    let h = header(m.len(), 0, 0);
    m[..HEADER].copy_from_slice(&h);
    m
}

pub fn header(total: usize, request_id: i32, response_to: i32) -> [u8; HEADER] {
    let mut h = [0; HEADER];
    h[..4].copy_from_slice(&(total as i32).to_le_bytes());
    h[4..8].copy_from_slice(&request_id.to_le_bytes());
    h[8..12].copy_from_slice(&response_to.to_le_bytes());
    h[12..].copy_from_slice(&OP_MSG.to_le_bytes());
    h
}

/// A document of exactly `size` bytes (about 330 at least) like those of applications: nested, with an array and
/// various types.
pub fn sample_doc(n: usize, size: usize) -> Vec<u8> {
    let build = |pad: usize| {
        Doc::new()
            .oid("_id", n as u64)
            .i32("seq", n as i32)
            .doc(
                "user",
                Doc::new()
                    .str("name", "Ada Example")
                    .str("email", "ada@example.test")
                    .i32("age", 36)
                    .bool("active", true),
            )
            .date("created", 1_700_000_000_000 + n as i64)
            .f64("score", 0.5)
            .i64("visits", 1 << 33)
            .strings("tags", &["red", "green", "blue"])
            .doc(
                "address",
                Doc::new()
                    .str("street", "1 Long Street")
                    .str("city", "Tallinn")
                    .doc("geo", Doc::new().f64("lat", 59.437).f64("lon", 24.7536)),
            )
            .str("note", &"x".repeat(pad))
            .finish()
    };
    let base = build(0).len();
    build(size.saturating_sub(base))
}

/// Documents of at most 1 KiB, `size` bytes together.
pub fn sample_docs(size: usize) -> Vec<Vec<u8>> {
    let n = (size / 1024).max(1);
    (0..n).map(|i| sample_doc(i, size.min(1024))).collect()
}

/// The database that is talked about.
pub const DB: &str = "wireload";

pub fn hello_request() -> Vec<u8> {
    op_msg(
        &Doc::new()
            .i32("hello", 1)
            .bool("helloOk", true)
            .doc(
                "client",
                Doc::new()
                    .doc("application", Doc::new().str("name", "wireload"))
                    .doc(
                        "driver",
                        Doc::new().str("name", "wireload").str("version", "0.1.0"),
                    )
                    .doc("os", Doc::new().str("type", "Linux")),
            )
            .str("$db", "admin")
            .finish(),
        None,
    )
}

pub fn ping_request() -> Vec<u8> {
    op_msg(
        &Doc::new().i32("ping", 1).str("$db", "admin").finish(),
        None,
    )
}

/// The collection's name says how large a reply is wanted.
pub fn find_request(size: usize) -> Vec<u8> {
    op_msg(
        &Doc::new()
            .str("find", &format!("r{size}"))
            .doc("filter", Doc::new())
            .i32("batchSize", 1_000_000)
            .bool("singleBatch", true)
            .str("$db", DB)
            .finish(),
        None,
    )
}

pub fn insert_request(size: usize) -> Vec<u8> {
    let n = (size / 1024).max(1);
    let docs: Vec<Vec<u8>> = (0..n)
        .map(|i| {
            Doc::new()
                .i32("seq", i as i32)
                .date("created", 1_700_000_000_000 + i as i64)
                .f64("score", 0.5)
                .strings("tags", &["red", "green", "blue"])
                .doc("geo", Doc::new().f64("lat", 59.437).f64("lon", 24.7536))
                .str("note", &"x".repeat(size.min(1024).saturating_sub(150)))
                .finish()
        })
        .collect();
    op_msg(
        &Doc::new()
            .str("insert", &format!("w{size}"))
            .bool("ordered", false)
            .str("$db", DB)
            .finish(),
        Some(("documents", &docs)),
    )
}

pub fn ok_reply() -> Vec<u8> {
    op_msg(&Doc::new().f64("ok", 1.0).finish(), None)
}

pub fn insert_reply(n: i32) -> Vec<u8> {
    op_msg(&Doc::new().i32("n", n).f64("ok", 1.0).finish(), None)
}

pub fn hello_reply() -> Vec<u8> {
    op_msg(
        &Doc::new()
            .bool("helloOk", true)
            .bool("isWritablePrimary", true)
            .i32("maxBsonObjectSize", 16_777_216)
            .i32("maxMessageSizeBytes", 48_000_000)
            .i32("maxWriteBatchSize", 100_000)
            .date("localTime", 1_700_000_000_000)
            .i32("logicalSessionTimeoutMinutes", 30)
            .i32("connectionId", 1)
            .i32("minWireVersion", 0)
            .i32("maxWireVersion", 17)
            .bool("readOnly", false)
            .f64("ok", 1.0)
            .finish(),
        None,
    )
}

pub fn find_reply(size: usize) -> Vec<u8> {
    op_msg(
        &Doc::new()
            .doc(
                "cursor",
                Doc::new()
                    .array("firstBatch", sample_docs(size))
                    .i64("id", 0)
                    .str("ns", &format!("{DB}.r{size}")),
            )
            .f64("ok", 1.0)
            .finish(),
        None,
    )
}

/// Whether a reply says `ok: 1.0`.
pub fn says_ok(bytes: &[u8]) -> bool {
    const OK: &[u8] = b"\x01ok\0\0\0\0\0\0\0\xf0\x3f";
    bytes.windows(OK.len()).any(|w| w == OK)
}

/// Finds where messages end; keeps only the first bytes of each.
pub struct Framer {
    pub prefix: [u8; 160],
    pub seen: usize,
    total: usize,
}

impl Framer {
    pub fn new() -> Self {
        Framer {
            prefix: [0; 160],
            seen: 0,
            total: HEADER,
        }
    }
    fn int(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.prefix[at..at + 4].try_into().expect("four bytes"))
    }
    pub fn total(&self) -> usize {
        self.total
    }
    pub fn request_id(&self) -> i32 {
        self.int(4)
    }
    pub fn response_to(&self) -> i32 {
        self.int(8)
    }
    pub fn op_code(&self) -> i32 {
        self.int(12)
    }
    /// Takes from `buf` what belongs to the message under way, and no more than the rest of its header or of its
    /// body; returns how many bytes that were.
    pub fn push(&mut self, buf: &[u8]) -> Result<usize, String> {
        let n = buf.len().min(self.total - self.seen);
        if self.seen < self.prefix.len() {
            let keep = n.min(self.prefix.len() - self.seen);
            self.prefix[self.seen..self.seen + keep].copy_from_slice(&buf[..keep]);
        }
        self.seen += n;
        if self.seen == HEADER && self.total == HEADER {
            let len = self.int(0);
            if len < HEADER as i32 + 5 || len as usize > MAX_MESSAGE {
                return Err(format!("message length {len} out of range"));
            }
            self.total = len as usize;
        }
        Ok(n)
    }
    pub fn done(&self) -> bool {
        self.seen == self.total && self.total > HEADER
    }
    pub fn head(&self) -> &[u8] {
        &self.prefix[..self.seen.min(self.prefix.len())]
    }
    pub fn reset(&mut self) {
        self.seen = 0;
        self.total = HEADER;
    }
}

/// The name of the command and, when its value is a string, that.
pub fn command(head: &[u8]) -> Option<(&str, Option<&str>)> {
    let tag = *head.get(25)?;
    let rest = head.get(26..)?;
    let end = rest.iter().position(|b| *b == 0)?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    if tag != 0x02 {
        return Some((name, None));
    }
    let value = rest.get(end + 5..)?;
    let vend = value.iter().position(|b| *b == 0)?;
    Some((name, std::str::from_utf8(&value[..vend]).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_asked_size() {
        assert_eq!(sample_doc(7, 1024).len(), 1024);
        assert_eq!(sample_docs(65536).len(), 64);
    }

    #[test]
    fn command_name_and_value_are_found() {
        assert_eq!(command(&ping_request()), Some(("ping", None)));
        assert_eq!(command(&find_request(64)), Some(("find", Some("r64"))));
        assert_eq!(
            command(&insert_request(64)[..160]),
            Some(("insert", Some("w64")))
        );
    }

    #[test]
    fn framer_follows_split_and_joined_messages() {
        let mut bytes = ping_request();
        bytes.extend(find_reply(4096));
        for step in [1, 3, 17, 1000, bytes.len()] {
            let (mut f, mut sizes) = (Framer::new(), vec![]);
            for part in bytes.chunks(step) {
                let mut rest = part;
                while !rest.is_empty() {
                    let n = f.push(rest).expect("valid");
                    rest = &rest[n..];
                    if f.done() {
                        assert_eq!(f.op_code(), OP_MSG);
                        sizes.push(f.total());
                        f.reset();
                    }
                }
            }
            assert_eq!(sizes, [ping_request().len(), find_reply(4096).len()]);
        }
    }

    #[test]
    fn framer_refuses_wild_lengths() {
        for len in [-1i32, 0, 20, i32::MAX] {
            let mut h = header(0, 1, 0);
            h[..4].copy_from_slice(&len.to_le_bytes());
            assert!(Framer::new().push(&h).is_err());
        }
    }

    #[test]
    fn ok_is_recognised() {
        assert!(says_ok(&ok_reply()) && says_ok(&insert_reply(3)));
        assert!(!says_ok(&op_msg(&Doc::new().f64("ok", 0.0).finish(), None)));
    }
}
