//! Who a connection belongs to: identities and the cleaning of what clients say of themselves.
//!
//! An identity is an upstream, a peer address and an application name. The port never counts, and neither do
//! the driver's names: one client announces different ones on its monitors and in its pool.
//!
//! **Invariant:** whatever a client sent, a cleaned text is short, printable on one line, and reads from left
//! to right: it can neither break a table, a log line or a label, nor make two lines look alike by invisible
//! characters.

use std::net::IpAddr;
use std::sync::Arc;

use super::{DriverRow, UpstreamId};
use crate::connection::ClientMetadata;

/// Longest application name kept, in bytes.
pub(super) const APP_LEN_MAX: usize = 64;

/// Longest driver, platform or operating system text kept, in bytes.
const DRIVER_TEXT_LEN_MAX: usize = 128;

/// What makes two connections those of one client instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientKey {
    pub(super) upstream: UpstreamId,
    pub(super) address: IpAddr,
    pub(super) app: Arc<str>,
}

impl ClientKey {
    /// The identity of connections from `address` that called themselves `app` (raw text from the wire).
    pub(super) fn new(upstream: UpstreamId, address: IpAddr, app: &str) -> Self {
        Self {
            upstream,
            // A listener on [::] sees IPv4 peers as ::ffff:a.b.c.d; they are the same hosts.
            address: address.to_canonical(),
            app: sanitised(app, APP_LEN_MAX).into(),
        }
    }
}

/// `raw` without anything that could mislead a reader or a parser, cut to `len_max` bytes at a character.
///
/// Control characters and line separators become `_`, double quotes `'`, backslashes `/`; format characters
/// (bidirectional overrides, zero-width ones, tags) and variation selectors are removed; white space at both
/// ends too.
pub(super) fn sanitised(raw: &str, len_max: usize) -> String {
    let mut text = String::with_capacity(raw.len().min(len_max));
    for character in raw.trim().chars().filter(|c| !is_invisible(*c)) {
        let safe = match character {
            c if c.is_control() => '_',
            '\u{2028}' | '\u{2029}' => '_',
            '"' => '\'',
            '\\' => '/',
            c if c.is_whitespace() => ' ',
            c => c,
        };
        if text.len() + safe.len_utf8() > len_max {
            break;
        }
        if text.is_empty() && safe == ' ' {
            continue;
        }
        text.push(safe);
    }
    text.truncate(text.trim_end().len());
    text
}

/// Format characters (general category Cf) and variation selectors, Unicode 16.
const fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{AD}'
        | '\u{34F}'
        | '\u{600}'..='\u{605}'
        | '\u{61C}'
        | '\u{6DD}'
        | '\u{70F}'
        | '\u{890}'..='\u{891}'
        | '\u{8E2}'
        | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}'
        | '\u{FFF0}'..='\u{FFFB}'
        | '\u{110BD}'
        | '\u{110CD}'
        | '\u{13430}'..='\u{1343F}'
        | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// The cleaned picture of a client's metadata; compressor, mechanism and user come later.
pub(super) fn driver_row(metadata: &ClientMetadata) -> DriverRow {
    DriverRow {
        name: driver_text(&metadata.driver_name),
        version: driver_text(&metadata.driver_version),
        platform: driver_text(&metadata.platform),
        os_type: driver_text(&metadata.os_type),
        os: joined(&[&metadata.os_name, &metadata.os_version]),
        environment: joined(&[
            &metadata.env_name,
            &metadata.container_runtime,
            &metadata.container_orchestrator,
        ]),
        compressor: None,
        mechanism: None,
        user: None,
    }
}

/// A cleaned text of the length allowed for driver strings and user names.
pub(super) fn driver_text(raw: &str) -> String {
    sanitised(raw, DRIVER_TEXT_LEN_MAX)
}

fn joined(parts: &[&str]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .map(|part| driver_text(part))
        .filter(|part| !part.is_empty())
        .collect();
    sanitised(&parts.join(" "), DRIVER_TEXT_LEN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expected: &str) {
        assert_eq!(sanitised(raw, APP_LEN_MAX), expected, "from {raw:?}");
    }

    #[test]
    fn hostile_names_become_harmless() {
        check("orders", "orders");
        check("  bestellungen für köln ", "bestellungen für köln");
        check("a\nb\r\tc\0d\u{7f}\u{85}e", "a_b__c_d__e");
        check("a\"} 1\nup{x=\"", "a'} 1_up{x='");
        check("back\\slash", "back/slash");
        check("gnp.\u{202e}exe", "gnp.exe");
        check("zero\u{200b}\u{feff}width", "zerowidth");
        check("line\u{2028}paragraph\u{2029}", "line_paragraph");
        check("tag\u{e0041}ged\u{fe0f}", "tagged");
        check("lossy \u{fffd}", "lossy \u{fffd}");
        check("no\u{a0}break", "no break");
        check("\u{200b}", "");
        check("\u{200b} x", "x");
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        check(&"x".repeat(4096), &"x".repeat(64));
        check(&"ä".repeat(40), &"ä".repeat(32));
        check(
            &format!("x{}", "ä".repeat(40)),
            &format!("x{}", "ä".repeat(31)),
        );
        check(&"🦀".repeat(20), &"🦀".repeat(16));
    }

    #[test]
    fn names_that_look_alike_are_one_identity() {
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let plain = ClientKey::new(UpstreamId(0), address, "a\nb");
        assert_eq!(plain, ClientKey::new(UpstreamId(0), mapped, "a\u{200b}\tb"));
        assert_ne!(plain, ClientKey::new(UpstreamId(1), address, "a\nb"));
    }

    #[test]
    fn driver_facts_are_cleaned_and_joined() {
        let row = driver_row(&ClientMetadata {
            driver_name: "PyMongo|c\n".to_owned(),
            os_name: "Linux".to_owned(),
            os_version: "6.1\u{202e}".to_owned(),
            env_name: String::new(),
            container_runtime: "docker".to_owned(),
            container_orchestrator: "kubernetes".to_owned(),
            ..ClientMetadata::default()
        });
        assert_eq!(row.name, "PyMongo|c");
        assert_eq!(row.os, "Linux 6.1");
        assert_eq!(row.environment, "docker kubernetes");
    }
}
