//! Episodes in which pools were cleared: as drivers tell them, and which of those that are inferred they are.
//!
//! One outage makes one event in some drivers and one for each failed check in others. What makes them one episode is
//! taken from what drivers tell, too: from the first clear until the pool is ready again, and stays so.

use serde_json::Value;

use super::scores::Span;
use super::told;

/// A pool that is cleared again so soon after it was ready, in seconds, had not recovered: it was looked at once, or
/// twice (Server Discovery and Monitoring specification § minHeartbeatFrequencyMS: half a second lies between checks).
const UNSTEADY: f64 = 1.0;

/// Driver and poolscope may tell of an end, or a beginning, so far apart, in seconds.
const SLACK: f64 = 1.0;

/// Those that tell when a pool that was cleared may be used again.
const TELLING_READY: [&str; 6] = [
    "pymongo-4",
    "pymongo-4-async",
    "node-4",
    "node-6",
    "node-7",
    "rust-3",
];

/// An episode that has begun.
#[derive(Clone, Copy, Debug)]
struct Episode {
    begin: f64,
    last_clear: f64,
    ready_at: Option<f64>,
}

/// Episodes as the events of an application tell them until a moment, at which those that go on are cut off.
pub(super) fn told(app: &Value, until: f64) -> Vec<Span> {
    let clears = told::clears(app);
    let mut episodes: Vec<Episode> = Vec::new();
    let mut created: Vec<(&Value, f64)> = Vec::new();
    for event in app["events"].as_array().unwrap() {
        let Some(at) = event["at"].as_f64().filter(|at| *at <= until) else {
            continue;
        };
        match event["event"].as_str().unwrap_or_default() {
            "pool_cleared" if clears.contains(&at) => cleared(&mut episodes, at),
            "created" => created.push((&event["connection"], at)),
            name => {
                let open = episodes.last_mut();
                if let Some(open) = open.filter(|open| open.ready_at.is_none())
                    && is_ready(app, name, &event["connection"], &created, open.last_clear)
                {
                    open.ready_at = Some(at);
                }
            }
        }
    }
    let span = |episode: Episode| (episode.begin, episode.ready_at.unwrap_or(until));
    episodes.into_iter().map(span).collect()
}

/// Goes on with an episode, or begins another.
fn cleared(episodes: &mut Vec<Episode>, at: f64) {
    match episodes.last_mut() {
        Some(last) if last.ready_at.is_none_or(|ready| at - ready < UNSTEADY) => {
            last.last_clear = at;
            last.ready_at = None;
        }
        _ => episodes.push(Episode {
            begin: at,
            last_clear: at,
            ready_at: None,
        }),
    }
}

/// The driver tells that the pool works again, or that a connection does that was made since.
fn is_ready(
    app: &Value,
    event: &str,
    connection: &Value,
    created: &[(&Value, f64)],
    since: f64,
) -> bool {
    if TELLING_READY.iter().any(|driver| app["driver"] == *driver) {
        return event == "pool_ready";
    }
    // Numbers begin anew with each client.
    let mut created = created.iter().rev();
    let made = created.find(|(one, _)| *one == connection);
    event == "ready" && made.is_some_and(|(_, at)| *at >= since)
}

/// The application had more pools at once than one client has.
pub(super) fn has_several_clients(app: &Value, servers: usize) -> bool {
    let events = app["events"].as_array().unwrap().iter();
    let steps = events.map(|event| match event["event"].as_str() {
        Some("pool_created") => 1,
        Some("pool_closed") => -1,
        _ => 0,
    });
    let open = steps.scan(0_i64, |open, step| {
        *open += step;
        Some(*open)
    });
    open.max()
        .is_some_and(|most| usize::try_from(most).is_ok_and(|most| most > servers))
}

/// Events do not say which client they are of, so that what several clients went through at once is one episode of theirs.
pub(super) fn fused(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut fused: Vec<Span> = Vec::new();
    for span in spans {
        match fused.last_mut() {
            Some(last) if span.0 - last.1 < UNSTEADY => last.1 = last.1.max(span.1),
            _ => fused.push(span),
        }
    }
    fused
}

