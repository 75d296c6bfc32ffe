//! What the proxy itself costs, for people: the numbers of the exposition brought together.

use std::time::Duration;

use super::Health;
use super::process;
use crate::clients::HistogramRow;

/// What the proxy has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Processor time of the process.
    pub cpu: Option<Duration>,
    /// Its resident memory.
    pub resident_bytes: Option<u64>,
    /// Processor time spent looking at what was forwarded.
    pub observing: Duration,
    /// Median of the delay added to a chunk, from readable to written (sampled).
    pub forward_delay_p50: Option<Duration>,
    /// 99th percentile of it.
    pub forward_delay_p99: Option<Duration>,
}

impl Cost {
    /// Read now.
    pub fn read(health: &Health) -> Self {
        let (cpu, resident_bytes) = process::usage().unzip();
        let delays: Vec<HistogramRow> = health.forward_delays().map(|(_, row)| row).collect();
        Self {
            cpu,
            resident_bytes,
            observing: health.observe_time(),
            forward_delay_p50: quantile(&delays, 0.5),
            forward_delay_p99: quantile(&delays, 0.99),
        }
    }
}

/// The upper bound of the bucket in which the share `q` of all observations is reached, as far as bounds go.
fn quantile(rows: &[HistogramRow], q: f64) -> Option<Duration> {
    let total: u64 = rows.iter().map(|row| row.count).sum();
    if total == 0 {
        return None;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a quantile of more than 2^52 chunks may be off by one"
    )]
    let wanted = total as f64 * q;
    let bounds = rows.first()?.bounds;
    let reached = (0..bounds.len()).find(|position| {
        let count: u64 = rows
            .iter()
            .filter_map(|row| row.counts.get(*position))
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        let count = count as f64;
        count >= wanted
    });
    let bound = reached
        .and_then(|position| bounds.get(position))
        .or(bounds.last())?;
    Some(Duration::from_secs_f64(*bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Direction;

    #[test]
    fn delays_of_both_directions_make_one_distribution() {
        let health = Health::new();
        assert_eq!(Cost::read(&health).forward_delay_p50, None);
        for _ in 0..98 {
            health.forwarded(Direction::ToServer, Duration::from_micros(20));
        }
        health.forwarded(Direction::ToClient, Duration::from_micros(400));
        health.forwarded(Direction::ToClient, Duration::from_secs(1));
        let cost = Cost::read(&health);
        assert_eq!(cost.forward_delay_p50, Some(Duration::from_micros(25)));
        assert_eq!(cost.forward_delay_p99, Some(Duration::from_micros(500)));
        assert!(cost.resident_bytes.unwrap() > 100_000);
        assert!(cost.cpu.is_some());
    }
}
