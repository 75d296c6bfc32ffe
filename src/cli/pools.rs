//! Mongo clients for people: what pool each has, and when it was cleared.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::format::{UNKNOWN, count, duration, number, or_unknown, plural, safe};
use super::incidents::{between, clock};
use super::show::client as name;
use super::table::Align::{Number, Spare, Text};
use super::table::{Cell, render, wrap};
use crate::admin::api;

/// Clears that are told one by one, the newest first.
const CLEARS_TOLD_MAX: usize = 10;
/// Mongo clients of one instance that have a row of their own; an application that leaks them has hundreds.
const ROWS_MAX: usize = 8;

const LEGEND: &str = "One row a MongoClient object and upstream. SURE: that these connections are one client's. SIZE, PEAK: pooled \
     connections, now and at most. MAX: its maxPoolSize as inferred (-: no evidence yet). MADE: connections so far. \
     LOST: closed for an error or because the pool was cleared. RECYCLED/MIN: replaced a minute. OPS/CONN: operations \
     a connection carried. CLEARS: of the pool. +31: so many more of that instance, their figures summed up.";

/// The mongo clients of the rows, those with the largest pools first; those that were closed only counted.
pub(super) fn pools(answer: &api::Clients) -> String {
    let all = || {
        let rows = answer.clients.iter();
        rows.flat_map(|row| row.mongo_clients.iter().map(move |pool| (row, pool)))
    };
    let mut open: Vec<_> = all().filter(|(_, pool)| pool.closed_at.is_none()).collect();
    open.sort_by_key(|(row, pool)| {
        (
            &row.upstream,
            Reverse(pool.pool_size.open),
            &row.client,
            pool.id,
        )
    });
    let closed = all().count() - open.len();
    let closed = plural(u64::try_from(closed).unwrap_or(u64::MAX), "mongo client");
    if open.is_empty() {
        return format!("no mongo client; {closed} lately closed\n");
    }
    let columns = [
        ("CLIENT", Text),
        ("ID", Number),
        ("SURE", Spare),
        ("AGE", Number),
        ("SIZE", Number),
        ("PEAK", Number),
        ("MAX", Number),
        ("ACTIVE", Number),
        ("IDLE", Number),
        ("MON", Number),
        ("MADE", Spare),
        ("LOST", Number),
        ("RECYCLED\n/MIN", Spare),
        ("OPS/\nCONN", Spare),
        ("CLEARS", Number),
    ];
    let mut text = String::new();
    for upstream in open.chunk_by(|(a, _), (b, _)| a.upstream == b.upstream) {
        let mut of_instance = BTreeMap::<u64, usize>::new();
        let mut rows: Vec<[Cell; 15]> = Vec::new();
        let mut rest = BTreeMap::<u64, Vec<&(&api::Client, &api::MongoClient)>>::new();
        for one in upstream {
            let (row, pool) = one;
            let shown = of_instance.entry(row.id).or_default();
            *shown += 1;
            if *shown <= ROWS_MAX {
                rows.push(cells(row, pool, &answer.at));
            } else {
                rest.entry(row.id).or_default().push(one);
            }
        }
        rows.extend(rest.values().map(|more| sums(more)));
        if let [(row, _), ..] = upstream {
            text += &wrap("", &format!("{}:", safe(&row.upstream)));
        }
        text += &render(columns, &rows, None);
        text.push('\n');
    }
    text += &clears(all());
    text += &closes(all());
    text + &format!("{closed} lately closed\n") + &wrap("", LEGEND)
}

