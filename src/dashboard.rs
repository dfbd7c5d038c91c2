//! What operators look at: boards of panels as data, each panel a question with the queries that answer it and what to
//! do about the answer. `grafana` makes Grafana's files of them; `isthmus dashboards` writes these to `manifests/`.
//!
//! Never edited by hand there, and never aware of a process: a panel may ask only for what `docs/metrics.md` lists.
mod drill;
pub mod grafana;
mod link;
mod mesh;
mod slo;
mod store;

/// All boards, in the order people go through them.
pub fn boards() -> Vec<Board> {
    vec![mesh::board(), link::board(), drill::board(), store::board(), slo::board()]
}

/// Buckets that are looked at, for selectors of the metrics of links.
const BUCKET: &str = r#"bucket=~"$bucket""#;
/// Buckets and peers that are looked at.
const WAY: &str = r#"bucket=~"$bucket", peer=~"$peer""#;

/// One board.
#[derive(Clone, Debug)]
pub struct Board {
    /// Name of its file, and the end of its address.
    pub name: &'static str,
    pub title: &'static str,
    pub about: &'static str,
    /// What a person may choose, beside the data source.
    pub choices: &'static [Choice],
    pub panels: Vec<Panel>,
}

/// What a person may choose on a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Bucket,
    Peer,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: &'static str,
    pub look: Look,
    pub unit: Unit,
    /// What to do about the answer.
    pub todo: &'static str,
    /// Where more is said: a page below `docs/`.
    pub page: String,
    pub queries: Vec<Query>,
    /// Where a value gets another colour, ascending; the first colour is that of all below.
    pub steps: (Colour, Vec<(f64, Colour)>),
    /// What is shown where there are no data; `None`: there always are.
    pub absent: Option<&'static str>,
    /// Words for values, each with its colour.
    pub words: Vec<(f64, &'static str, Colour)>,
    /// A word for all values from one on.
    pub from_on: Option<(f64, &'static str)>,
    /// Looks at this time instead of the one chosen, such as `90d`.
    pub over: Option<&'static str>,
}

/// How an answer looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Number,
    Lines,
    Table,
    Heatmap,
    /// Words over time.
    States,
}

/// What a number counts, in Grafana's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Days,
    Versions,
    VersionsPerSecond,
    RequestsPerSecond,
    Bytes,
    BytesPerSecond,
    Share,
    /// Of nothing: a factor, a state, how many of something.
    Plain,
}

/// Colours that people of every colour vision tell apart.
///
/// # Source
/// M. Okabe and K. Ito, "Color Universal Design" (2008).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Blue,
    Orange,
    Vermillion,
}

/// One query of a panel.
#[derive(Clone, Debug)]
pub struct Query {
    pub expr: String,
    /// Name of its lines, or of its column in a table.
    pub legend: &'static str,
    /// Of its column, where it is not the panel's.
    pub unit: Option<Unit>,
    /// Shows the traces behind its values.
    pub exemplars: bool,
}

impl Panel {
    fn new(look: Look, title: &'static str, unit: Unit, page: &str, todo: &'static str) -> Self {
        let page = if page.ends_with(".md") { page.into() } else { format!("runbooks/{page}.md") };
        Panel {
            title,
            look,
            unit,
            todo,
            page,
            queries: Vec::new(),
            steps: (Colour::Blue, Vec::new()),
            absent: None,
            words: Vec::new(),
            from_on: None,
            over: None,
        }
    }

    fn asks(self, legend: &'static str, expr: impl Into<String>) -> Self {
        self.asks_in(None, legend, expr)
    }

    fn asks_in(mut self, unit: Option<Unit>, legend: &'static str, expr: impl Into<String>) -> Self {
        self.queries.push(Query { expr: expr.into(), legend, unit, exemplars: false });
        self
    }

    /// The last query shows the traces behind its values.
    fn with_exemplars(mut self) -> Self {
        self.queries.last_mut().expect("a query was added").exemplars = true;
        self
    }

    /// Worse from `warn` on, bad from `bad` on.
    fn worse_from(mut self, warn: f64, bad: f64) -> Self {
        self.steps = (Colour::Blue, vec![(warn, Colour::Orange), (bad, Colour::Vermillion)]);
        self
    }

    /// Bad from `bad` on.
    fn bad_from(mut self, bad: f64) -> Self {
        self.steps = (Colour::Blue, vec![(bad, Colour::Vermillion)]);
        self
    }

    /// Bad below `warn`, worse than it should be below `good`.
    fn good_from(mut self, warn: f64, good: f64) -> Self {
        self.steps = (Colour::Vermillion, vec![(warn, Colour::Orange), (good, Colour::Blue)]);
        self
    }

    /// Bad below `low`, and from `high` on.
    fn good_between(mut self, low: f64, high: f64) -> Self {
        self.steps = (Colour::Vermillion, vec![(low, Colour::Blue), (high, Colour::Vermillion)]);
        self
    }

    fn absent(mut self, text: &'static str) -> Self {
        self.absent = Some(text);
        self
    }

    fn words(mut self, words: impl IntoIterator<Item = (f64, &'static str, Colour)>) -> Self {
        self.words.extend(words);
        self
    }

    fn said_from(mut self, value: f64, word: &'static str) -> Self {
        self.from_on = Some((value, word));
        self
    }
}

/// Quantile `q` of a histogram by these labels, absent where nothing was observed: without observations it is no number.
fn quantile(q: f64, histogram: &str, selector: &str, by: &str) -> String {
    let rate = |part: &str| format!("rate(isthmus_{histogram}_{part}{{{selector}}}[$__rate_interval])");
    let (of_buckets, some) = (rate("bucket"), rate("count"));
    let with_le = if by.is_empty() { "le".into() } else { format!("le, {by}") };
    format!("histogram_quantile({q}, sum by ({with_le}) ({of_buckets})) and on ({by}) sum by ({by}) ({some}) > 0")
}
