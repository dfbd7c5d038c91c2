//! `isthmus` as a process of its own in a folder: started with its log beside it, killed with its owner.
#![allow(dead_code)] // each test takes what it needs
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Starts it in `dir` with these arguments; what it says is added to the file `log` there.
pub fn spawn(dir: &Path, args: &[&str]) -> Child {
    spawn_with(dir, args, &[])
}

/// The same with these variables in its environment.
pub fn spawn_with(dir: &Path, args: &[&str], environment: &[(String, String)]) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("open the log");
    Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .args(args)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle of the log"))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("start isthmus")
}

/// kill -9, and waits for the end.
pub async fn kill(mut child: Child) {
    child.start_kill().expect("kill -9");
    child.wait().await.expect("wait for the killed process");
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Changes a file, which must hold what is replaced: it takes effect by itself.
#[track_caller]
pub fn rewrite(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("read a file of a site");
    assert!(text.contains(from), "{from} in {text}");
    fs::write(file, text.replace(from, to)).expect("write a file of a site");
}

/// Ports that were free a moment ago, all different.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|l| l.local_addr().expect("it is bound").port())
}
