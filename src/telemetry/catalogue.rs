//! Every metric there is, as data: the page `docs/metrics.md` is written from it, dashboards may ask for nothing else, and
//! what real processes show is held against it. Measures nothing.
mod links;
mod site;
mod store;

use std::fmt::Write;

/// Of which type a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    /// As OpenMetrics has it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        }
    }
}

/// Metrics that are told of together.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Names without `isthmus_`, a counter's without `_total`.
    pub names: &'static [&'static str],
    pub kind: Kind,
    /// Labels beside those of its section and `site`.
    pub labels: &'static [&'static str],
    /// What is counted or measured, for a person, as Markdown.
    pub meaning: &'static str,
}

/// Metrics with labels in common.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub title: &'static str,
    pub labels: &'static [&'static str],
    pub metrics: &'static [Metric],
}

/// All of them.
pub const SECTIONS: [Section; 4] = [links::LINKS, links::WAYS, site::SITE, store::STORE];

const fn gauge(names: &'static [&'static str], labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { names, kind: Kind::Gauge, labels, meaning }
}

const fn counter(names: &'static [&'static str], labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { names, kind: Kind::Counter, labels, meaning }
}

const fn histogram(names: &'static [&'static str], labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { names, kind: Kind::Histogram, labels, meaning }
}

/// One metric by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Without `isthmus_`, a counter's without `_total`.
    pub name: &'static str,
    pub kind: Kind,
    /// All that it may have but `site`.
    pub labels: Vec<&'static str>,
}

/// Every metric by its name.
pub fn all() -> impl Iterator<Item = Described> {
    SECTIONS.into_iter().flat_map(|section| {
        section.metrics.iter().flat_map(move |metric| {
            let labels = [section.labels, metric.labels].concat();
            metric.names.iter().map(move |name| Described { name, kind: metric.kind, labels: labels.clone() })
        })
    })
}

/// The page of metrics.
pub fn page() -> String {
    let mut page = include_str!("catalogue/head.md").to_owned();
    for Section { title, labels, metrics } in SECTIONS {
        let of = if labels.is_empty() { String::new() } else { format!(": labels {}", labels.join(", ")) };
        _ = write!(page, "\n## {title}{of}\n| name | type | more labels | |\n|---|---|---|---|\n");
        for Metric { names, kind, labels, meaning } in metrics {
            let end = if *kind == Kind::Counter { "_total" } else { "" };
            let names: Vec<_> = names.iter().map(|name| format!("`{name}{end}`")).collect();
            let (names, kind, labels) = (names.join(", "), kind.word(), labels.join(", "));
            _ = writeln!(page, "| {names} | {kind} | {labels} | {meaning} |");
        }
    }
    page + "\n" + include_str!("catalogue/tail.md")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_page_is_the_one_in_the_tree() {
        let there = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
        assert!(there == page(), "docs/metrics.md is not what `isthmus metrics` writes");
    }

    #[test]
    fn no_name_stands_twice_and_no_label_names_a_key() {
        let names: Vec<_> = all().map(|metric| metric.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(all().all(|metric| !metric.labels.contains(&"key")));
    }
}
