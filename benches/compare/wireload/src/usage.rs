//! What a process and all its descendants used: CPU time, context switches, memory. From `/proc`.
//!
//! The loopback charges the receiving side of a packet to its sender, so the kernel's part of forwarding is in it.

use std::collections::HashMap;
use std::fs;

/// One tick of `/proc/…/stat`: `USER_HZ` is 100 on Linux.
const TICK_NS: u64 = 10_000_000;

#[derive(Clone, Default, Debug)]
pub struct Usage {
    pub user_ns: u64,
    pub sys_ns: u64,
    exec_ns: u64,
    tasks: Vec<u32>,
    pub voluntary: u64,
    pub involuntary: u64,
    pub rss_kb: u64,
    pub pss_kb: u64,
    pub procs: usize,
}

fn stat_fields(path: &str) -> Option<Vec<u64>> {
    let s = fs::read_to_string(path).ok()?;
    // The name of a program may hold spaces and brackets: what follows the last bracket is regular.
    Some(
        s[s.rfind(')')? + 2..]
            .split(' ')
            .skip(1)
            .map(|f| f.trim().parse().unwrap_or(0))
            .collect(),
    )
}

fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for e in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Ok(pid) = e.file_name().to_string_lossy().parse::<u32>()
            && let Some(f) = stat_fields(&format!("/proc/{pid}/stat"))
        {
            children.entry(f[0] as u32).or_default().push(pid);
        }
    }
    let mut out = vec![root];
    let mut i = 0;
    while i < out.len() {
        out.extend(children.get(&out[i]).into_iter().flatten());
        i += 1;
    }
    out
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|l| l.strip_prefix(name))
        .and_then(|v| v.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// What the process `root` and its descendants used so far.
pub fn usage_of(root: u32) -> Usage {
    let mut s = Usage::default();
    for pid in tree(root) {
        let Some(f) = stat_fields(&format!("/proc/{pid}/stat")) else {
            continue;
        };
        s.procs += 1;
        s.user_ns += (f[10] + f[12]) * TICK_NS;
        s.sys_ns += (f[11] + f[13]) * TICK_NS;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        s.rss_kb += field(&status, "VmRSS:");
        let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        s.pss_kb += field(&maps, "Pss:");
        for t in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let base = t.path();
            let sched = fs::read_to_string(base.join("schedstat")).unwrap_or_default();
            s.exec_ns += sched
                .split(' ')
                .next()
                .and_then(|v| v.parse().ok())
                .unwrap_or(0);
            let st = fs::read_to_string(base.join("status")).unwrap_or_default();
            s.voluntary += field(&st, "voluntary_ctxt_switches:");
            s.involuntary += field(&st, "nonvoluntary_ctxt_switches:");
            s.tasks
                .push(t.file_name().to_string_lossy().parse().unwrap_or(0));
        }
    }
    s.tasks.sort_unstable();
    s
}

impl Usage {
    /// CPU time since `before`, in nanoseconds. The scheduler's account is exact, but forgets threads that ended;
    /// where threads came or went the coarser ticks have to do.
    pub fn cpu_ns_since(&self, before: &Usage) -> u64 {
        if self.tasks == before.tasks && self.exec_ns > 0 {
            self.exec_ns.saturating_sub(before.exec_ns)
        } else {
            self.ticks_ns_since(before)
        }
    }

    /// The same by ticks, which also know of threads that came and went in between.
    pub fn ticks_ns_since(&self, before: &Usage) -> u64 {
        (self.user_ns + self.sys_ns).saturating_sub(before.user_ns + before.sys_ns)
    }

    pub fn json_since(&self, before: &Usage, ops: u64, bytes: u64) -> String {
        let per = |ns: u64| ns as f64 / 1e3 / ops.max(1) as f64;
        let cpu = self.cpu_ns_since(before);
        let (u, s) = (
            self.user_ns.saturating_sub(before.user_ns),
            self.sys_ns.saturating_sub(before.sys_ns),
        );
        let split = u as f64 / (u + s).max(1) as f64;
        format!(
            "{{\"cpu_us_op\":{:.3},\"user_us_op\":{:.3},\"sys_us_op\":{:.3},\"cpu_ms_gb\":{:.1},\"cpu_ms\":{:.1},\
             \"vcsw_op\":{:.3},\"ivcsw_op\":{:.3},\"rss_kb\":{},\"pss_kb\":{},\"procs\":{},\"tasks\":{}}}",
            per(cpu),
            per(cpu) * split,
            per(cpu) * (1.0 - split),
            cpu as f64 / 1e6 / (bytes.max(1) as f64 / 1e9),
            cpu as f64 / 1e6,
            self.voluntary.saturating_sub(before.voluntary) as f64 / ops.max(1) as f64,
            self.involuntary.saturating_sub(before.involuntary) as f64 / ops.max(1) as f64,
            self.rss_kb,
            self.pss_kb,
            self.procs,
            self.tasks.len()
        )
    }
}

/// Nanoseconds of CPU that the whole machine was busy since it started.
pub fn machine_busy_ns() -> u64 {
    let s = fs::read_to_string("/proc/stat").unwrap_or_default();
    let f: Vec<u64> = s
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(1)
        .map(|v| v.parse().unwrap_or(0))
        .collect();
    // The fields: user nice system idle iowait irq softirq steal.
    f.iter()
        .take(8)
        .enumerate()
        .filter(|(i, _)| *i != 3 && *i != 4)
        .map(|(_, v)| v)
        .sum::<u64>()
        * TICK_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_counted() {
        let a = usage_of(std::process::id());
        let mut x = 1u64;
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 60 {
            x = std::hint::black_box(x.wrapping_mul(31) + 1);
        }
        let b = usage_of(std::process::id());
        assert!(a.procs >= 1 && b.rss_kb > 0);
        assert!(b.user_ns + b.sys_ns > a.user_ns + a.sys_ns);
    }
}
