//! Harness and scenarios over isthmus' public items: the seeded simulator of links with a bad network.
pub mod sim;
