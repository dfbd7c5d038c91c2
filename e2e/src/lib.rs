//! Harness and scenarios over isthmus' public items: the seeded simulator of links with a bad network, and the wire
//! ring, which runs the real shell over a simulated network.
pub mod sim;
pub mod wire;
