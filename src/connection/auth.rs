//! Authentication conversations: which mechanism, as whom, and how they ended.
//!
//! ```text
//! hello + speculativeAuthenticate ─┐          ┌─ done: true ──▶ Ok
//! saslStart ───────────────────────┼─▶ under way ─ ok: 0 ─────▶ Failed, or Abandoned
//! authenticate ────────────────────┘   ▲    │ └─ connection ends ▶ Abandoned
//!                                      └────┘ saslContinue
//! ```
//!
//! **Invariant:** of a payload nothing is kept but the user name in the first message of SCRAM, where it stands
//! apart from the secrets. PLAIN carries the password itself, MONGODB-AWS and MONGODB-OIDC tokens, GSSAPI
//! tickets: their payloads are not looked at.
//!
//! Sources: MongoDB Authentication specification § Speculative Authentication, § MongoDB Handshake; RFC 5802 § 7
//! for the first message of SCRAM.

use bson::raw::{RawDocument, RawElement};

use super::document::{binary, cut, elements, embedded, find, is_true, text};
use super::{Authentication, AuthenticationResult, Mechanism};
use crate::wire::{Command, is_about_the_server};

/// Longest user name kept, in bytes, its database included.
const USER_LEN_MAX: usize = 256;

/// `ProtocolError`: the server does not know the conversation any more, say because PHP goes on seconds after its hello;
/// the client begins another.
const PROTOCOL_ERROR: i32 = 17;

/// Longest first message of SCRAM looked at, in bytes: a user name, a nonce and a few characters round them.
const FIRST_MESSAGE_LEN_MAX: usize = 1024;

/// What a command that begins an authentication says and that is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    mechanism: Mechanism,
    user: Option<Box<str>>,
}

impl Claim {
    /// Reads a `saslStart` or `authenticate`, or the document of a `speculativeAuthenticate`. `named` is the
    /// `saslSupportedMechs` of the hello: it has the database when the command has not.
    fn from_command(command: &RawDocument, named: Option<&str>) -> Self {
        let mut mechanism = None;
        let mut database = None;
        let mut user = None;
        let mut payload = None;
        for (name, element) in elements(command) {
            match name {
                "mechanism" => mechanism = text(&element, USER_LEN_MAX),
                // A speculative command has no `$db` of its own.
                "db" | "$db" => database = text(&element, USER_LEN_MAX),
                "user" => user = text(&element, USER_LEN_MAX),
                "payload" => payload = Some(element),
                _ => {}
            }
        }
        let mechanism = mechanism.map_or(Mechanism::Other, |name| Mechanism::from_wire(&name));
        let user = match mechanism {
            Mechanism::ScramSha1 | Mechanism::ScramSha256 => {
                let claimed = payload.and_then(|payload| scram_user(&payload));
                qualified(claimed, database.as_deref(), named)
            }
            Mechanism::X509 => user.map(|user| format!("$external.{user}")),
            Mechanism::Plain
            | Mechanism::Aws
            | Mechanism::Oidc
            | Mechanism::Gssapi
            | Mechanism::Other => None,
        };
        Self {
            mechanism,
            user: user.map(|user| cut(&user, USER_LEN_MAX).into()),
        }
    }

    fn ended(self, result: AuthenticationResult) -> Authentication {
        Authentication {
            mechanism: self.mechanism,
            result,
            user: self.user.map(String::from),
        }
    }
}

/// `<db>.<user>`: from the command itself, else as the hello named it; the bare name when no database is known
/// (an `OP_QUERY` has it in its namespace only).
fn qualified(user: Option<String>, database: Option<&str>, named: Option<&str>) -> Option<String> {
    let Some(user) = user else {
        return named.map(str::to_owned);
    };
    if let Some(database) = database {
        return Some(format!("{database}.{user}"));
    }
    let is_same = |named: &&str| named.split_once('.').is_some_and(|(_, name)| name == user);
    Some(named.filter(is_same).map_or(user, str::to_owned))
}