/// How many of either are the same: one to one, in the order in which they began. Those that meet are the same.
pub(super) fn paired(told: &[Span], inferred: &[Span]) -> Vec<(Span, Span)> {
    let in_order = |spans: &[Span]| {
        let mut spans = spans.to_vec();
        spans.sort_by(|one, other| one.0.total_cmp(&other.0));
        spans
    };
    let mut left = in_order(inferred);
    let mut pairs = Vec::new();
    for one in in_order(told) {
        let meets = |other: &Span| one.0 - SLACK <= other.1 && other.0 - SLACK <= one.1;
        if let Some(place) = left.iter().position(meets) {
            pairs.push((one, left.remove(place)));
        }
    }
    pairs
}

/// Both tell of one beginning.
pub(super) fn begin_together((told, inferred): &(Span, Span)) -> bool {
    (told.0 - inferred.0).abs() <= SLACK
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Episodes of events, each a name, a connection and a moment.
    #[track_caller]
    fn check(driver: &str, events: &[(&str, u64, f64)], expected: &[Span]) {
        let events = events.iter().map(
            |(name, connection, at)| json!({ "event": name, "connection": connection, "at": at }),
        );
        let events: Vec<Value> = events.collect();
        let app = json!({ "driver": driver, "events": events, "stats": { "clients": 1 } });
        assert_eq!(told(&app, 100.0), expected, "{driver}: {events:?}");
    }

    #[test]
    fn an_episode_lasts_until_the_pool_is_ready_and_stays_so() {
        let cleared = |at| ("pool_cleared", 0, at);
        let ready = |at| ("pool_ready", 0, at);
        check("node-7", &[cleared(10.0), ready(14.0)], &[(10.0, 14.0)]);
        check(
            "node-4",
            &[cleared(10.0), cleared(13.5), cleared(17.0), ready(18.0)],
            &[(10.0, 18.0)],
        );
        check(
            "node-7",
            &[cleared(10.0), ready(10.1), cleared(11.0), ready(11.2)],
            &[(10.0, 11.2)],
        );
        check(
            "node-7",
            &[cleared(10.0), ready(10.1), cleared(11.2), ready(11.3)],
            &[(10.0, 10.1), (11.2, 11.3)],
        );
        check("node-7", &[cleared(10.0)], &[(10.0, 100.0)]);
    }

    #[test]
    fn where_no_pool_is_told_to_be_ready_a_new_connection_tells() {
        let events = [
            ("created", 4, 9.9),
            ("pool_cleared", 0, 10.0),
            ("ready", 4, 10.1),
            ("created", 5, 12.0),
            ("ready", 5, 12.1),
        ];
        check("go-1.8", &events, &[(10.0, 12.1)]);
    }

    #[test]
    fn what_a_driver_tells_as_it_closes_its_client_is_no_episode() {
        check(
            "node-6",
            &[("pool_cleared", 0, 10.0), ("pool_closed", 0, 10.1)],
            &[],
        );
    }

    #[test]
    fn episodes_are_paired_one_to_one() {
        let pairs = |told: &[Span], inferred: &[Span]| paired(told, inferred).len();
        // One that never ends is no more than one.
        assert_eq!(pairs(&[(10.0, 11.0), (20.0, 21.0)], &[(10.0, 100.0)]), 1);
        assert_eq!(pairs(&[(10.0, 100.0)], &[(10.0, 11.0), (20.0, 21.0)]), 1);
        assert_eq!(pairs(&[(10.0, 11.0)], &[(12.5, 13.0)]), 0);
        assert_eq!(
            pairs(&[(20.0, 21.0), (10.0, 11.0)], &[(10.1, 11.0), (20.1, 21.0)]),
            2
        );
    }

    #[test]
    fn what_several_clients_went_through_at_once_is_one_episode_of_events() {
        let events = |names: &[&str]| -> Value {
            let events = names.iter().map(|name| json!({ "event": name }));
            json!({ "events": events.collect::<Vec<_>>() })
        };
        let in_turn = ["pool_created", "pool_closed", "pool_created"];
        assert!(!has_several_clients(&events(&in_turn), 1));
        let at_once = ["pool_created", "pool_created", "pool_closed"];
        assert!(has_several_clients(&events(&at_once), 1));
        assert!(!has_several_clients(&events(&at_once), 3), "of one set");
        let spans = vec![(10.0, 17.0), (30.0, 31.0), (10.1, 17.2), (17.9, 18.0)];
        assert_eq!(fused(spans), [(10.0, 18.0), (30.0, 31.0)]);
    }
}
