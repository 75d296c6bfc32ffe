//! A server that crashes and comes back: what it acknowledged is there, and clients behind the proxy are back at
//! work as soon as clients without it.

#![expect(
    clippy::float_cmp,
    reason = "counts are whole numbers, and those are exact"
)]

use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};

use crate::support::{Agent, Driver, Poolscope, ReplicaSet, eventually, now, number};

const LIMIT: Duration = Duration::from_secs(45);
/// How much later than directly a client may be back. Drivers look for a server that is away every half second to
/// every second, so two drills of the same kind differ by as much.
const LATER: Duration = Duration::from_secs(1);
/// Documents that each driver has written when the server crashes, at least.
const LOAD: usize = 50;
/// Identifiers asked for at once.
const PAGE: usize = 2000;

/// A driver that writes without end.
struct Writer {
    driver: Driver,
    agent: Agent,
    run: u64,
}

impl Writer {
    fn start(driver: Driver, uri: &str) -> Self {
        let mut agent = Agent::spawn(driver);
        let name = format!("{driver:?}");
        let uri = format!("{uri}&appName={name}&w=majority&journal=true&heartbeatFrequencyMS=1000");
        // The old topology has a word of its own for that interval.
        let options = if driver == Driver::Node36Legacy {
            json!({ "haInterval": 1000 })
        } else {
            json!({})
        };
        agent.request(json!({ "do": "open", "name": "app", "uri": uri, "options": options }));
        let run = agent.submit(json!({
            "do": "run", "name": "app", "operation": "insert", "seconds": 120, "concurrency": 2,
            "args": { "collection": name, "prefix": "id", "list": true },
        }));
        Self { driver, agent, run }
    }

    fn written(&self, set: &ReplicaSet) -> i64 {
        let count = doc! { "count": format!("{:?}", self.driver) };
        let reply = set.members()[0].command("poolscope", count);
        number(reply.get("n").unwrap())
    }

    /// Ends the writing and looks for everything that was acknowledged.
    fn check_nothing_lost(mut self, set: &ReplicaSet) {
        let driver = self.driver;
        self.agent.request(json!({ "do": "stop", "run": self.run }));
        let answer = self.agent.wait(self.run);
        let acknowledged: Vec<&str> = answer["acknowledged"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        // Two were on their way when the others were counted.
        assert!(
            acknowledged.len() + 2 > LOAD,
            "{driver:?}: {}",
            answer["errors"]
        );
        for page in acknowledged.chunks(PAGE) {
            let query = doc! { "_id": { "$in": page } };
            let count = doc! { "count": format!("{driver:?}"), "query": query };
            let reply = set.members()[0].command("poolscope", count);
            let found = usize::try_from(number(reply.get("n").unwrap())).unwrap();
            assert_eq!(
                found,
                page.len(),
                "{driver:?}: acknowledged writes are lost"
            );
        }
    }
}

/// Kills the server under load and starts it again; tells how long after its election each driver wrote again.
fn drill(set: &mut ReplicaSet) -> Vec<Duration> {
    let uri = set.uri();
    let writers: Vec<Writer> = Driver::ABLE
        .iter()
        .map(|driver| Writer::start(*driver, &uri))
        .collect();
    for writer in &writers {
        eventually(LIMIT, || at_least(LOAD, writer.written(set)));
    }
    set.member_mut(0).kill();
    set.member_mut(0).restart();
    set.primary();
    let elected = now();
    let mut back: Vec<Option<Duration>> = vec![None; writers.len()];
    let written: Vec<i64> = writers.iter().map(|writer| writer.written(set)).collect();
    eventually(LIMIT, || {
        for ((writer, written), back) in writers.iter().zip(&written).zip(&mut back) {
            if back.is_none() && writer.written(set) > *written {
                *back = Some(elected.elapsed());
            }
        }
        let all: Option<Vec<Duration>> = back.iter().copied().collect();
        all.ok_or_else(|| format!("of {:?} back after {back:?}", Driver::ABLE))?;
        Ok::<(), String>(())
    });
    for writer in writers {
        writer.check_nothing_lost(set);
    }
    back.into_iter().flatten().collect()
}

fn at_least(least: usize, found: i64) -> Result<(), String> {
    if usize::try_from(found).unwrap() >= least {
        Ok(())
    } else {
        Err(format!("{found} of {least}"))
    }
}

#[test]
fn a_crash_under_load_loses_nothing_and_clients_are_back_as_soon_as_directly() {
    let mut direct = ReplicaSet::direct(1);
    let directly = drill(&mut direct);
    drop(direct);

    let mut set = ReplicaSet::start(1);
    let poolscope = Poolscope::start(&set.addrs());
    set.initiate(&poolscope.advertised());
    let proxied = drill(&mut set);
    for ((driver, directly), proxied) in Driver::ABLE.iter().zip(&directly).zip(&proxied) {
        eprintln!("{driver:?} was back after {directly:?} directly, {proxied:?} through the proxy");
        assert!(*proxied <= *directly + LATER, "{driver:?}");
    }
    // The restart was seen as what it was, and everything around it was read.
    assert_eq!(poolscope.sum("poolscope_upstream_restarts_total", &[]), 1.0);
    assert_eq!(
        poolscope.sum("poolscope_opaque_connections_total", &[]),
        0.0
    );
    assert_eq!(poolscope.sum("poolscope_decode_failures_total", &[]), 0.0);
}
