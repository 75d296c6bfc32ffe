//! What the documents tell people to type exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use crate::support::root;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// What the binary's own help says: subcommands and flags by command.
struct Cli {
    commands: BTreeMap<String, Help>,
}

#[derive(Debug, Default)]
struct Help {
    subcommands: BTreeSet<String>,
    flags: BTreeSet<String>,
}

impl Cli {
    fn introspect() -> Self {
        let mut cli = Self {
            commands: BTreeMap::new(),
        };
        cli.add(&[]);
        assert!(cli.commands.len() >= 8, "{:?}", cli.commands.keys());
        cli
    }

    fn add(&mut self, path: &[&str]) {
        let output = Command::new(env!("CARGO_BIN_EXE_poolscope"))
            .args(path)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{path:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut help = Help::default();
        let mut is_in_commands = false;
        for line in text.lines() {
            if !line.starts_with(' ') {
                is_in_commands = line == "Commands:";
            } else if is_in_commands {
                let indented = line
                    .strip_prefix("  ")
                    .filter(|line| !line.starts_with(' '));
                help.subcommands.extend(
                    indented
                        .and_then(|line| line.split(' ').next())
                        .map(str::to_owned),
                );
            } else if line.trim_start().starts_with('-') {
                help.flags.extend(flags(line).into_iter().take(1));
            }
        }
        help.subcommands.remove("help");
        for name in help.subcommands.clone() {
            self.add(&[path, &[name.as_str()]].concat());
        }
        self.commands.insert(path.join(" "), help);
    }

    fn has_flag(&self, flag: &str) -> bool {
        self.commands.values().any(|help| help.flags.contains(flag))
    }

    /// Checks a line that begins with the program.
    fn check(&self, words: &[&str], place: &str) {
        let mut path = Vec::new();
        for word in &words[1..] {
            let help = &self.commands[&path.join(" ")];
            if help.subcommands.contains(*word) {
                path.push(*word);
            } else {
                let is_complete = help.subcommands.is_empty() || word.starts_with('-');
                assert!(
                    is_complete,
                    "{place}: `poolscope {}` has no {word}",
                    path.join(" ")
                );
            }
        }
        let help = &self.commands[&path.join(" ")];
        for flag in flags(&words.join(" ")) {
            assert!(
                help.flags.contains(&flag),
                "{place}: `poolscope {}` has no {flag}",
                path.join(" ")
            );
        }
    }
}

/// The long flags in a line, without their values.
fn flags(line: &str) -> Vec<String> {
    line.split(|c: char| c.is_whitespace() || "=,;()[]`\"".contains(c))
        .filter(|word| {
            word.strip_prefix("--")
                .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        })
        .map(|word| word.trim_end_matches(['.', ':']).to_owned())
        .collect()
}

/// Pieces of code with the line they stand in: what is between backticks, and the lines of code blocks.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut pieces = Vec::new();
    let mut is_in_block = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            is_in_block = !is_in_block;
        } else if is_in_block {
            let command = line.split(" #").next().unwrap_or_default();
            pieces.push((number, command.trim().to_owned()));
        } else {
            let inline = line.split('`').skip(1).step_by(2);
            pieces.extend(inline.map(|piece| (number, piece.to_owned())));
        }
    }
    pieces
}

#[test]
fn commands_flags_and_targets_named_in_the_documents_exist() {
    let cli = Cli::introspect();
    let makefile = read("Makefile");
    let (mut commands, mut targets, mut lone_flags) = (0, 0, 0);
    for file in [
        "README.md",
        "CHANGELOG.md",
        "src/admin/API.md",
        "tests/drivers/README.md",
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/prometheus.yml",
        "deploy/systemd/poolscope.service",
        "config/poolscope.example.yaml",
    ] {
        for (line, piece) in code(&read(file)) {
            let place = format!("{file}:{line}: {piece}");
            let words: Vec<&str> = piece.split_whitespace().collect();
            match words.as_slice() {
                ["poolscope" | "target/release/poolscope", _, ..] => {
                    cli.check(&words, &place);
                    commands += 1;
                }
                ["make", target, ..] => {
                    assert!(
                        makefile
                            .lines()
                            .any(|rule| rule.starts_with(&format!("{target}:"))),
                        "{place}"
                    );
                    targets += 1;
                }
                [flag, ..] if flag.starts_with("--") => {
                    for flag in flags(&piece) {
                        assert!(cli.has_flag(&flag), "{place}");
                        lone_flags += 1;
                    }
                }
                _ => {}
            }
        }
    }
    assert!(
        commands >= 10 && targets >= 2 && lone_flags >= 2,
        "{commands} {targets} {lone_flags}"
    );
}

#[test]
fn metrics_paths_and_files_named_in_the_readme_exist() {
    let readme = read("README.md");
    let catalogue = read("src/metrics/CATALOGUE.md");
    let words = readme.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in words.filter(|word| word.starts_with("poolscope_")) {
        assert!(catalogue.contains(&format!("| `{name}` |")), "{name}");
    }
    let api = read("src/admin/API.md");
    for (line, path) in code(&readme) {
        if path.contains(' ') {
            continue;
        }
        if path.starts_with('/') {
            let path = path.trim_end_matches('…');
            assert!(api.contains(path), "README.md:{line}: {path}");
        } else if path.contains('/') && !path.contains([':', '@']) && path != "/" {
            let file = path.trim_start_matches("target/release/");
            assert!(
                path.starts_with(".tools") || root().join(file).exists(),
                "README.md:{line}: {path}"
            );
        }
    }
    let links: Vec<&str> = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .collect();
    assert!(links.len() >= 4, "{links:?}");
    for link in links
        .iter()
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
    {
        assert!(root().join(link).exists(), "{link}");
    }
}

#[test]
fn the_help_of_make_tells_every_target() {
    let makefile = read("Makefile");
    let phony = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY: "))
        .unwrap();
    for target in phony.split(' ') {
        assert!(
            makefile
                .lines()
                .any(|line| line.starts_with(&format!("{target}:"))),
            "{target} has no rule"
        );
        let is_told = makefile.contains(&format!("\"make {target} "));
        assert!(
            is_told || target == "help",
            "make help does not tell {target}"
        );
    }
}