/// The user in a first message of SCRAM: `n,,n=<user>,r=<nonce>`.
fn scram_user(payload: &RawElement<'_>) -> Option<String> {
    if let Some(bytes) = binary(payload) {
        return user_of_first_message(bytes);
    }
    // Some legacy senders write the payload as base64 text.
    let encoded = text(payload, FIRST_MESSAGE_LEN_MAX)?;
    user_of_first_message(&from_base64(&encoded)?)
}

fn user_of_first_message(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.get(..bytes.len().min(FIRST_MESSAGE_LEN_MAX))?;
    let mut parts = bytes.splitn(4, |byte| *byte == b',');
    let binding = parts.next()?;
    let is_gs2 = matches!(binding, b"n" | b"y") || binding.starts_with(b"p=");
    let authorization = parts.next()?;
    let user = parts.next()?.strip_prefix(b"n=")?;
    if !is_gs2 || !authorization.is_empty() || !parts.next()?.starts_with(b"r=") {
        return None;
    }
    let user = String::from_utf8_lossy(user)
        .replace("=2C", ",")
        .replace("=3D", "=");
    Some(cut(&user, USER_LEN_MAX).to_owned())
}

/// Decodes base64 with or without padding; `None` for anything else.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut decoded = Vec::with_capacity(digits.len());
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for place in 0..4 {
            let value = match group.get(place).copied().unwrap_or(b'A') {
                digit @ b'A'..=b'Z' => digit - b'A',
                digit @ b'a'..=b'z' => digit - b'a' + 26,
                digit @ b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = (bits << 6) | u32::from(value);
        }
        // Four digits carry three bytes, n digits carry n - 1.
        let [_, bytes @ ..] = bits.to_be_bytes();
        decoded.extend(bytes.iter().take(group.len().saturating_sub(1)));
    }
    Some(decoded)
}

/// Follows the authentication of one connection.
#[derive(Debug, Default)]
pub(super) struct Authenticator {
    under_way: Option<Claim>,
    /// `saslSupportedMechs` of the hello, until an authentication succeeded.
    named: Option<Box<str>>,
    is_expected: bool,
    has_failed_last: bool,
}

/// What a hello asks for besides itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    /// `speculativeAuthenticate` is present.
    pub(super) is_speculative: bool,
    /// `saslSupportedMechs` is present.
    pub(super) names_user: bool,
    /// `saslSupportedMechs` names the user of the cluster's own members.
    pub(super) is_member: bool,
}

impl Authenticator {
    /// A conversation is not decided yet.
    pub(super) const fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The hello announced an authentication that has not succeeded yet.
    pub(super) const fn is_expected(&self) -> bool {
        self.is_expected
    }

    /// The server refused the last conversation.
    pub(super) const fn has_failed_last(&self) -> bool {
        self.has_failed_last
    }

    /// A hello was sent.
    pub(super) fn hello_sent(&mut self, hello: &RawDocument) -> Credentials {
        let mut credentials = Credentials::default();
        let mut speculative = None;
        for (name, element) in elements(hello) {
            match name {
                "saslSupportedMechs" => {
                    self.named = text(&element, USER_LEN_MAX).map(String::into_boxed_str);
                    credentials.names_user = true;
                }
                "speculativeAuthenticate" => {
                    credentials.is_speculative = true;
                    speculative = embedded(&element);
                }
                _ => {}
            }
        }
        credentials.is_member = self.named.as_deref() == Some("local.__system");
        if let Some(command) = speculative {
            self.under_way = Some(Claim::from_command(command, self.named.as_deref()));
        }
        self.is_expected |= credentials.is_speculative || credentials.names_user;
        credentials
    }

    /// A hello was answered. A server that takes no part in the speculation leaves it out of its reply; the
    /// client then begins anew.
    pub(super) fn hello_answered(
        &mut self,
        is_ok: bool,
        reply: Option<&RawDocument>,
        was_speculative: bool,
    ) -> Option<Authentication> {
        if !was_speculative {
            return None;
        }
        let Some(reply) = reply.filter(|_| is_ok) else {
            if !is_ok {
                self.under_way = None;
            }
            return None;
        };
        let Some(answer) =
            find(reply, "speculativeAuthenticate").and_then(|element| embedded(&element))
        else {
            self.under_way = None;
            return None;
        };
        let is_x509 = self
            .under_way
            .as_ref()
            .is_some_and(|claim| claim.mechanism == Mechanism::X509);
        if is_x509 {
            self.learn_x509_user(answer);
        }
        if is_x509 || is_done(answer) {
            return self.decided(AuthenticationResult::Ok);
        }
        None
    }

