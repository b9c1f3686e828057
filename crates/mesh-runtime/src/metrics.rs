//! `GET /metrics` in Prometheus's text format: families, declared once, and the page that tells them.
//!
//! Base units, a prefix a program, and counters end in `_total`. What is not known has no sample, rather than a 0. The
//! tables in `docs/METRICS.md` are made of the same declarations.

use std::fmt::{Display, Write};

/// A metric with all its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `gauge`, `counter` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub help: &'static str,
}

impl Family {
    /// A value that rises and falls.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self {
            name,
            kind: "gauge",
            labels,
            help,
        }
    }

    /// A value that only rises.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self {
            name,
            kind: "counter",
            labels,
            help,
        }
    }

    /// Values by their size.
    pub const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self {
            name,
            kind: "histogram",
            labels,
            help,
        }
    }
}

/// The table of `families` for `docs/METRICS.md`.
pub fn reference(families: &[Family]) -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for Family {
        name,
        kind,
        labels,
        help,
    } in families
    {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        table += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
    }
    table
}

/// The values of a family's labels, in its order.
pub type Labels<'a> = &'a [&'a dyn Display];

/// What is told.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, family: &Family) {
        let Family { name, kind, help, .. } = family;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A sample, if its value is known.
    pub fn known(&mut self, family: &Family, labels: Labels<'_>, value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample(family, labels, value);
        }
    }

    /// A sample.
    pub fn sample(&mut self, family: &Family, labels: Labels<'_>, value: impl Display) {
        debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
        self.write(format_args!("{}", family.name));
        for (index, (key, label)) in family.labels.iter().zip(labels).enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{key}=\"{}\"", quoted(&label.to_string())));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{after} {value}\n"));
    }

    /// A histogram without labels: counts of values up to each bound, in order, of those above, and their sum.
    pub fn buckets(&mut self, family: &Family, counts: &[u64], bounds: &[f64], sum: f64) {
        let name = family.name;
        let mut count = 0;
        for (index, in_bucket) in counts.iter().enumerate() {
            count += in_bucket;
            let bound = bounds.get(index).map_or("+Inf".to_owned(), f64::to_string);
            self.write(format_args!("{name}_bucket{{le=\"{bound}\"}} {count}\n"));
        }
        self.write(format_args!("{name}_sum {sum}\n{name}_count {count}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("writing to a string cannot fail");
    }
}

/// Names of files may contain anything.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_labels_and_unknown_values_have_none() {
        let things = Family::counter("mesh_x_total", &["from", "to"], "Things.");
        let whole = Family::gauge("mesh_y", &[], "A whole.");
        let times = Family::histogram("mesh_z_seconds", &[], "Times.");
        let mut page = Page::default();
        page.family(&things);
        page.sample(&things, &[&"a", &"b\"\\\n"], 7);
        page.known(&things, &[&"a", &"c"], None::<u64>);
        page.sample(&whole, &[], 0.5);
        page.buckets(&times, &[1, 2, 3], &[0.005, 1.0], 4.5);
        let expected = "# HELP mesh_x_total Things.\n# TYPE mesh_x_total counter\n\
            mesh_x_total{from=\"a\",to=\"b\\\"\\\\\\n\"} 7\nmesh_y 0.5\n\
            mesh_z_seconds_bucket{le=\"0.005\"} 1\nmesh_z_seconds_bucket{le=\"1\"} 3\n\
            mesh_z_seconds_bucket{le=\"+Inf\"} 6\nmesh_z_seconds_sum 4.5\nmesh_z_seconds_count 6\n";
        assert_eq!(page.into_text(), expected);
    }
}
