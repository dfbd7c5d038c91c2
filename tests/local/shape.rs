//! Which sites send to which, and what: the plan of a fleet.
use std::collections::BTreeSet;
use std::ops::Range;

/// One rule's way from a site to another, by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub from: usize,
    pub to: usize,
    /// Of which keys; the empty one: of all.
    pub prefix: &'static str,
}

/// All ways of a fleet.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    pub ways: Vec<Way>,
    /// Sites send on what others originated.
    pub relays: bool,
}

impl Shape {
    /// Each of these sites to each other one.
    pub fn mesh(places: Range<usize>) -> Shape {
        let ways = places
            .clone()
            .flat_map(|from| places.clone().filter(move |to| *to != from).map(move |to| Way { from, to, prefix: "" }));
        Shape { ways: ways.collect(), relays: false }
    }

    /// A line of sites, each linked with its neighbours only, which send on what they got.
    pub fn relay(sites: usize) -> Shape {
        let ways =
            (1..sites).flat_map(|i| [Way { from: i - 1, to: i, prefix: "" }, Way { from: i, to: i - 1, prefix: "" }]);
        Shape { ways: ways.collect(), relays: true }
    }

    /// What a site sends.
    pub fn from(&self, place: usize) -> impl Iterator<Item = &Way> {
        self.ways.iter().filter(move |w| w.from == place)
    }

    /// Who has whom as a peer: both ends of a way know each other.
    pub fn pairs(&self) -> BTreeSet<(usize, usize)> {
        self.ways.iter().flat_map(|w| [(w.from, w.to), (w.to, w.from)]).collect()
    }
}