    /// A command of the authentication set was sent.
    pub(super) fn command_sent(&mut self, command: Command, document: Option<&RawDocument>) {
        if !Self::is_step(command) {
            return;
        }
        let goes_on = command == Command::SaslContinue;
        if goes_on && self.under_way.is_some() {
            return;
        }
        let claim = document
            .filter(|_| !goes_on)
            .map(|document| Claim::from_command(document, self.named.as_deref()));
        self.under_way = Some(claim.unwrap_or(Claim {
            mechanism: Mechanism::Other,
            user: None,
        }));
    }

    /// A command of the authentication set was answered; a reply too large to be kept decides nothing unless
    /// it is an error. A server that has other worries (it shuts down, say), or that has lost the thread, decides nothing
    /// about credentials.
    pub(super) fn command_answered(
        &mut self,
        command: Command,
        (ok, code): (Option<bool>, Option<i32>),
        reply: Option<&RawDocument>,
    ) -> Option<Authentication> {
        if !Self::is_step(command) {
            return None;
        }
        if ok == Some(false) {
            let is_decided = |code| code != PROTOCOL_ERROR && !is_about_the_server(code);
            return self.decided(if code.is_none_or(is_decided) {
                AuthenticationResult::Failed
            } else {
                AuthenticationResult::Abandoned
            });
        }
        if command == Command::Authenticate {
            if let Some(reply) = reply {
                self.learn_x509_user(reply);
            }
            return self.decided(AuthenticationResult::Ok);
        }
        if reply.is_some_and(is_done) {
            return self.decided(AuthenticationResult::Ok);
        }
        None
    }

    /// The client sent an ordinary command: it takes itself to be through.
    pub(super) fn client_went_on(&mut self) {
        self.under_way = None;
        self.named = None;
        self.is_expected = false;
    }

    /// The connection ended, or can no longer be followed.
    pub(super) fn abandoned(&mut self) -> Option<Authentication> {
        self.under_way
            .take()
            .map(|claim| claim.ended(AuthenticationResult::Abandoned))
    }

    const fn is_step(command: Command) -> bool {
        matches!(
            command,
            Command::SaslStart | Command::SaslContinue | Command::Authenticate
        )
    }

    fn decided(&mut self, result: AuthenticationResult) -> Option<Authentication> {
        let claim = self.under_way.take()?;
        self.has_failed_last = result == AuthenticationResult::Failed;
        if result == AuthenticationResult::Ok {
            self.is_expected = false;
            self.named = None;
        }
        Some(claim.ended(result))
    }

    /// The server names the subject of the client's certificate when the client did not.
    fn learn_x509_user(&mut self, reply: &RawDocument) {
        let Some(claim) = self.under_way.as_mut() else {
            return;
        };
        if claim.mechanism == Mechanism::X509 && claim.user.is_none() {
            claim.user = find(reply, "user")
                .and_then(|element| text(&element, USER_LEN_MAX))
                .map(|user| cut(&format!("$external.{user}"), USER_LEN_MAX).into());
        }
    }
}

fn is_done(reply: &RawDocument) -> bool {
    find(reply, "done").is_some_and(|element| is_true(&element))
}

#[cfg(test)]
mod tests {
    use bson::raw::RawDocumentBuf;
    use bson::rawdoc;

    use super::super::testing::binary as payload;
    use super::*;

    fn sasl_start(mechanism: &str, bytes: &[u8]) -> RawDocumentBuf {
        rawdoc! { "saslStart": 1, "mechanism": mechanism, "payload": payload(bytes), "$db": "admin" }
    }

