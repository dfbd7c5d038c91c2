//! The figures of one site's store: small and large objects, written and read back.
use crate::Figure;
use crate::client::Connection;
use crate::load::{self, Content, Work};
use crate::process::{self, Watch};
use crate::sites::Site;
use crate::table::Row;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What is done in one figure.
pub struct Workload {
    pub figure: Figure,
    pub name: &'static str,
    goal: &'static str,
    verb: Verb,
    bytes: usize,
    connections: usize,
    shows: Shows,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Put,
    Get,
}

/// Which number is the figure.
enum Shows {
    OperationsPerSecond,
    MegabytesPerSecond,
    MedianMillis,
}

const SMALL: usize = 4 << 10;
const LARGE: usize = 64 << 20;

pub const WORKLOADS: [Workload; 5] = [
    Workload {
        figure: Figure::Put4k,
        name: "PUT 4 KiB, 32 connections",
        goal: "≥ 3,000/s",
        verb: Verb::Put,
        bytes: SMALL,
        connections: 32,
        shows: Shows::OperationsPerSecond,
    },
    Workload {
        figure: Figure::Get4k,
        name: "GET 4 KiB, 32 connections",
        goal: "≥ 8,000/s",
        verb: Verb::Get,
        bytes: SMALL,
        connections: 32,
        shows: Shows::OperationsPerSecond,
    },
    Workload {
        figure: Figure::GetOne,
        name: "GET 4 KiB, 1 connection",
        goal: "median < 1 ms",
        verb: Verb::Get,
        bytes: SMALL,
        connections: 1,
        shows: Shows::MedianMillis,
    },
    Workload {
        figure: Figure::Put64m,
        name: "PUT 64 MiB, 2 connections",
        goal: "≥ 300 MB/s",
        verb: Verb::Put,
        bytes: LARGE,
        connections: 2,
        shows: Shows::MegabytesPerSecond,
    },
    Workload {
        figure: Figure::Get64m,
        name: "GET 64 MiB, 2 connections",
        goal: "≥ 600 MB/s",
        verb: Verb::Get,
        bytes: LARGE,
        connections: 2,
        shows: Shows::MegabytesPerSecond,
    },
];

/// Which objects of a size are on the store: numbers below.
#[derive(Default)]
pub struct Objects(BTreeMap<usize, u64>);

/// Name of object `number` among those of a size.
pub fn key(bytes: usize, number: u64) -> String {
    format!("{bytes}/{number:08}")
}

struct Run {
    verb: Verb,
    bytes: usize,
    content: Content,
    /// PUT: the first number that is free. GET: how many there are.
    known: u64,
}

impl Work for Run {
    async fn work(&self, connection: &mut Connection, number: u64) -> anyhow::Result<()> {
        match self.verb {
            Verb::Put => {
                let number = self.known + number;
                connection.put(&key(self.bytes, number), self.content.of(number, self.bytes)).await
            }
            Verb::Get => {
                // A prime step visits all of them in no order that helps.
                let number = number.wrapping_mul(1_000_003) % self.known;
                connection.get(&key(self.bytes, number), &self.content.of(number, self.bytes)).await
            }
        }
    }
}

/// Measures one workload for `span`.
pub async fn measure(workload: &Workload, site: &Site, objects: &mut Objects, span: Duration) -> anyhow::Result<Row> {
    let Workload { name, goal, verb, bytes, connections, .. } = *workload;
    let content = Content::new(bytes);
    let known = objects.0.entry(bytes).or_default();
    if verb == Verb::Get && *known == 0 {
        // Something to read: a second of writing.
        let fill = Run { verb: Verb::Put, bytes, content: content.clone(), known: 0 };
        let (written, _) = load::closed(site, connections, Duration::from_secs(1), Rc::new(fill)).await?;
        *known = written.count() as u64;
    }
    let run = Run { verb, bytes, content, known: *known };
    let watch = Watch::start(site.pid())?;
    let (mut latencies, took) = load::closed(site, connections, span, Rc::new(run)).await?;
    let used = watch.stop()?;
    let done = latencies.count();
    if verb == Verb::Put {
        *known += done as u64;
    }
    let per_second = done as f64 / took.as_secs_f64();
    let (value, measured) = match workload.shows {
        Shows::OperationsPerSecond => (per_second, format!("{per_second:.0}/s")),
        Shows::MegabytesPerSecond => {
            let rate = per_second * bytes as f64 / 1e6;
            (rate, format!("{rate:.0} MB/s"))
        }
        Shows::MedianMillis => {
            let median = latencies.quantile(0.5).unwrap_or(f64::NAN);
            (median, format!("{median:.2} ms"))
        }
    };
    let row = Row::new(name, goal, measured, value).latencies(&mut latencies).used(used, done);
    Ok(row.memory(process::memory(site.pid())?))
}
