//! The real binary before real servers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::{Port, Process, Response, eventually, get};

const START_LIMIT: Duration = Duration::from_secs(20);

/// `poolscope serve` on ports of its own.
#[derive(Debug)]
pub(crate) struct Poolscope {
    process: Process,
    listeners: Vec<SocketAddr>,
    /// Reserves their numbers.
    _ports: Vec<Port>,
    web: Port,
    upstreams: Vec<SocketAddr>,
    args: Vec<String>,
}

impl Poolscope {
    /// One listener for each upstream; returns when it is ready.
    #[track_caller]
    pub(crate) fn start(upstreams: &[SocketAddr]) -> Self {
        Self::start_with(upstreams, &[])
    }

    /// The same with further arguments.
    #[track_caller]
    pub(crate) fn start_with(upstreams: &[SocketAddr], args: &[&str]) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), upstreams, args)
    }

    /// The same with listeners on another address of this host.
    #[track_caller]
    pub(crate) fn start_at(host: IpAddr, upstreams: &[SocketAddr], args: &[&str]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
        Self::launch(command, host, upstreams, args)
    }

    /// Whether `serve` takes an argument.
    pub(crate) fn takes(argument: &str) -> bool {
        let help = Command::new(env!("CARGO_BIN_EXE_poolscope"))
            .args(["serve", "--help"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&help.stdout).contains(argument)
    }

    /// The same with a limit of open descriptors from its start.
    #[track_caller]
    pub(crate) fn start_limited(upstreams: &[SocketAddr], descriptors: u64, args: &[&str]) -> Self {
        Self::start_under(&[&format!("--nofile={descriptors}")], upstreams, args)
    }

    /// The same with limits from its start, as `prlimit` takes them.
    #[track_caller]
    pub(crate) fn start_under(limits: &[&str], upstreams: &[SocketAddr], args: &[&str]) -> Self {
        let mut command = Command::new("prlimit");
        command.args(limits);
        Self::start_by(command, upstreams, args)
    }

    /// The same by way of a command that becomes what its last arguments say.
    #[track_caller]
    pub(crate) fn start_by(mut command: Command, upstreams: &[SocketAddr], args: &[&str]) -> Self {
        command.arg(env!("CARGO_BIN_EXE_poolscope"));
        Self::launch(command, Ipv4Addr::LOCALHOST.into(), upstreams, args)
    }

    #[track_caller]
    fn launch(command: Command, host: IpAddr, upstreams: &[SocketAddr], args: &[&str]) -> Self {
        let ports: Vec<Port> = upstreams.iter().map(|_| Port::reserve()).collect();
        let listeners: Vec<SocketAddr> = ports
            .iter()
            .map(|port| SocketAddr::new(host, port.number()))
            .collect();
        let web = Port::reserve();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        Self {
            process: Self::run(command, &listeners, &web, upstreams, &args),
            listeners,
            _ports: ports,
            web,
            upstreams: upstreams.to_vec(),
            args,
        }
    }

    /// Starts the process on ports that are reserved; returns when it is ready.
    #[track_caller]
    fn run(
        mut command: Command,
        listeners: &[SocketAddr],
        web: &Port,
        upstreams: &[SocketAddr],
        args: &[String],
    ) -> Process {
        command.arg("serve");
        for (listener, upstream) in listeners.iter().zip(upstreams) {
            command
                .args(["--listen", &listener.to_string()])
                .args(["--upstream", &upstream.to_string()]);
        }
        command
            .args(["--web.listen-address", &web.addr().to_string()])
            .args(args)
            .stdin(Stdio::null());
        let mut process = Process::start(&mut command);
        eventually(START_LIMIT, || {
            if let Some(status) = process.ended() {
                panic!("{command:?} ended with {status}\n{:#?}", process.lines());
            }
            match get(web.addr(), "/-/ready") {
                Ok(response) if response.status == 200 => Ok(()),
                other => Err(format!("not ready: {other:?}\n{:#?}", process.lines())),
            }
        });
        process
    }

    /// Kills the process and starts another in its place; returns when that is ready.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        let command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
        let (listeners, web) = (&self.listeners, &self.web);
        self.process = Self::run(command, listeners, web, &self.upstreams, &self.args);
    }

    /// Where clients connect to the first upstream.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.listeners[0]
    }

    /// Where clients connect, in the order of the upstreams.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.listeners.clone()
    }

    /// The same as `host:port`, as replica set members are advertised.
    pub(crate) fn advertised(&self) -> Vec<String> {
        self.addrs().iter().map(SocketAddr::to_string).collect()
    }

    /// Where metrics and API are served.
    pub(crate) fn web_addr(&self) -> SocketAddr {
        self.web.addr()
    }

    /// A connection string through the first listener, naming the application.
    pub(crate) fn uri(&self, application: &str) -> String {
        let addr = self.addr();
        format!("mongodb://{addr}/?directConnection=true&appName={application}")
    }

    /// Asks its HTTP side.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        get(self.web.addr(), path).unwrap()
    }

    /// The exposition.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{response:?}");
        response.body
    }

    /// The value of one series, written as in the exposition: `name` or `name{label="value",…}`.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let metrics = self.metrics();
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().unwrap())
    }

    /// The sum over all series of a family that carry these labels.
    #[track_caller]
    pub(crate) fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        Self::sum_in(&self.metrics(), family, labels)
    }

    /// The same in an exposition at hand.
    pub(crate) fn sum_in(metrics: &str, family: &str, labels: &[(&str, &str)]) -> f64 {
        let pair = |(label, value): &(&str, &str)| format!("{label}=\"{value}\"");
        let wanted: Vec<String> = labels.iter().map(pair).collect();
        metrics
            .lines()
            .filter_map(|line| line.strip_prefix(family))
            .filter(|rest| rest.starts_with('{') || rest.starts_with(' '))
            .filter(|rest| wanted.iter().all(|pair| rest.contains(pair)))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// What one of the binary's own commands prints about this instance.
    #[track_caller]
    pub(crate) fn show(&self, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_poolscope"))
            .args(args)
            .args(["--address", &self.web.addr().to_string()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `/api/v1/<path>` answers.
    #[track_caller]
    pub(crate) fn api(&self, path: &str) -> Value {
        let response = self.get(&format!("/api/v1/{path}"));
        assert_eq!(response.status, 200, "{response:?}");
        serde_json::from_str(&response.body).unwrap()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// The highest resident memory so far, in bytes.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        self.process.peak_resident_bytes()
    }

    /// Limits how many descriptors it may have open from now on.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        self.process.limit_descriptors(limit);
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        self.process.descriptors()
    }

    /// The lines it has logged.
    pub(crate) fn log(&self) -> Vec<String> {
        self.process.lines()
    }

    /// The process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks it to end and waits until it has.
    #[track_caller]
    pub(crate) fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(limit)
    }
}
