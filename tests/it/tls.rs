//! Clients that speak TLS to the server through a plain listener: nothing can be read, everything works, and what
//! needs no reading is counted.

#![expect(
    clippy::float_cmp,
    reason = "counts are whole numbers, and those are exact"
)]

use std::time::Duration;

use bson::doc;
use serde_json::json;

use crate::support::{Agent, Driver, Mongod, MongodOptions, Poolscope, eventually_equal, tool};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn tls_passes_through_unread_and_is_counted() {
    let server = Mongod::start(MongodOptions {
        tls: true,
        ..MongodOptions::default()
    });
    let poolscope = Poolscope::start(&[server.addr()]);
    let sum = |family: &str, labels: &[(&str, &str)]| poolscope.sum(family, labels);
    // The last plain word it takes.
    server.command("admin", doc! { "setParameter": 1, "tlsMode": "requireTLS" });

    let authority = tool("tls/authority.pem");
    let tls = format!("tls=true&tlsCAFile={}", authority.display());
    for driver in Driver::ABLE {
        let opened_before = sum("poolscope_upstream_connections_opened_total", &[]);
        let to_server_before = sum("poolscope_bytes_total", &[("direction", "request")]);
        let to_client_before = sum("poolscope_bytes_total", &[("direction", "reply")]);
        let mut agent = Agent::spawn(driver);
        agent.open("app", &format!("{}&{tls}", poolscope.uri("secret")));
        agent.run("app", "drop", 1, &json!({}));
        agent.run("app", "crud", 5, &json!({}));
        assert_eq!(agent.run("app", "types", 1, &json!({}))["equal"], true);
        let many = json!({ "documents": 40, "bytes": 100_000 });
        agent.run("app", "insert_many", 1, &many);
        let all = json!({ "documents": 40, "bytes": 4_000_000 });
        assert_eq!(agent.run("app", "find", 1, &json!({})), all);
        agent.close("app");
        drop(agent);

        eventually_equal(LIMIT, &0.0, || sum("poolscope_upstream_connections", &[]));
        let opened = sum("poolscope_upstream_connections_opened_total", &[]);
        assert!(opened > opened_before, "{driver:?}");
        let to_server = sum("poolscope_bytes_total", &[("direction", "request")]);
        let to_client = sum("poolscope_bytes_total", &[("direction", "reply")]);
        assert!(to_server - to_server_before > 4e6, "{driver:?}");
        assert!(to_client - to_client_before > 4e6, "{driver:?}");
    }

    let opened = sum("poolscope_upstream_connections_opened_total", &[]);
    assert_eq!(
        sum("poolscope_opaque_connections_total", &[("reason", "tls")]),
        opened
    );
    assert_eq!(sum("poolscope_opaque_connections_total", &[]), opened);
    assert_eq!(
        sum("poolscope_upstream_connections_closed_total", &[]),
        opened
    );
    // Whoever says goodbye within TLS may find the server closing first.
    let endings = [("phase", "opaque")];
    assert_eq!(sum("poolscope_connection_endings_total", &endings), opened);
    // Unread is all of it, and none of it is taken for a request.
    assert_eq!(
        sum("poolscope_unobserved_bytes_total", &[]),
        sum("poolscope_bytes_total", &[])
    );
    assert_eq!(sum("poolscope_requests_total", &[]), 0.0);
    // Who hides everything hides the name of the application as well.
    assert!(!poolscope.metrics().contains("secret"));
}
