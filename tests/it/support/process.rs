//! A child process with its output, its signals and what the kernel knows about it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::eventually;

/// A child process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command` and captures the lines of its standard output and standard error.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = Self::start_quiet(command.stdout(Stdio::piped()));
        let out = process.child.stdout.take().unwrap();
        process.capture(out);
        process
    }

    /// Starts `command`, leaves its standard output alone and captures its standard error.
    pub(crate) fn start_quiet(command: &mut Command) -> Self {
        let child = command
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut process = Self {
            child,
            lines: Arc::default(),
        };
        let err = process.child.stderr.take().unwrap();
        process.capture(err);
        process
    }

    fn capture(&self, from: impl Read + Send + 'static) {
        let lines = Arc::clone(&self.lines);
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
    }

    /// The standard input and output, where `command` had asked for pipes.
    pub(crate) fn take_pipes(&mut self) -> (ChildStdin, std::process::ChildStdout) {
        (
            self.child.stdin.take().unwrap(),
            self.child.stdout.take().unwrap(),
        )
    }

    /// The lines captured so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to a process that has not been waited for.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let pid = self.pid();
        eventually(limit, || {
            let ended = self.child.try_wait().unwrap();
            ended.ok_or_else(|| format!("process {pid} is still running"))
        })
    }

    /// Kills it and waits for its end; nothing happens if it has ended.
    pub(crate) fn kill(&mut self) {
        // It can only fail for a process that has ended.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The highest resident memory so far, in bytes.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Processor time spent so far, user and system, in steps of a clock tick (10 ms).
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name of the program may contain anything; the fields behind it are numbers.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// Limits how many descriptors it may have open from now on.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        let pid = Pid::from_raw(self.pid().try_into().unwrap());
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// Open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        let directory = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(directory).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
