//! The architecture as a test: who may name what, how long a file may be, and that every file says
//! what it owns.
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this wants to be cut at its nouns.
const LINES_MAX: usize = 700;

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut queue = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).expect("read a source folder") {
            let path = entry.expect("read an entry").path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("read a source file");
                let root = Path::new(env!("CARGO_MANIFEST_DIR"));
                found.push((path.strip_prefix(root).expect("below the root").to_path_buf(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources under {dir}");
    found
}

/// Code lines of a file: without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|l| !l.starts_with("//"))
}

/// Files under `dir` that name `word` in code and are not in `allowed`.
fn named_outside(dir: &str, word: &str, allowed: &[&str]) -> Vec<String> {
    sources(dir)
        .into_iter()
        .filter(|(path, text)| {
            let path = path.to_string_lossy();
            !allowed.iter().any(|a| path.starts_with(a)) && code(text).any(|l| l.contains(word))
        })
        .map(|(path, _)| format!("{} names {word}", path.display()))
        .collect()
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let silent: Vec<_> = ["src", "storage-engine/src", "e2e/src"]
        .iter()
        .flat_map(|d| sources(d))
        .filter(|(path, text)| !path.ends_with("tests.rs") && !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "no //! at the head of {silent:?}");
}

#[test]
fn no_file_outgrows_its_room() {
    let long: Vec<_> = ["src", "storage-engine/src", "e2e/src"]
        .iter()
        .flat_map(|d| sources(d))
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "longer than {LINES_MAX} lines: {long:?}");
}

#[test]
fn sql_lives_in_the_journal() {
    assert_eq!(named_outside("src", "sqlx::", &["src/journal"]), Vec::<String>::new());
}

#[test]
fn the_aws_sdk_lives_in_the_demo_and_at_foreign_targets() {
    assert_eq!(named_outside("src", "aws_sdk_s3", &["src/cli/demo", "src/store/s3"]), Vec::<String>::new());
}

#[test]
fn kubernetes_stays_at_the_rule_edge() {
    let allowed = ["src/rule/resource", "src/rule/watch_kube", "src/rule/report", "src/replicator/lease"];
    // `watch_kube::` is a module of ours, `kube::` the crate.
    let names_kube = |line: &str| {
        let is_crate = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        line.match_indices("kube::").any(|(at, _)| is_crate(at)) || line.contains("k8s_openapi::")
    };
    let found: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, _)| !allowed.iter().any(|a| path.starts_with(a) || path.to_string_lossy().starts_with(a)))
        .filter(|(_, text)| code(text).any(names_kube))
        .map(|(path, _)| path)
        .collect();
    assert!(found.is_empty(), "Kubernetes is named outside of {allowed:?}: {found:?}");
}

#[test]
fn only_telemetry_knows_open_telemetry_and_the_link_traces_nothing() {
    assert_eq!(named_outside("src", "opentelemetry", &["src/telemetry/trace"]), Vec::<String>::new());
    assert_eq!(named_outside("storage-engine/src", "opentelemetry", &[]), Vec::<String>::new());
    for word in ["telemetry::", "tracing::"] {
        assert_eq!(named_outside("src/link", word, &[]), Vec::<String>::new());
    }
}

#[test]
fn what_people_read_is_worded_below_the_verbs() {
    for word in ["cli::output", "cli::status"] {
        assert_eq!(named_outside("src", word, &["src/cli", "src/main.rs"]), Vec::<String>::new());
    }
}

#[test]
fn the_store_knows_no_site_peer_or_rule() {
    for word in ["struct Site", "struct Peer", "struct Rule", "isthmus::"] {
        assert_eq!(named_outside("storage-engine/src", word, &[]), Vec::<String>::new());
    }
}

#[test]
fn pure_modules_have_no_runtime_clock_or_dice() {
    let pure = [
        "src/dashboard",
        "src/drill",
        "src/link",
        "src/rule/validate",
        "src/rule/plan",
        "src/rule/allow",
        "src/peer/frame",
        "storage-engine/src/version",
        "storage-engine/src/quorum",
        "storage-engine/src/erasure",
        "storage-engine/src/record",
        "storage-engine/src/wire",
    ];
    let banned = ["tokio::", "sqlx::", "kube::", "std::time::Instant", "SystemTime", "HashMap", "HashSet", "entropy::"];
    let mut broken = Vec::new();
    for (path, text) in ["src", "storage-engine/src"].iter().flat_map(|d| sources(d)) {
        let name = path.to_string_lossy().into_owned();
        if !pure.iter().any(|p| name.starts_with(p)) || name.contains("tests") {
            continue;
        }
        let body = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in banned {
            if code(body).any(|l| l.contains(word)) {
                broken.push(format!("{name} names {word}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn drive_files_are_opened_by_the_drive_alone() {
    let allowed = ["storage-engine/src/drive", "storage-engine/src/node", "storage-engine/src/config"];
    assert_eq!(named_outside("storage-engine/src", "std::fs", &allowed), Vec::<String>::new());
}
