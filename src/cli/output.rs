//! How verbs print: data on standard output, talk on standard error; the verdict first.
pub use crate::replicator::report::verdict::{backlog, lag};
pub use crate::words::{bytes, object, seconds, utc};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::fmt::Arguments;
use std::io::Write;

/// What a shell says of a process that SIGPIPE ended: 128 and its number.
const PIPE_CLOSED: i32 = 141;

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For people, with more columns where there are more.
    Wide,
    /// One JSON document, on one line.
    Json,
    /// One YAML document.
    Yaml,
}

impl Format {
    /// Whether programs are to read it.
    pub fn is_data(self) -> bool {
        matches!(self, Format::Json | Format::Yaml)
    }
}

/// A table without frames, as `kubectl` prints them.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Prints to standard output. Whoever reads it may have gone (`| head`): then the process ends as one that SIGPIPE ended.
pub fn print(what: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if out.write_fmt(what).and_then(|()| out.flush()).is_err() {
        std::process::exit(PIPE_CLOSED);
    }
}

/// Prints a value for programs: as YAML where that is asked for, else as JSON on one line.
pub fn data<T: Serialize>(format: Format, value: &T) {
    match format {
        // A document of its own each time: `--watch` prints many.
        Format::Yaml => {
            say_all!(format_args!("---\n{}", serde_saphyr::to_string(value).expect("reports have string keys")))
        }
        _ => say!("{}", serde_json::to_string(value).expect("reports have string keys")),
    }
}
