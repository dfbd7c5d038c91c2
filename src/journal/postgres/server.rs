//! A PostgreSQL of its own for one test or measurement: initdb in a temporary folder, a Unix socket there, gone with the
//! value. It needs Debian's packages (or any `initdb` and `postgres`); a test without them prints why it is skipped.
//!
//! It stands by itself, so that a benchmark can take it in by its path.
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that runs.
pub struct Server {
    child: Child,
    bin: PathBuf,
    dir: tempfile::TempDir,
}

impl Server {
    /// Makes a cluster and starts it; `more` are settings, `name=value`.
    ///
    /// # Errors
    /// Why there is none here: a word for a SKIPPED line.
    pub async fn start(more: &[&str]) -> Result<Server, String> {
        let bin = binaries().ok_or("PostgreSQL is not installed (apt-get install postgresql)")?;
        let dir = tempfile::Builder::new().prefix("pg").tempdir().map_err(|e| e.to_string())?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).map_err(|e| e.to_string())?;
        let data = dir.path().join("data");
        std::fs::create_dir(&data).map_err(|e| e.to_string())?;
        if is_root() {
            // PostgreSQL refuses to run as root; Debian's package brings a user.
            let user = user_ids("postgres").ok_or("running as root, and there is no user postgres")?;
            for path in [dir.path(), &data] {
                chown(path, Some(user.0), Some(user.1)).map_err(|e| e.to_string())?;
            }
        }
        let made = as_user(&bin.join("initdb"))
            .args(["--username=isthmus", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(dir.path())
            .output()
            .map_err(|e| format!("initdb: {e}"))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr).trim()));
        }
        let log = std::fs::File::create(dir.path().join("log")).map_err(|e| e.to_string())?;
        let child = spawn(&bin, dir.path(), more, log)?;
        let mut server = Server { child, bin, dir };
        server.wait_ready().await?;
        Ok(server)
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("postgres:///postgres?host={}&user=isthmus", self.dir.path().display())
    }

    /// A file that holds the URL, as a journal's settings want it.
    pub fn url_file(&self) -> PathBuf {
        let file = self.dir.path().join("url");
        std::fs::write(&file, self.url()).expect("the folder is ours");
        file
    }

    /// Ends it as a power cut would, and starts it again on what is on the drive.
    pub async fn crash_and_restart(&mut self) {
        self.signal("QUIT");
        let log = std::fs::File::options().append(true).open(self.dir.path().join("log")).expect("the log is there");
        self.child = spawn(&self.bin, self.dir.path(), &[], log).expect("it started before");
        self.wait_ready().await.expect("it recovers");
    }

    /// Ends it; nothing answers any more.
    pub fn stop(&mut self) {
        self.signal("QUIT");
    }

    fn signal(&mut self, name: &str) {
        if self.child.try_wait().ok().flatten().is_some() {
            return;
        }
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", name, &pid]).status();
        let _ = self.child.wait();
    }

    async fn wait_ready(&mut self) -> Result<(), String> {
        let ready = async {
            loop {
                let probe = Command::new(self.bin.join("pg_isready")).arg("-q").arg("-h").arg(self.dir.path()).status();
                if probe.is_ok_and(|s| s.success()) {
                    return Ok(());
                }
                if self.child.try_wait().ok().flatten().is_some() {
                    let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                    return Err(format!("postgres ended at once: {}", log.trim()));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), ready).await.map_err(|_| "postgres does not get ready")?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(bin: &Path, dir: &Path, more: &[&str], log: std::fs::File) -> Result<Child, String> {
    let mut command = as_user(&bin.join("postgres"));
    command.arg("-D").arg(dir.join("data")).arg("-k").arg(dir).args(["-c", "listen_addresses="]);
    for setting in more {
        command.args(["-c", setting]);
    }
    let out = log.try_clone().map_err(|e| e.to_string())?;
    command.current_dir(dir).stdin(Stdio::null()).stdout(out).stderr(log);
    command.spawn().map_err(|e| format!("postgres: {e}"))
}

/// A command as this user, or as `postgres` where this one is root; it ends with whoever started it.
fn as_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.args(["--pdeathsig=QUIT", "--"]).arg(program);
    command
}

fn is_root() -> bool {
    id(&["-u"]) == Some(0)
}
fn user_ids(name: &str) -> Option<(u32, u32)> {
    Some((id(&["-u", name])?, id(&["-g", name])?))
}
fn id(args: &[&str]) -> Option<u32> {
    let out = Command::new("id").args(args).output().ok()?;
    String::from_utf8(out.stdout).ok()?.trim().parse().ok()
}

/// The folder of `initdb` and `postgres`: Debian's newest, else the first of PATH.
fn binaries() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    folders.sort();
    folders.reverse();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders.into_iter().find(|f| f.join("initdb").is_file() && f.join("postgres").is_file())
}
