//! Logging: one subscriber, two forms, and the wrapper that foreign text goes through.
//!
//! Logs go to the standard error stream, so that what a command prints can be piped on. Application names, driver
//! names and the like are chosen by whoever connects: [`Printable`] keeps them from forging lines, fields or
//! terminal commands. The contents of documents are never logged at all.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt as layer};

use crate::time::Timestamp;

/// Characters of foreign text a log line shows; the rest is cut.
const PRINTABLE_CHARS_MAX: usize = 128;
/// The same for a sentence that holds several foreign texts.
const PRINTABLE_LINE_CHARS_MAX: usize = 1024;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One line for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one; the configuration check refuses those earlier.
    #[error("log filter {filter:?}: {source}")]
    Filter {
        /// What was asked for.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody installed a subscriber before.
    #[error("logging is already set up")]
    AlreadySet,
}

/// Sets up logging for the whole process, once; `now` gives the moments of the lines.
pub fn init(
    filter: &str,
    form: Form,
    now: impl Fn() -> Timestamp + Send + Sync + 'static,
) -> Result<(), TelemetryError> {
    let filter = targets(filter)?;
    let base = layer::layer()
        .with_writer(std::io::stderr)
        .with_timer(Timer(now));
    let layer = match form {
        Form::Human => base.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Form::Json => base.json().with_ansi(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|_| TelemetryError::AlreadySet)
}

fn targets(filter: &str) -> Result<Targets, TelemetryError> {
    filter.parse().map_err(|source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    })
}

/// The time of a log line, from our own clock: lines, API and metrics then agree.
struct Timer<F>(F);

impl<F: Fn() -> Timestamp> FormatTime for Timer<F> {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", (self.0)())
    }
}

/// Text from the wire, made harmless for a log line.
///
/// What consists of letters, digits and `-_.:/|@[]+` stands as it is. Anything else stands in quotes, where
/// quotes, backslashes, control characters and everything that changes the direction or the width of a line is
/// escaped; so it can neither end a line, nor begin a field, nor speak to a terminal. At most 128 characters
/// are shown.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_printable(f, self.0, PRINTABLE_CHARS_MAX)
    }
}

/// A sentence of ours that holds text from the wire, made harmless in the same way. At most 1024 characters are
/// shown.
#[derive(Clone, Copy, Debug)]
pub struct PrintableLine<'a>(pub &'a str);

impl fmt::Display for PrintableLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_printable(f, self.0, PRINTABLE_LINE_CHARS_MAX)
    }
}

fn write_printable(f: &mut fmt::Formatter<'_>, text: &str, chars_max: usize) -> fmt::Result {
    let mut chars = text.chars();
    let shown = chars.by_ref().take(chars_max);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/|@[]+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        for c in shown {
            f.write_char(c)?;
        }
    } else {
        f.write_char('"')?;
        for c in shown {
            write_escaped(f, c)?;
        }
        f.write_char('"')?;
    }
    if chars.next().is_some() {
        f.write_char('…')?;
    }
    Ok(())
}

fn write_escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    if is_invisible(c) {
        return write!(f, "{}", c.escape_unicode());
    }
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' => write!(f, "{}", c.escape_default()),
        _ => f.write_char(c),
    }
}

/// Characters that show nothing themselves but change what is shown: controls, and the formatting characters
/// that reverse, join or hide text. A space of any width other than the plain one is among them.
pub(crate) fn is_invisible(c: char) -> bool {
    if matches!(c, '\n' | '\r' | '\t') {
        return false;
    }
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: &str) {
        assert_eq!(Printable(input).to_string(), expected);
    }

    #[test]
    fn plain_names_stand_as_they_are() {
        check("orders-api", "orders-api");
        check("PyMongo|c|async", "PyMongo|c|async");
        check("[::1]:27017", "[::1]:27017");
    }

    #[test]
    fn other_text_is_quoted_and_cannot_end_a_line_or_begin_a_field() {
        check("", "\"\"");
        check("a peer=1.2.3.4", "\"a peer=1.2.3.4\"");
        check("a\" peer=\"b", r#""a\" peer=\"b""#);
        check("a\nINFO forged", r#""a\nINFO forged""#);
        check("a\\", r#""a\\""#);
        check("\u{1b}[2J", r#""\u{1b}[2J""#);
        check("x\u{202e}y\u{2028}z", r#""x\u{202e}y\u{2028}z""#);
        check("Bestellung-ä", "\"Bestellung-ä\"");
    }

    #[test]
    fn long_text_is_cut() {
        let text = "a".repeat(4096);
        let shown = Printable(&text).to_string();
        assert_eq!(shown, format!("{}…", "a".repeat(PRINTABLE_CHARS_MAX)));
    }

    #[test]
    fn any_character_stays_on_its_line() {
        for c in '\0'..=char::MAX {
            let shown = Printable(&c.to_string()).to_string();
            assert!(
                !shown.chars().any(|c| c.is_control() || is_invisible(c)),
                "{c:?} prints as {shown:?}"
            );
        }
    }

    #[test]
    fn filters_are_levels_or_lists() {
        for filter in ["info", "warn,poolscope::proxy=debug", "off"] {
            assert!(targets(filter).is_ok(), "{filter}");
        }
        assert!(targets("poolscope=loud").is_err());
    }
}
