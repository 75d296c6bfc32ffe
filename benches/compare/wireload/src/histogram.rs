//! Latencies in nanoseconds, in buckets that grow with them: every quantile is right to one percent.

/// Buckets for each doubling.
const SUB: usize = 128;

pub struct Histogram {
    counts: Vec<u64>,
    n: u64,
    sum: u128,
    max: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Histogram {
            counts: vec![0; 58 * SUB],
            n: 0,
            sum: 0,
            max: 0,
        }
    }
    fn index(v: u64) -> usize {
        if v < SUB as u64 {
            return v as usize;
        }
        let shift = 63 - v.leading_zeros() as usize - 7;
        (shift + 1) * SUB + ((v >> shift) as usize - SUB)
    }
    fn upper(i: usize) -> u64 {
        if i < SUB {
            return i as u64;
        }
        let shift = i / SUB - 1;
        (((i % SUB + SUB + 1) as u64) << shift) - 1
    }
    pub fn add(&mut self, ns: u64) {
        self.counts[Self::index(ns)] += 1;
        self.n += 1;
        self.sum += ns as u128;
        self.max = self.max.max(ns);
    }
    pub fn count(&self) -> u64 {
        self.n
    }
    pub fn merge(&mut self, o: &Histogram) {
        for (a, b) in self.counts.iter_mut().zip(&o.counts) {
            *a += b;
        }
        self.n += o.n;
        self.sum += o.sum;
        self.max = self.max.max(o.max);
    }
    pub fn quantile_us(&self, q: f64) -> f64 {
        let want = ((self.n as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, c) in self.counts.iter().enumerate() {
            seen += c;
            if seen >= want {
                return Self::upper(i).min(self.max) as f64 / 1e3;
            }
        }
        self.max as f64 / 1e3
    }
    pub fn json(&self) -> String {
        format!(
            "{{\"n\":{},\"mean\":{:.1},\"p50\":{:.1},\"p90\":{:.1},\"p99\":{:.1},\"p999\":{:.1},\"max\":{:.1}}}",
            self.n,
            self.sum as f64 / self.n.max(1) as f64 / 1e3,
            self.quantile_us(0.5),
            self.quantile_us(0.9),
            self.quantile_us(0.99),
            self.quantile_us(0.999),
            self.max as f64 / 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_one_percent() {
        let mut h = Histogram::new();
        for v in 1..=100_000u64 {
            h.add(v * 1000);
        }
        for (q, want) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let got = h.quantile_us(q);
            assert!((got / want - 1.0).abs() < 0.01, "{q}: {got}");
        }
        h.add(u64::MAX);
    }
}
