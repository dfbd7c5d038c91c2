//! The command line from outside: the demo's whole scenario on real processes, and what bad input gets.
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn isthmus(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isthmus")).current_dir(dir).args(args).output().expect("run isthmus")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A configuration with these drives and parity.
fn config(dir: &Path, drives: &str, extra: &str) -> String {
    fs::create_dir_all(dir.join("rules")).expect("make the rule folder");
    fs::write(dir.join("secret-key"), "a-secret-key").expect("write the secret key");
    let text = format!(
        "store:\n  drives: [{drives}]\n  s3_listen: \"127.0.0.1:0\"\n  users: [{{access_key: demo, secret_key_file: secret-key}}]\n{extra}rules_dir: rules\nrefs_dir: refs\njournal: journal.sqlite\npeer_listen: \"127.0.0.1:0\"\nadmin_listen: \"127.0.0.1:0\"\n"
    );
    fs::write(dir.join("site.yaml"), text).expect("write the configuration");
    "site.yaml".into()
}

#[test]
fn the_demo_converges_through_a_kill() {
    let dir = tempfile::tempdir().expect("make a directory");
    for i in 0..120 {
        let folder = dir.path().join(format!("d{}", i % 7));
        fs::create_dir_all(&folder).expect("make a folder");
        fs::write(folder.join(format!("file {i}.txt")), vec![b'a' + (i % 26) as u8; 1 + i * 311])
            .expect("write a file");
    }
    let output = isthmus(dir.path(), &["demo", "-o", "json"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    let verdict: serde_json::Value =
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {stdout}\n{}", stderr(&output)));
    assert_eq!(verdict["verdict"], "converged", "{verdict}\n{}", stderr(&output));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(verdict["mismatches"], 0);
    assert!(verdict["versions"].as_u64() > Some(180), "{verdict}");
    assert!(verdict["conflicts"].as_u64() > Some(0), "keys written on two sites at once conflict: {verdict}");
}

#[test]
fn an_unknown_key_is_refused_before_anything_starts() {
    let dir = tempfile::tempdir().expect("make a directory");
    let file = config(dir.path(), "d0, d1, d2, d3", "  drvies: 4\n");
    let output = isthmus(dir.path(), &["site", "--config", &file]);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    assert!(stderr(&output).contains("drvies"), "{}", stderr(&output));
    assert!(!dir.path().join("d0").exists(), "no drive is touched");
}

#[test]
fn a_verb_whose_reader_is_gone_ends_without_a_word() {
    let dir = tempfile::tempdir().expect("make a directory");
    let (reader, writer) = std::io::pipe().expect("make a pipe");
    drop(reader);
    let mut verb = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    let output = verb.current_dir(dir.path()).args(["crds", "--dir", "."]).stdout(writer).output();
    let output = output.expect("run isthmus");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(141), ""));
}

#[test]
fn an_impossible_layout_is_refused() {
    let dir = tempfile::tempdir().expect("make a directory");
    let file = config(dir.path(), "d0, d1, d2, d3", "  parity: 4\n");
    let output = isthmus(dir.path(), &["site", "--config", &file]);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    assert!(stderr(&output).contains("parity"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_is_64() {
    let dir = tempfile::tempdir().expect("make a directory");
    assert_eq!(isthmus(dir.path(), &["nonsense"]).status.code(), Some(64));
    assert_eq!(isthmus(dir.path(), &["--help"]).status.code(), Some(0));
}

#[test]
fn a_process_that_is_not_there_is_unknown_not_healthy() {
    let dir = tempfile::tempdir().expect("make a directory");
    let output = isthmus(dir.path(), &["status", "--socket", "no.sock"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no.sock"));
}

/// Verbs of the command line, verbs of verbs too, by their words.
fn verbs(command: &clap::Command, words: &[String], all: &mut Vec<Vec<String>>) {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let words = [words, &[verb.get_name().to_owned()]].concat();
        verbs(verb, &words, all);
        all.push(words);
    }
}

fn all_verbs() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    verbs(&<isthmus::cli::Cli as clap::CommandFactory>::command(), &[], &mut all);
    assert!(all.len() > 20, "{all:?}");
    all
}

#[test]
fn completions_name_every_verb_and_their_shells_take_them() {
    let dir = tempfile::tempdir().expect("make a directory");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = isthmus(dir.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let script = String::from_utf8_lossy(&output.stdout);
        for verb in all_verbs() {
            assert!(script.contains(verb.last().expect("a word")), "{shell}: {verb:?}");
        }
        let file = dir.path().join(shell);
        fs::write(&file, script.as_bytes()).expect("write it");
        // Those that only read it; where there is no such shell nobody can say.
        if let ("bash" | "zsh" | "fish", Ok(read)) = (shell, Command::new(shell).arg("-n").arg(&file).output()) {
            assert!(read.status.success(), "{shell} -n: {}", stderr(&read));
        }
    }
    assert_eq!(isthmus(dir.path(), &["completions", "dos"]).status.code(), Some(64));
}

#[test]
fn the_manual_has_a_page_for_every_verb_and_says_the_exit_codes() {
    let dir = tempfile::tempdir().expect("make a directory");
    let output = isthmus(dir.path(), &["man", "--dir", "man1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for words in all_verbs().into_iter().chain([Vec::new()]) {
        let name = [vec!["isthmus".to_owned()], words].concat().join("-");
        let page = fs::read_to_string(dir.path().join("man1").join(format!("{name}.1")));
        let page = page.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(page.contains(".TH") && page.contains(".SH SYNOPSIS") && page.len() > 200, "{name}:\n{page}");
    }
    let page = fs::read_to_string(dir.path().join("man1/isthmus.1")).expect("the first page");
    for (code, meaning) in isthmus::cli::exit::ALL {
        assert!(page.contains(&format!("{code}  {meaning}")), "{code} {meaning}:\n{page}");
    }
}

#[test]
fn whoever_cannot_be_reached_is_unknown_in_every_verb_that_asks() {
    let dir = tempfile::tempdir().expect("make a directory");
    let asking: [&[&str]; 13] = [
        &["status"],
        &["lag"],
        &["backlog"],
        &["conflicts"],
        &["explain", "bucket/key"],
        &["retry", "rule"],
        &["suspend", "--rule", "rule"],
        &["resume", "--rule", "rule"],
        &["release", "rule"],
        &["verify", "rule"],
        &["drill", "list"],
        &["drill", "abort"],
        &["failover", "--dry-run", "--peer", "ams"],
    ];
    for verb in asking {
        for format in ["table", "wide", "json", "yaml"] {
            let output = isthmus(dir.path(), &[verb, &["--socket", "nobody.sock", "-o", format]].concat());
            assert_eq!(output.status.code(), Some(2), "{verb:?} {format}: {}", stderr(&output));
            assert!(
                stderr(&output).contains("nobody.sock") && output.stdout.is_empty(),
                "{verb:?}: {}",
                stderr(&output)
            );
        }
        let output = isthmus(dir.path(), &[verb, &["--socket", "nobody.sock", "-o", "xml"]].concat());
        assert_eq!(output.status.code(), Some(64), "{verb:?}");
    }
    assert_eq!(isthmus(dir.path(), &["certificates"]).status.code(), Some(64));
    assert_eq!(isthmus(dir.path(), &["--version"]).status.code(), Some(0));
}
