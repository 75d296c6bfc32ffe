//! From numbers to text, by way of the catalogue.
//!
//! Samples are written as text at once, family by family, and the families are put together at the end: an exposition
//! of many clients takes hardly more memory than its text has bytes.
//!
//! Source: Prometheus documentation § Text-based format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::catalogue::{Family, Kind};
use crate::clients::HistogramRow;

/// Collects samples by family; families without samples do not appear.
#[derive(Debug, Default)]
pub(super) struct Families {
    by_name: BTreeMap<&'static str, (&'static Family, String)>,
    series: u64,
}

impl Families {
    /// Adds one sample of a counter or gauge; `values` are those of the family's labels, in its order.
    pub(super) fn add(&mut self, family: &'static Family, values: &[&str], value: f64) {
        debug_assert_ne!(family.kind, Kind::Histogram, "{}", family.name);
        if value == f64::INFINITY {
            self.line(family, "", values, None, "+Inf");
        } else {
            self.line(family, "", values, None, value);
        }
    }

    /// Adds one histogram.
    pub(super) fn add_histogram(
        &mut self,
        family: &'static Family,
        values: &[&str],
        row: &HistogramRow,
    ) {
        debug_assert_eq!(family.kind, Kind::Histogram, "{}", family.name);
        for (bound, count) in row.bounds.iter().zip(&row.counts) {
            self.line(family, "_bucket", values, Some(bound), count);
        }
        self.line(family, "_bucket", values, Some(&"+Inf"), row.count);
        self.line(family, "_sum", values, None, row.sum);
        self.line(family, "_count", values, None, row.count);
    }

    /// Samples added so far.
    pub(super) const fn series(&self) -> u64 {
        self.series
    }

    /// One line: name, labels, value. Without allocation, but for the text growing.
    fn line(
        &mut self,
        family: &'static Family,
        suffix: &str,
        values: &[&str],
        bound: Option<&dyn Display>,
        value: impl Display,
    ) {
        debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
        self.series += 1;
        let (_, text) = self
            .by_name
            .entry(family.name)
            .or_insert_with(|| (family, String::new()));
        text.push_str(family.name);
        text.push_str(suffix);
        let mut mark = '{';
        for (name, value) in family.labels.iter().zip(values) {
            text.push(mark);
            text.push_str(name);
            text.push_str("=\"");
            escape(value, text);
            text.push('"');
            mark = ',';
        }
        // Writing to a text cannot fail.
        if let Some(bound) = bound {
            write!(text, "{mark}le=\"{bound}\"").ok();
            mark = ',';
        }
        if mark == ',' {
            text.push('}');
        }
        writeln!(text, " {value}").ok();
    }

    /// The families by name, each with what it is.
    pub(super) fn finish(self) -> String {
        // Names of families and their help are longer than any head has besides.
        let head_len = |family: &Family| 2 * family.name.len() + family.help.len() + 32;
        let families = self.by_name.values();
        let len = families
            .map(|(family, text)| head_len(family) + text.len())
            .sum();
        let mut whole = String::with_capacity(len);
        for (family, text) in self.by_name.into_values() {
            let Family { name, help, .. } = family;
            let kind = family.kind.label();
            writeln!(whole, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
            whole.push_str(&text);
        }
        whole
    }
}

/// A label's value: backslash, quotation mark and line feed are escaped.
fn escape(value: &str, text: &mut String) {
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        text.push_str(match special.as_bytes().first() {
            Some(b'\n') => "\\n",
            Some(b'"') => "\\\"",
            Some(_) | None => "\\\\",
        });
        rest = special.get(1..).unwrap_or_default();
    }
    text.push_str(rest);
}

/// Counts as the exposition format has them.
#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition has only floating point; above 2^53 a count is rounded"
)]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalogue::{
        ACCEPT_ERRORS, CATALOGUE, CLIENTS_LIMIT, FORWARD_DELAY, SCRAPE_DURATION,
    };

    #[test]
    fn samples_are_written_in_the_text_format() {
        let mut families = Families::default();
        let row = HistogramRow {
            bounds: &[0.25, 1.0],
            counts: vec![1, 3],
            count: 4,
            sum: 2.5,
        };
        families.add_histogram(&SCRAPE_DURATION, &[], &row);
        families.add_histogram(&FORWARD_DELAY, &["to_server"], &row);
        families.add(&CLIENTS_LIMIT, &[], 1e15);
        families.add(&ACCEPT_ERRORS, &["a \"b\"\\\nc"], 0.001);
        families.add(&ACCEPT_ERRORS, &[""], f64::INFINITY);
        assert_eq!(families.series(), 13);
        let head = |family: &Family| {
            let (name, kind) = (family.name, family.kind.label());
            format!("# HELP {name} {}\n# TYPE {name} {kind}\n", family.help)
        };
        let histogram = |name: &str, first: &str, all: &str| {
            format!(
                "{name}_bucket{{{first}le=\"0.25\"}} 1\n{name}_bucket{{{first}le=\"1\"}} 3\n\
                 {name}_bucket{{{first}le=\"+Inf\"}} 4\n{name}_sum{all} 2.5\n{name}_count{all} 4\n"
            )
        };
        let expected = [
            head(&ACCEPT_ERRORS),
            r#"poolscope_accept_errors_total{reason="a \"b\"\\\nc"} 0.001"#.to_owned() + "\n",
            "poolscope_accept_errors_total{reason=\"\"} +Inf\n".to_owned(),
            head(&CLIENTS_LIMIT),
            "poolscope_clients_limit 1000000000000000\n".to_owned(),
            head(&FORWARD_DELAY),
            histogram(
                FORWARD_DELAY.name,
                "direction=\"to_server\",",
                "{direction=\"to_server\"}",
            ),
            head(&SCRAPE_DURATION),
            histogram(SCRAPE_DURATION.name, "", ""),
        ];
        assert_eq!(families.finish(), expected.concat());
    }

    /// What needs no escaping there, and what Prometheus takes for a name.
    #[test]
    fn names_and_helps_are_plain() {
        let is_name = |name: &str| {
            let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
            name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
        };
        for family in CATALOGUE {
            assert!(is_name(family.name), "{}", family.name);
            assert!(family.labels.iter().all(|label| is_name(label)));
            assert!(!family.help.contains(['\\', '\n']), "{}", family.name);
        }
    }
}
