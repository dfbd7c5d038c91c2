//! Reports of drills on disk: `<id>.json` and `<id>.md` in a folder beside the journal, the newest few of them. A folder
//! that cannot be written costs the report, never the drill; it is said.
use crate::drill::is_id;
use crate::drill::report::Report;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Reports kept: a weekly drill of most of a year.
const KEPT_MAX: usize = 50;
/// A report is a few kilobytes; a larger file is none of ours.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Kept(PathBuf);

impl Kept {
    pub(super) fn new(folder: PathBuf) -> Self {
        Kept(folder)
    }

    /// Keeps a report, and lets the oldest go.
    pub(super) async fn keep(&self, report: &Report) -> io::Result<()> {
        let (folder, report) = (self.0.clone(), report.clone());
        off_the_loop(move || keep(&folder, &report)).await
    }

    /// The reports there are, newest first; what cannot be read is passed over.
    pub(super) async fn list(&self) -> io::Result<Vec<Report>> {
        let folder = self.0.clone();
        off_the_loop(move || list(&folder)).await
    }
}

async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn keep(folder: &Path, report: &Report) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let json = serde_json::to_vec_pretty(report).map_err(io::Error::other)?;
    // A file is whole or not there.
    for (ending, bytes) in [("md", report.markdown().into_bytes()), ("json", json)] {
        let file = folder.join(format!("{}.{ending}", report.plan.id));
        let half = file.with_extension("new");
        fs::write(&half, bytes)?;
        fs::rename(half, file)?;
    }
    for old in list(folder)?.into_iter().skip(KEPT_MAX) {
        for ending in ["json", "md"] {
            fs::remove_file(folder.join(format!("{}.{ending}", old.plan.id)))?;
        }
    }
    Ok(())
}

fn list(folder: &Path) -> io::Result<Vec<Report>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_report = name.to_str().and_then(|n| n.strip_suffix(".json")).is_some_and(is_id);
        if !is_report || entry.metadata()?.len() > REPORT_BYTES_MAX {
            continue;
        }
        if let Ok(report) = serde_json::from_slice::<Report>(&fs::read(entry.path())?) {
            all.push(report);
        }
    }
    all.sort_by(|a, b| (b.began_at, &b.plan.id).cmp(&(a.began_at, &a.plan.id)));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::{Load, Objectives, Plan, Type};

    fn report(number: u64) -> Report {
        let plan = Plan {
            id: format!("{number:012}"),
            peer: "ams".into(),
            kind: Type::Partition,
            direction: Default::default(),
            duration_millis: 1000,
            deadline_millis: 2000,
            drain_millis: None,
            fails_back: true,
            load: Load::default(),
            objectives: Objectives::default(),
            rules: Vec::new(),
        };
        Report::refused(plan, "fra", number, "the peer is down".into())
    }

    #[tokio::test]
    async fn the_newest_reports_are_kept_and_foreign_files_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(dir.path().join("drills"));
        assert_eq!(kept.list().await.unwrap(), []);
        for number in 0..KEPT_MAX as u64 + 2 {
            kept.keep(&report(number)).await.unwrap();
        }
        fs::write(dir.path().join("drills/notes.json"), "mine").unwrap();
        fs::write(dir.path().join("drills/000000000099.json"), "half a rep").unwrap();
        let listed = kept.list().await.unwrap();
        assert_eq!((listed.len(), listed[0].began_at), (KEPT_MAX, KEPT_MAX as u64 + 1));
        assert!(!dir.path().join("drills/000000000001.md").exists() && dir.path().join("drills/notes.json").exists());
        assert!(fs::read_to_string(dir.path().join("drills/000000000002.md")).unwrap().contains("REFUSED"));
    }
}
