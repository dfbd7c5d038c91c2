//! Trait [`Disk`]: the named files under one drive, and [`Directory`], the real ones.
//!
//! Everything a drive must not lose goes through it (superblock, log, shard files), so that the twin
//! in `memory.rs` can lose, tear and fail exactly there. It knows no format. Called by `format`,
//! `log` and `local`, never on the async threads except for short reads.
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The files of one drive. Names are relative, with `/`; a missing folder is made on the first write.
pub trait Disk: Send + Sync + 'static {
    /// Names in a folder, sorted, without the folder; a missing folder is empty.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Length in bytes; `None`: there is no such file.
    fn len(&self, name: &str) -> io::Result<Option<u64>>;
    /// At most `len` bytes from `offset`, fewer only at the end of the file.
    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Writes all bytes at `offset`, making the file.
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file at least `len` long, zeros at the end, with its space taken from the free.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is no room; nothing was written.
    fn reserve(&self, name: &str, len: u64) -> io::Result<()>;
    /// Cuts the file to `len`.
    fn truncate(&self, name: &str, len: u64) -> io::Result<()>;
    /// On return what was written to the file survives a power cut, provided its name does.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// On return the names in the folder, and its own, survive a power cut. `""` is the drive itself.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
    /// Removes a file; a missing one is fine.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Bytes free for us, and bytes in all.
    fn space(&self) -> io::Result<(u64, u64)>;
}

/// Bytes free for us, and bytes in all, of the file system that holds `path`.
///
/// # Errors
/// There is nothing at `path`, or it cannot be looked at.
pub fn space(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

/// File handles kept open per drive: enough for the log, the superblocks and the shards being
/// written; with 16 drives still well under the usual limit of 1,024 descriptors.
const OPEN_FILES: usize = 24;

/// Zeros written at once.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// Writes zeros: the first write into space that was only allocated changes the file's extents, and
/// every sync after such a write would wait for the file system's own journal.
fn write_zeros(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let len = usize::try_from(to - from).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all_at(&ZEROS[..len], from)?;
        from += len as u64;
    }
    Ok(())
}

/// A real directory.
pub struct Directory {
    root: PathBuf,
    open: Mutex<BTreeMap<String, Arc<File>>>,
}

impl Directory {
    /// The files under `root`.
    pub fn new(root: &Path) -> Self {
        Directory { root: root.to_path_buf(), open: Mutex::new(BTreeMap::new()) }
    }

    fn handle(&self, name: &str, create: bool) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(file.clone());
        }
        let path = self.root.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false);
        let file = match options.open(&path) {
            Err(e) if create && e.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
                options.open(&path)?
            }
            other => other?,
        };
        let file = Arc::new(file);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_FILES {
            open.clear();
        }
        open.insert(name.to_owned(), file.clone());
        Ok(file)
    }
}

impl Disk for Directory {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.root.join(folder)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn len(&self, name: &str) -> io::Result<Option<u64>> {
        match std::fs::metadata(self.root.join(name)) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = self.handle(name, false)?;
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.handle(name, true)?.write_all_at(bytes, offset)
    }

    fn reserve(&self, name: &str, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        let file = self.handle(name, true)?;
        let have = file.metadata()?.len();
        if have >= len {
            return Ok(());
        }
        let taken = match fallocate(&*file, FallocateFlags::empty(), have, len - have) {
            // Some file systems cannot; then a full disk shows while the zeros are written.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(&file, have, len),
            Err(e) => Err(e.into()),
        };
        if taken.is_err() {
            // What a failed call may have taken is given back; an error here changes nothing more.
            let _ = file.set_len(have);
        }
        taken
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.handle(name, false)?.set_len(len)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.handle(name, false)?.sync_data()
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut path = self.root.join(folder);
        File::open(&path)?.sync_all()?;
        while path.starts_with(&self.root) && path != self.root && path.pop() {
            File::open(&path)?.sync_all()?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        match std::fs::remove_file(self.root.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn space(&self) -> io::Result<(u64, u64)> {
        space(&self.root)
    }
}
