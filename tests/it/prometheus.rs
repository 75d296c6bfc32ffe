//! Prometheus and promtool, on which other tests rely, see what is right and what is wrong.

use std::time::Duration;

use crate::support::{Port, Prometheus, eventually_equal, get, promtool};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn prometheus_scrapes_and_tells_who_is_down() {
    let nobody = Port::reserve();
    let prometheus = Prometheus::start(&[nobody.addr()]);
    let up = |job: &str| {
        let samples = prometheus.query(&format!("up{{job=\"{job}\"}}"));
        samples.first().map(|(_, value)| *value)
    };
    eventually_equal(LIMIT, &Some(1.0), || up("prometheus"));
    eventually_equal(LIMIT, &Some(0.0), || up("poolscope"));
    let exposition = get(prometheus.addr(), "/metrics").unwrap();
    assert!(
        exposition.headers.contains("text/plain"),
        "{}",
        exposition.headers
    );
    promtool(&["check", "metrics"], &exposition.body).unwrap();
}

#[test]
fn promtool_has_findings_where_there_is_something_to_find() {
    let well = "# HELP a_total Things.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n";
    promtool(&["check", "metrics"], well).unwrap();
    for (text, finding) in [
        ("# HELP a Things.\n# TYPE a counter\na 1\n", "_total"),
        ("# TYPE a_total counter\na_total 1\n", "no help text"),
        ("a_total{b=\"c} 1\n", "error"),
    ] {
        let found = promtool(&["check", "metrics"], text).unwrap_err();
        assert!(found.contains(finding), "{text}: {found}");
    }
}
