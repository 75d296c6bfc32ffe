//! The classic text format, read back.

use std::collections::BTreeMap;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Its name, with `_bucket`, `_sum` or `_count` where it is part of a histogram.
    pub(crate) name: String,
    /// Labels, unescaped.
    pub(crate) labels: BTreeMap<String, String>,
    /// Its value.
    pub(crate) value: f64,
}

/// One family with its samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: String,
    /// In the order of the text.
    pub(crate) samples: Vec<Sample>,
}

/// Families by name.
///
/// # Panics
///
/// Where the text is not what <https://prometheus.io/docs/instrumenting/exposition_formats/> says, or a sample
/// does not stand under the `TYPE` of its family.
#[track_caller]
pub(crate) fn parse_exposition(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            name.clone_into(&mut current);
            let family = families.entry(current.clone()).or_default();
            assert!(family.kind.is_empty(), "{name} comes twice");
            kind.clone_into(&mut family.kind);
        } else if !line.starts_with("# HELP ") {
            let sample = parse_sample(line);
            let family = families.get_mut(&current).unwrap();
            let suffixes: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let suffix = sample.name.strip_prefix(&current);
            assert!(
                suffix.is_some_and(|suffix| suffixes.contains(&suffix)),
                "{line} under {current}"
            );
            family.samples.push(sample);
        }
    }
    families
}

fn parse_sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"").unwrap();
            let (value, after) = parse_value(value);
            labels.insert(label.trim_start_matches(',').to_owned(), value);
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap();
    Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().unwrap_or_else(|_| panic!("{line}")),
    }
}

/// A label value up to its closing quote, and what follows.
fn parse_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next().unwrap().1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                c => panic!("escape \\{c} in {text}"),
            },
            c => value.push(c),
        }
    }
    panic!("no end of the value in {text}");
}
