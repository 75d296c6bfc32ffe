//! A real Prometheus and its promtool.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{Port, Process, eventually, get, tool};

const START_LIMIT: Duration = Duration::from_secs(30);

/// Runs promtool with `input` on its standard input.
///
/// # Errors
///
/// With all it printed, when it is not content. `check metrics` prints its findings and is content with some of
/// them; they are errors here.
pub(crate) fn promtool(args: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(tool("prometheus/promtool"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It reads everything before it prints, unless it refuses its arguments and reads nothing.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && err.is_empty() {
        Ok(out)
    } else {
        Err(format!("promtool {args:?}: {}\n{out}{err}", output.status))
    }
}

/// A Prometheus that scrapes once a second.
#[derive(Debug)]
pub(crate) struct Prometheus {
    process: Process,
    port: Port,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes `/metrics` of the targets, and itself under the job `prometheus`.
    pub(crate) fn start(targets: &[SocketAddr]) -> Self {
        let port = Port::reserve();
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        let targets: Vec<String> = targets.iter().map(SocketAddr::to_string).collect();
        let text = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n\
             - {{ job_name: poolscope, static_configs: [{{ targets: {targets:?} }}] }}\n\
             - {{ job_name: prometheus, static_configs: [{{ targets: [{:?}] }}] }}\n",
            port.addr().to_string(),
        );
        std::fs::write(&config, text).unwrap();
        let mut process = Process::start(
            Command::new(tool("prometheus/prometheus"))
                .arg(format!("--config.file={}", config.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    directory.path().join("data").display()
                ))
                .arg(format!("--web.listen-address={}", port.addr()))
                .stdin(Stdio::null()),
        );
        eventually(START_LIMIT, || {
            if let Some(status) = process.ended() {
                panic!("Prometheus ended with {status}: {:#?}", process.lines());
            }
            match get(port.addr(), "/-/ready") {
                Ok(response) if response.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        Self {
            process,
            port,
            _directory: directory,
        }
    }

    /// The samples that an instant query finds: labels and value of each.
    #[track_caller]
    pub(crate) fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let mut path = String::from("/api/v1/query?query=");
        for byte in expression.bytes() {
            write!(path, "%{byte:02x}").unwrap();
        }
        let response = get(self.port.addr(), &path).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        let answer: Value = serde_json::from_str(&response.body).unwrap();
        let samples = answer["data"]["result"].as_array().unwrap().iter();
        samples
            .map(|sample| {
                let value = sample["value"][1].as_str().unwrap().parse().unwrap();
                (sample["metric"].clone(), value)
            })
            .collect()
    }

    /// Where its own HTTP side is.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The lines it has logged.
    pub(crate) fn log(&self) -> Vec<String> {
        self.process.lines()
    }
}
