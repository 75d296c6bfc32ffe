//! The floors of `src/`: each module uses only what lies below it, and the pure ones stay pure.

use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

use crate::support::root;

/// The pure floors, lowest first.
const PURE: [&str; 9] = [
    "time",
    "wire",
    "connection",
    "timeline",
    "clients",
    "pools",
    "detect",
    "diagnose",
    "observer",
];

/// The shell above them, lowest first; modules of one group are neighbours.
const SHELL: [&[&str]; 4] = [
    &[
        "clock",
        "live",
        "telemetry",
        "config",
        "metrics",
        "journal",
        "capture",
    ],
    &["proxy", "admin", "export"],
    &["app"],
    &["cli"],
];

/// What a pure floor has no business with: IO, `async`, clocks, randomness, logs.
const IMPURE: [&str; 22] = [
    "tokio",
    "tokio_util",
    "hyper",
    "axum",
    "tracing",
    "async",
    "await",
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
    "TcpStream",
    "TcpListener",
    "TcpSocket",
    "UdpSocket",
    "ToSocketAddrs",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "println",
    "eprintln",
    "thread_local",
];

/// The floor of a module: 0 is the lowest.
fn floor(module: &str) -> Option<usize> {
    let pure = PURE.iter().position(|&pure| pure == module);
    let shell = || SHELL.iter().position(|group| group.contains(&module));
    pure.or_else(|| shell().map(|group| PURE.len() + group))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `code` has `word` with no letter on either side of it.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        // What stands in quotes is data: a driver that calls itself "async", or code of an application.
        let is_quoted = code[..at].matches('"').count() % 2 == 1;
        !is_quoted && !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The code of a line: without a comment.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// A file's lines without comments and without the tests at its end, from number 1.
fn lines_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ")
    });
    let end = tests.unwrap_or(lines.len());
    (1..).zip(lines.into_iter().take(end).map(code_of))
}

/// The modules of our own crate that a file names, with the line: in `crate::a::b` it is `a`, and in
/// `crate::{a, b::{c, d}}` they are `a` and `b`, on whatever line they stand. `up` is the path to the crate's
/// root by `super`.
fn used_modules(text: &str, up: &str) -> Vec<(usize, String)> {
    let code: Vec<(usize, char)> = lines_of(text)
        .flat_map(|(number, line)| line.chars().chain(['\n']).map(move |c| (number, c)))
        .collect();
    let all: String = code.iter().map(|(_, c)| *c).collect();
    let number_at = |byte: usize| code[all[..byte].chars().count()].0;
    let mut used = Vec::new();
    for prefix in ["crate::", up] {
        for (at, _) in all.match_indices(prefix) {
            let before = all[..at].chars().next_back();
            if before.is_some_and(|c| is_word(c) || c == ':' || c == '$') {
                continue;
            }
            let begin = at + prefix.len();
            if !all[begin..].starts_with('{') {
                let name: String = all[begin..].chars().take_while(|&c| is_word(c)).collect();
                used.push((number_at(begin), name));
                continue;
            }
            let (mut depth, mut name) = (0, String::new());
            for (offset, c) in all[begin..].char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth <= 1 && !name.is_empty() && !is_word(c) {
                    used.push((number_at(begin + offset - 1), std::mem::take(&mut name)));
                }
                // Only the first word after the brace or a comma is a module of ours.
                let first = || {
                    let before = all[begin..begin + offset]
                        .trim_end_matches(is_word)
                        .trim_end();
                    before.ends_with(',') || before.ends_with('{')
                };
                if depth == 1 && is_word(c) && first() {
                    name.push(c);
                }
                if depth == 0 {
                    break;
                }
            }
        }
    }
    used
}

/// What is wrong with a file at `path` (from `src/`), each as `path:line: what`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let module = path.split(['/', '.']).next().unwrap_or_default();
    let Some(own) = floor(module) else {
        return vec![format!("{path}:1: {module} has no floor")];
    };
    // `src/a.rs` and `src/a/mod.rs` are one step below the root, `src/a/b.rs` two.
    let depth = path.trim_end_matches("/mod.rs").matches('/').count() + 1;
    let mut found = Vec::new();
    for (number, name) in used_modules(text, &"super::".repeat(depth)) {
        let allowed = match floor(&name) {
            // Within the shell neighbours may know each other; below it they may not.
            Some(other) => name == module || other < own || (other == own && own >= PURE.len()),
            // Not a module: an item of the root, which lies above everything.
            None => false,
        };
        if !allowed {
            found.push(format!("{path}:{number}: {module} uses crate::{name}"));
        }
    }
    // Tests of a file's own size stand beside it, and may use what those at a file's end may.
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    if own < PURE.len() && !is_test {
        for (number, line) in lines_of(text) {
            for word in IMPURE.iter().filter(|word| has_word(line, word)) {
                found.push(format!("{path}:{number}: {module} is pure but has {word}"));
            }
        }
    }
    found
}

