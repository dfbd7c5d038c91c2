//! Cuts the operations of a world that failed, for as long as it still fails.
use super::{Failure, run_with};

/// Runs at most, so that a slow failure is told of all the same.
const RUNS_MAX: usize = 300;

/// A failure with as few operations as bisection finds: halves first, then ever smaller pieces.
pub fn shrink(mut failure: Failure) -> Failure {
    let mut piece = failure.operations.len().div_ceil(2).max(1);
    let mut runs = 0;
    loop {
        let (mut at, mut has_cut) = (0, false);
        while at < failure.operations.len() && runs < RUNS_MAX {
            let mut fewer = failure.operations.clone();
            fewer.drain(at..(at + piece).min(failure.operations.len()));
            runs += 1;
            match run_with(&failure.options, &fewer) {
                Err(smaller) => (failure, has_cut) = (smaller, true),
                Ok(_) => at += piece,
            }
        }
        if runs >= RUNS_MAX || (piece == 1 && !has_cut) {
            return failure;
        }
        piece = (piece / 2).max(1);
    }
}