fn cells(row: &api::Client, pool: &api::MongoClient, at: &str) -> [Cell; 15] {
    let size = &pool.pool_size;
    let lost = pool.closed.stale.saturating_add(pool.closed.error);
    [
        name(&row.app, &row.address),
        pool.id.to_string().into(),
        format!("{:.0} %", pool.confidence * 100.0).into(),
        or_unknown(between(&pool.created_at, at), duration).into(),
        count(size.open).into(),
        count(size.peak).into(),
        size.max_inferred
            .as_ref()
            .map_or_else(|| UNKNOWN.to_owned(), |max| format!("{:.0}", max.value))
            .into(),
        count(size.active).into(),
        count(size.idle).into(),
        count(pool.monitors).into(),
        count(pool.created).into(),
        count(lost).into(),
        number(pool.recycled_per_minute).into(),
        or_unknown(pool.operations_per_connection, number).into(),
        pool.pool_clears.len().to_string().into(),
    ]
}

/// Many more of one instance as one row.
fn sums(all: &[&(&api::Client, &api::MongoClient)]) -> [Cell; 15] {
    let sum = |value: fn(&api::MongoClient) -> u64| {
        let values = all.iter().map(|(_, pool)| value(pool));
        Cell::from(count(values.fold(0, u64::saturating_add)))
    };
    let more = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let client = all
        .first()
        .map_or_else(String::new, |(row, _)| safe(&row.client));
    let unknown = || Cell::from(UNKNOWN);
    [
        Cell::with_tail(&format!("+{} ", count(more)), &client),
        unknown(),
        unknown(),
        unknown(),
        sum(|pool| pool.pool_size.open),
        unknown(),
        unknown(),
        sum(|pool| pool.pool_size.active),
        sum(|pool| pool.pool_size.idle),
        sum(|pool| pool.monitors),
        sum(|pool| pool.created),
        sum(|pool| pool.closed.stale.saturating_add(pool.closed.error)),
        unknown(),
        unknown(),
        sum(|pool| u64::try_from(pool.pool_clears.len()).unwrap_or(u64::MAX)),
    ]
}

/// Why pooled connections were closed, over all mongo clients.
fn closes<'a>(all: impl Iterator<Item = (&'a api::Client, &'a api::MongoClient)>) -> String {
    let mut sums = BTreeMap::<(&str, &str), (u64, f64)>::new();
    for one in all.flat_map(|(_, pool)| &pool.closed_because) {
        let key = (one.reason.as_str(), one.evidence.as_str());
        let (sum, confidence) = sums.entry(key).or_insert((0, one.confidence));
        *sum = sum.saturating_add(one.count);
        *confidence = confidence.min(one.confidence);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(key, (sum, _))| (Reverse(*sum), *key));
    let lines = sums.iter().map(|((reason, evidence), (sum, confidence))| {
        let text = format!(
            "{} closed, {} ({:.0} % sure): {}",
            count(*sum),
            safe(reason).replace('_', " "),
            confidence * 100.0,
            safe(evidence)
        );
        wrap("", &text)
    });
    lines.collect()
}

/// When which pool was cleared, why, what it took, and how long it was out of order.
fn clears<'a>(all: impl Iterator<Item = (&'a api::Client, &'a api::MongoClient)>) -> String {
    let mut clears: Vec<_> = all
        .flat_map(|(row, pool)| pool.pool_clears.iter().map(move |clear| (row, pool, clear)))
        .collect();
    clears.sort_by_key(|(row, pool, clear)| (Reverse(&clear.at), &row.client, pool.id));
    let lines = clears
        .iter()
        .take(CLEARS_TOLD_MAX)
        .map(|(row, pool, clear)| {
            let ready = match &clear.ready_at {
                None => "not ready since".to_owned(),
                Some(ready) => between(&clear.at, ready).map_or_else(
                    || "ready again".to_owned(),
                    |seconds| format!("ready after {}", duration(seconds)),
                ),
            };
            let text = format!(
                "{} pool of {}#{} cleared ({}: {}): {} went, {ready}",
                clock(&clear.at),
                safe(&row.client),
                pool.id,
                safe(&clear.trigger),
                safe(&clear.evidence),
                plural(clear.closed, "connection"),
            );
            wrap("", &text)
        });
    lines.collect()
}