fn rust_files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_floor_uses_only_floors_below_it() {
    let src = root().join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let library = read_to_string(src.join("lib.rs")).unwrap();
    let modules: Vec<&str> = library
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .map(|rest| rest.trim_end_matches(';'))
        .collect();

    let mut seen: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for file in &files {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        if matches!(path, "lib.rs" | "main.rs") {
            continue;
        }
        seen.push(path.split(['/', '.']).next().unwrap().into());
        found.extend(violations(path, &read_to_string(file).unwrap()));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    assert!(seen.len() >= 14, "only {} files were seen", seen.len());
    for module in &modules {
        assert!(
            seen.iter().any(|seen| seen == module),
            "no file of {module} was seen"
        );
    }
    for pure in ["time", "wire", "connection", "clients"] {
        assert!(
            modules.contains(&pure),
            "lib.rs has no module {pure}: {modules:?}"
        );
    }
}

#[track_caller]
fn check(path: &str, text: &str, expected: &[&str]) {
    assert_eq!(violations(path, text), expected, "{text}");
}

#[test]
fn a_floor_that_looks_up_is_named_with_its_line() {
    check(
        "wire/header.rs",
        "use std::fmt;\n\nuse crate::clients::ClientId;\n",
        &["wire/header.rs:3: wire uses crate::clients"],
    );
    check(
        "connection/mod.rs",
        "use crate::{\n    time::Timestamp,\n    wire::{command::Kind, Header},\n    metrics,\n};\n",
        &["connection/mod.rs:4: connection uses crate::metrics"],
    );
    check(
        "wire/mod.rs",
        "use super::proxy;\n",
        &["wire/mod.rs:1: wire uses crate::proxy"],
    );
    check(
        "wire/a/b.rs",
        "use super::super::super::connection::Role;\n",
        &["wire/a/b.rs:1: wire uses crate::connection"],
    );
    check(
        "metrics/mod.rs",
        "use crate::app;\n",
        &["metrics/mod.rs:1: metrics uses crate::app"],
    );
    check("extra.rs", "", &["extra.rs:1: extra has no floor"]);
}

#[test]
fn a_pure_floor_with_io_is_named_with_its_line() {
    let clock = "fn now() {\n    std::time::Instant::now();\n}\n";
    check(
        "clients/a.rs",
        clock,
        &["clients/a.rs:2: clients is pure but has Instant"],
    );
    check(
        "wire/a.rs",
        "use std::fs;\n",
        &["wire/a.rs:1: wire is pure but has std::fs"],
    );
    check(
        "time.rs",
        "pub async fn x() {}\n",
        &["time.rs:1: time is pure but has async"],
    );
    check(
        "wire/a.rs",
        "use std::net::{IpAddr, TcpStream};\n",
        &["wire/a.rs:1: wire is pure but has TcpStream"],
    );
}

#[test]
fn what_is_allowed_raises_no_alarm() {
    check(
        "clients/a.rs",
        "use crate::wire::Header;\nuse crate::time::Timestamp;\n",
        &[],
    );
    check(
        "clients/a.rs",
        "use super::mod_of_clients;\nuse crate::clients::Other;\n",
        &[],
    );
    check(
        "wire/a.rs",
        "use std::net::{IpAddr, SocketAddr};\nlet instant = 1; // tokio\n",
        &[],
    );
    check(
        "wire/a.rs",
        "//! Never `async`, see crate::proxy.\nlet awaited = asynchronous;\n",
        &[],
    );
    check(
        "proxy/a.rs",
        "use crate::metrics;\nuse crate::admin;\nuse std::time::Instant;\n",
        &[],
    );
    check(
        "wire/a.rs",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n",
        &[],
    );
}
