//! From numbers to the client library's families, by way of the catalogue.

use std::collections::{BTreeMap, HashMap};

use prometheus::core::Desc;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::catalogue::{Family, Kind};
use crate::clients::HistogramRow;

/// Collects samples by family; families without samples do not appear.
#[derive(Debug, Default)]
pub(super) struct Families {
    by_name: BTreeMap<&'static str, (&'static Family, Vec<Metric>)>,
}

impl Families {
    /// Adds one sample of a counter or gauge; `values` are those of the family's labels, in its order.
    pub(super) fn add(&mut self, family: &'static Family, values: &[&str], value: f64) {
        let mut metric = Metric::from_label(label_pairs(family, values));
        match family.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Kind::Histogram => return,
        }
        self.push(family, metric);
    }

    /// Adds one histogram.
    pub(super) fn add_histogram(
        &mut self,
        family: &'static Family,
        values: &[&str],
        row: &HistogramRow,
    ) {
        let buckets = row.bounds.iter().zip(&row.counts);
        let buckets = buckets.map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(row.count);
        histogram.set_sample_sum(row.sum);
        let mut metric = Metric::from_label(label_pairs(family, values));
        metric.set_histogram(histogram);
        self.push(family, metric);
    }

    fn push(&mut self, family: &'static Family, metric: Metric) {
        self.by_name
            .entry(family.name)
            .or_insert_with(|| (family, Vec::new()))
            .1
            .push(metric);
    }

    /// The families in the client library's form.
    pub(super) fn finish(self) -> Vec<MetricFamily> {
        let families = self.by_name.into_values();
        families
            .map(|(family, metrics)| {
                let mut shown = MetricFamily::default();
                shown.set_name(family.name.to_owned());
                shown.set_help(family.help.to_owned());
                shown.set_field_type(match family.kind {
                    Kind::Counter => MetricType::COUNTER,
                    Kind::Gauge => MetricType::GAUGE,
                    Kind::Histogram => MetricType::HISTOGRAM,
                });
                shown.set_metric(metrics);
                shown
            })
            .collect()
    }
}

fn label_pairs(family: &Family, values: &[&str]) -> Vec<LabelPair> {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let labels = family.labels.iter().zip(values);
    labels
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

/// What a registry needs to know of families beforehand.
///
/// # Errors
///
/// When a name or a label is not allowed by the exposition format.
pub(super) fn descs<'a>(
    families: impl Iterator<Item = &'a &'static Family>,
) -> prometheus::Result<Vec<Desc>> {
    families
        .map(|family| {
            let labels = family.labels.iter().map(|label| (*label).to_owned());
            Desc::new(
                family.name.to_owned(),
                family.help.to_owned(),
                labels.collect(),
                HashMap::new(),
            )
        })
        .collect()
}

/// Counts as the exposition format has them.
#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition has only floating point; above 2^53 a count is rounded"
)]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}
