//! Load made of connections: opened and closed in a row, or held without use.

use crate::exchanges::{connect, roundtrip};
use crate::histogram::Histogram;
use crate::messages;
use crate::usage::{machine_busy_ns, usage_of};
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Each worker connects, exchanges a hello and closes, again and again.
pub fn connect_and_close(
    target: SocketAddr,
    workers: usize,
    secs: f64,
    pid: Option<u32>,
    server: Option<u32>,
) -> io::Result<String> {
    let get = |p: Option<u32>| p.map(usage_of).unwrap_or_default();
    let me = || usage_of(std::process::id());
    let (b, bs, bm, busy) = (get(pid), get(server), me(), machine_busy_ns());
    let t0 = Instant::now();
    let end = t0 + Duration::from_secs_f64(secs);
    let handles: Vec<_> = (0..workers)
        .map(|_| {
            thread::spawn(move || -> io::Result<Histogram> {
                let mut h = Histogram::new();
                let mut id = 0;
                while Instant::now() < end {
                    let t = Instant::now();
                    id += 1;
                    drop(connect(target, id)?);
                    h.add(t.elapsed().as_nanos() as u64);
                }
                Ok(h)
            })
        })
        .collect();
    let mut hist = Histogram::new();
    let mut failed = 0;
    for h in handles {
        match h.join().map_err(|_| io::Error::other("worker panicked"))? {
            Ok(h) => hist.merge(&h),
            Err(e) => {
                eprintln!("worker ended early: {e}");
                failed += 1;
            }
        }
    }
    let secs = t0.elapsed().as_secs_f64();
    let (a, as_, am) = (get(pid), get(server), me());
    let named = a.cpu_ns_since(&b) + as_.cpu_ns_since(&bs) + am.ticks_ns_since(&bm);
    let other = machine_busy_ns().saturating_sub(busy).saturating_sub(named) as f64 / 1e9 / secs;
    let n = hist.count();
    Ok(format!(
        "{{\"mode\":\"connect\",\"target\":\"{target}\",\"conns\":{workers},\"secs\":{secs:.3},\"ops\":{n},\"ops_s\":{:.1},\
         \"failed_workers\":{failed},\"lat_us\":{},\"proxy\":{},\"server\":{},\"other_cpus\":{other:.2}}}",
        n as f64 / secs,
        hist.json(),
        pid.map_or("null".into(), |_| a.json_since(&b, n, 1)),
        server.map_or("null".into(), |_| as_.json_since(&bs, n, 1)),
    ))
}

/// Opens `n` connections with a hello and a ping each, and holds them; all have to answer at the end.
pub fn hold(target: SocketAddr, n: usize, secs: f64, pid: Option<u32>) -> io::Result<String> {
    let get = || pid.map(usage_of).unwrap_or_default();
    let empty = get();
    let t0 = Instant::now();
    let mut conns = Vec::with_capacity(n);
    for i in 0..n {
        conns.push(
            connect(target, i as i32 + 1)
                .map_err(|e| io::Error::other(format!("connection {i}: {e}")))?,
        );
    }
    let opened = t0.elapsed().as_secs_f64();
    for c in &mut conns {
        roundtrip(c, &messages::ping_request(), 7)?;
    }
    // What the last exchanges left to do is not idleness.
    thread::sleep(Duration::from_millis(500));
    let before = get();
    let t1 = Instant::now();
    thread::sleep(Duration::from_secs_f64(secs));
    let full = get();
    let idle_secs = t1.elapsed().as_secs_f64();
    let mut alive = 0;
    for c in &mut conns {
        alive += roundtrip(c, &messages::ping_request(), 9).is_ok() as usize;
    }
    let per = |a: u64, b: u64| a.saturating_sub(b) as f64 / n as f64;
    Ok(format!(
        "{{\"mode\":\"idle\",\"target\":\"{target}\",\"conns\":{n},\"alive\":{alive},\"open_s\":{opened:.3},\
         \"rss_kb\":{},\"pss_kb\":{},\"base_rss_kb\":{},\"base_pss_kb\":{},\"rss_kb_conn\":{:.3},\"pss_kb_conn\":{:.3},\
         \"idle_cpu_ms_s\":{:.3},\"procs\":{}}}",
        full.rss_kb,
        full.pss_kb,
        empty.rss_kb,
        empty.pss_kb,
        per(full.rss_kb, empty.rss_kb),
        per(full.pss_kb, empty.pss_kb),
        full.cpu_ns_since(&before) as f64 / 1e6 / idle_secs,
        full.procs,
    ))
}
