//! A server that announces itself by a name that does not lead through the proxy is told, everywhere.

use std::time::Duration;

use bson::doc;

use crate::support::{Connection, Poolscope, ReplicaSet, eventually, eventually_equal};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn members_that_lead_round_the_proxy_are_told_in_log_metric_and_status() {
    let set = ReplicaSet::direct(1);
    let proxy = Poolscope::start(&set.addrs());
    let mut connection = Connection::open(proxy.addr()).unwrap();
    let hello = connection.command("admin", doc! { "hello": 1 }).unwrap();
    let me = hello.get_str("me").unwrap().to_owned();
    assert_eq!(
        me,
        set.addrs()[0].to_string(),
        "the set was initiated with its own address"
    );

    eventually_equal(LIMIT, &1.0, || {
        proxy.sum("poolscope_upstream_bypass_names", &[])
    });
    eventually(LIMIT, || {
        let log = proxy.log();
        let told = log
            .iter()
            .any(|line| line.contains("WARN") && line.contains(&me));
        if told {
            Ok(())
        } else {
            Err(format!("{log:#?}"))
        }
    });
    let status = proxy.api("status").to_string();
    assert!(status.contains(&me), "{status}");
    let upstreams = proxy.api("upstreams").to_string();
    assert!(upstreams.contains(&me), "{upstreams}");
}

#[test]
fn members_that_lead_through_the_proxy_are_no_reason_to_warn() {
    let mut set = ReplicaSet::start(1);
    let proxy = Poolscope::start(&set.addrs());
    set.initiate(&proxy.advertised());
    let mut connection = Connection::open(proxy.addr()).unwrap();
    eventually(LIMIT, || {
        let hello = connection.command("admin", doc! { "hello": 1 }).unwrap();
        match hello.get_str("me") {
            Ok(me) if me == proxy.advertised()[0] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // A reply is forwarded before it is looked at: whoever has it may be ahead of the books.
    eventually(LIMIT, || {
        let upstream = &proxy.api("upstreams")["upstreams"][0];
        let is_read = upstream["server"]["set_name"].is_string();
        if is_read {
            Ok(())
        } else {
            Err(upstream.to_string())
        }
    });
    assert_eq!(
        proxy.sum("poolscope_upstream_bypass_names", &[]).to_bits(),
        0.0_f64.to_bits()
    );
    assert!(
        !proxy.log().iter().any(|line| line.contains("WARN")),
        "{:#?}",
        proxy.log()
    );
}
