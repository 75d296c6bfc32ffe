//! The standard `process_*` families, read from `/proc/self` at scrape time.
//!
//! What cannot be read is left out. Source: proc(5).

use std::fs;
use std::time::Duration;

use super::catalogue::{
    PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY, PROCESS_START_TIME,
    PROCESS_THREADS, PROCESS_VIRTUAL_MEMORY,
};
use super::families::{Families, float};

/// Adds the families of [`super::catalogue::Chapter::Process`].
pub(super) fn process(families: &mut Families) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(stat) = Stat::parse(&stat) {
        let ticks = float(rustix::param::clock_ticks_per_second());
        families.add(&PROCESS_CPU, &[], float(stat.cpu_ticks) / ticks);
        families.add(&PROCESS_THREADS, &[], float(stat.threads));
        families.add(&PROCESS_VIRTUAL_MEMORY, &[], float(stat.virtual_bytes));
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let resident = stat.resident_pages.saturating_mul(page);
        families.add(&PROCESS_RESIDENT_MEMORY, &[], float(resident));
        if let Some(booted_at) = boot_time() {
            let started = float(booted_at) + float(stat.start_ticks) / ticks;
            families.add(&PROCESS_START_TIME, &[], started);
        }
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory being read.
        let open = descriptors.count().saturating_sub(1);
        let open = u64::try_from(open).unwrap_or(u64::MAX);
        families.add(&PROCESS_OPEN_FDS, &[], float(open));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = limit.current.map_or(f64::INFINITY, float);
    families.add(&PROCESS_MAX_FDS, &[], limit);
}

/// Processor time and resident bytes of this process so far.
pub(super) fn usage() -> Option<(Duration, u64)> {
    let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let cpu = Duration::from_secs_f64(float(stat.cpu_ticks) / float(ticks_per_second));
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    Some((cpu, stat.resident_pages.saturating_mul(page)))
}

/// The fields of `/proc/self/stat` that are of interest.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Fields 14 and 15: user and system time in clock ticks.
    cpu_ticks: u64,
    /// Field 20.
    threads: u64,
    /// Field 22: clock ticks after boot.
    start_ticks: u64,
    /// Field 23.
    virtual_bytes: u64,
    /// Field 24.
    resident_pages: u64,
}

impl Stat {
    /// The name in field 2 may hold spaces and parentheses; everything after its last parenthesis is fields 3 on.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Seconds since the Unix epoch at which the system booted.
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text =
            "7 (po) ol (s) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 5 0 9000 1000000 250 0";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                cpu_ticks: 42,
                threads: 5,
                start_ticks: 9000,
                virtual_bytes: 1_000_000,
                resident_pages: 250,
            })
        );
        assert_eq!(Stat::parse("7 (poolscope) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process_has_plausible_numbers() {
        let mut families = Families::default();
        process(&mut families);
        let text = families.finish();
        let value = |name: &str| -> f64 {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_start_time_seconds") > 1.6e9);
        assert!(value("process_threads") >= 1.0);
    }
}