    fn check_user(command: &RawDocument, user: Option<&str>) {
        let claim = Claim::from_command(command, None);
        assert_eq!(claim.user.as_deref(), user);
    }

    #[test]
    fn scram_users_are_read_and_unescaped() {
        check_user(
            &sasl_start("SCRAM-SHA-256", b"n,,n=alice,r=nonce"),
            Some("admin.alice"),
        );
        check_user(
            &sasl_start("SCRAM-SHA-1", b"n,,n=a=2Cb=3Dc,r=nonce"),
            Some("admin.a,b=c"),
        );
        check_user(&sasl_start("SCRAM-SHA-1", b"n,,n=alice"), None);
        check_user(&sasl_start("SCRAM-SHA-1", b"\0alice\0secret"), None);
        check_user(&sasl_start("SCRAM-SHA-1", b""), None);
    }

    #[test]
    fn scram_payloads_in_base64_are_read_too() {
        let command = rawdoc! {
            "saslStart": 1, "mechanism": "SCRAM-SHA-1", "payload": "biwsbj1hbGljZSxyPW5vbmNl",
        };
        check_user(&command, Some("alice"));
        assert_eq!(from_base64("YQ==").as_deref(), Some(&b"a"[..]));
        assert_eq!(from_base64("YWI=").as_deref(), Some(&b"ab"[..]));
        assert_eq!(from_base64("a b"), None);
    }

    #[test]
    fn a_user_without_database_gets_the_one_the_hello_named() {
        let command = rawdoc! {
            "saslStart": 1, "mechanism": "SCRAM-SHA-1", "payload": payload(b"n,,n=alice,r=x"),
        };
        let user = |named| Claim::from_command(&command, named).user;
        assert_eq!(user(Some("shop.alice")).as_deref(), Some("shop.alice"));
        assert_eq!(user(Some("shop.bob")).as_deref(), Some("alice"));
        assert_eq!(user(None).as_deref(), Some("alice"));
    }

    #[test]
    fn payloads_with_secrets_give_no_user() {
        for mechanism in [
            "PLAIN",
            "MONGODB-AWS",
            "MONGODB-OIDC",
            "GSSAPI",
            "MONGODB-CR",
        ] {
            check_user(&sasl_start(mechanism, b"n,,n=alice,r=secret"), None);
        }
        let command = rawdoc! { "saslStart": 1, "mechanism": "PLAIN", "user": "alice" };
        let claim = Claim::from_command(&command, Some("$external.alice"));
        assert_eq!(claim.user, None);
    }

    #[test]
    fn x509_takes_the_subject_from_the_reply_when_the_client_left_it_out() {
        let mut auth = Authenticator::default();
        let command =
            rawdoc! { "authenticate": 1, "mechanism": "MONGODB-X509", "$db": "$external" };
        auth.command_sent(Command::Authenticate, Some(&command));
        assert!(auth.is_under_way());
        let reply = rawdoc! { "dbname": "$external", "user": "CN=app", "ok": 1.0 };
        let outcome =
            auth.command_answered(Command::Authenticate, (Some(true), None), Some(&reply));
        assert_eq!(
            outcome,
            Some(Authentication {
                mechanism: Mechanism::X509,
                result: AuthenticationResult::Ok,
                user: Some("$external.CN=app".into()),
            })
        );
        assert!(!auth.is_under_way());
    }

    #[test]
    fn a_refused_speculation_is_no_failure() {
        let mut auth = Authenticator::default();
        let hello = rawdoc! {
            "hello": 1,
            "saslSupportedMechs": "admin.alice",
            "speculativeAuthenticate": {
                "saslStart": 1, "mechanism": "SCRAM-SHA-256",
                "payload": payload(b"n,,n=alice,r=x"), "db": "admin",
            },
        };
        let credentials = auth.hello_sent(&hello);
        assert!(credentials.is_speculative && credentials.names_user);
        assert!(auth.is_under_way());
        assert_eq!(
            auth.hello_answered(true, Some(&rawdoc! { "ok": 1 }), true),
            None
        );
        assert!(!auth.is_under_way() && auth.is_expected());
        assert_eq!(auth.abandoned(), None);
    }
}
