//! Outcomes of uploads on drives in memory.
