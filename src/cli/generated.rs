//! Files that this program writes and the tree keeps: written into a folder, or held against what is there. Called by the
//! verbs that own the texts.
use super::exit;
use std::path::Path;

/// Files of one kind.
pub(super) struct Files<'a> {
    /// The verb that makes them.
    pub verb: &'static str,
    /// What they are, as people say it.
    pub what: &'static str,
    /// Name and text of each.
    pub all: &'a [(String, String)],
}

impl Files<'_> {
    /// Writes them into `dir`, which is made where it is absent; returns the exit code.
    pub fn write(&self, dir: &Path) -> u8 {
        let write = |file: &Path, text: &str| std::fs::write(file, text).map_err(|e| (file.to_path_buf(), e));
        let made = std::fs::create_dir_all(dir).map_err(|e| (dir.to_path_buf(), e));
        match made.and_then(|()| self.all.iter().try_for_each(|(file, text)| write(&dir.join(file), text))) {
            Ok(()) => {
                say!("WRITTEN  {} {} in {}", self.all.len(), self.what, dir.display());
                exit::OK
            }
            Err((path, e)) => {
                eprintln!("isthmus {}: write {}: {e}", self.verb, path.display());
                exit::INTERNAL
            }
        }
    }

    /// Names those in `dir` that are not as this version would write them; returns the exit code.
    pub fn check(&self, dir: &Path) -> u8 {
        let differs = |(file, text): &&(String, String)| {
            std::fs::read_to_string(dir.join(file)).ok().as_deref() != Some(text.as_str())
        };
        let differing: Vec<&str> = self.all.iter().filter(differs).map(|(file, _)| file.as_str()).collect();
        if differing.is_empty() {
            say!("EQUAL  the {} in {} are those of this version", self.what, dir.display());
            return exit::OK;
        }
        let (verb, dir) = (self.verb, dir.display());
        say!("DIFFERENT  {}; write them anew: isthmus {verb} --dir {dir}", differing.join(", "));
        exit::DEGRADED
    }
}
