//! `isthmus diff`: two sites' version sets of one bucket, compared version by version.
use super::output::{self, Format};
use super::{exit, socket};
use crate::replicator::admin::VersionRow;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// At most so many differences are named; all are counted.
const SAMPLES: usize = 20;

/// What a comparison found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub verdict: &'static str,
    pub versions_a: usize,
    pub versions_b: usize,
    pub only_a: usize,
    pub only_b: usize,
    pub different: usize,
    pub samples: Vec<String>,
}

/// Asks both and prints. Exit code: 0 equal, 1 different, 2 could not find out.
pub async fn run(a: &Path, b: &Path, bucket: &str, format: Format) -> u8 {
    let found = match tokio::try_join!(versions(a, bucket), versions(b, bucket)) {
        Ok((a, b)) => compare(&a, &b),
        Err(e) => {
            eprintln!("UNKNOWN  {e:#}");
            return exit::UNKNOWN;
        }
    };
    match format {
        format @ (Format::Json | Format::Yaml) => output::data(format, &found),
        Format::Table | Format::Wide => {
            say!(
                "{}  {} versions in A, {} in B: {} only in A, {} only in B, {} different",
                found.verdict.to_uppercase(),
                found.versions_a,
                found.versions_b,
                found.only_a,
                found.only_b,
                found.different
            );
            found.samples.iter().for_each(|s| say!("{s}"));
        }
    }
    if found.verdict == "equal" { exit::OK } else { exit::DEGRADED }
}

type Versions = BTreeMap<(String, String), String>;

async fn versions(site: &Path, bucket: &str) -> anyhow::Result<Versions> {
    let mut all = Versions::new();
    let mut after: Option<(String, String)> = None;
    loop {
        let mut query = vec![("bucket", bucket)];
        if let Some((key, id)) = &after {
            query.extend([("after_key", key.as_str()), ("after_id", id.as_str())]);
        }
        let page: Vec<VersionRow> = socket::get(site, &socket::with_query("/versions", &query)).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some((last.key.clone(), last.id.clone()));
        all.extend(page.into_iter().map(|row| ((row.key, row.id), row.state)));
    }
}

fn compare(a: &Versions, b: &Versions) -> Difference {
    let mut found = Difference { versions_a: a.len(), versions_b: b.len(), ..Difference::default() };
    let mut sample = |line: String| {
        if found.samples.len() < SAMPLES {
            found.samples.push(line);
        }
    };
    for ((key, id), state) in a {
        match b.get(&(key.clone(), id.clone())) {
            None => {
                found.only_a += 1;
                sample(format!("only in A  {key}  {id}"));
            }
            Some(other) if other != state => {
                found.different += 1;
                sample(format!("different  {key}  {id}"));
            }
            Some(_) => {}
        }
    }
    for (key, id) in b.keys().filter(|k| !a.contains_key(*k)) {
        found.only_b += 1;
        sample(format!("only in B  {key}  {id}"));
    }
    found.verdict = if found.only_a + found.only_b + found.different == 0 { "equal" } else { "different" };
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[(&str, &str, &str)]) -> Versions {
        rows.iter().map(|(k, i, s)| ((k.to_string(), i.to_string()), s.to_string())).collect()
    }

    #[test]
    fn every_kind_of_difference_is_counted() {
        let a = set(&[("k", "1", "x"), ("k", "2", "y"), ("l", "1", "z")]);
        let b = set(&[("k", "1", "x"), ("k", "2", "other"), ("m", "1", "z")]);
        let found = compare(&a, &b);
        assert_eq!((found.only_a, found.only_b, found.different), (1, 1, 1));
        assert_eq!(found.verdict, "different");
        assert_eq!(compare(&a, &a).verdict, "equal");
    }
}
