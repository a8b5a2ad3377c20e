//! Optimal assignment over few candidate pairs.
//!
//! The shortest augmenting path method of Jonker and Volgenant (Computing 38, 1987), row by row, on lists of candidates
//! instead of a matrix. A search never leaves the connected component of its row, so that thousands of cells with a few
//! candidates each take milliseconds, and a single dense component O(n·m·log n).

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    ops::{Add, Sub},
};

/// A candidate: row and column may be assigned to each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub row: u32,
    pub column: u32,
    pub cost: f64,
}

/// A cost with a priority above it: fewer rows without a column first, then the sum of the costs. Ordered groups are all
/// that the method needs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    left_out: i64,
    sum: f64,
}

impl Cost {
    const ZERO: Self = Self { left_out: 0, sum: 0.0 };

    fn compare(&self, other: &Self) -> Ordering {
        self.left_out.cmp(&other.left_out).then(self.sum.total_cmp(&other.sum))
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { left_out: self.left_out + other.left_out, sum: self.sum + other.sum }
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { left_out: self.left_out - other.left_out, sum: self.sum - other.sum }
    }
}

/// An entry of the queue: the column that is nearest comes first, then the one of the smaller number.
#[derive(PartialEq)]
struct Reached {
    distance: Cost,
    column: usize,
}

impl Eq for Reached {}

impl PartialOrd for Reached {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reached {
    fn cmp(&self, other: &Self) -> Ordering {
        other.distance.compare(&self.distance).then(other.column.cmp(&self.column))
    }
}

const NONE: usize = usize::MAX;

/// Assigns as many rows as possible; among these assignments, one with the smallest sum of costs. `candidates` are sorted
/// by row. Returns the column of each row.
pub(crate) fn assign_most(rows: usize, columns: usize, candidates: &[Candidate]) -> Vec<Option<u32>> {
    Solver::new(rows, columns, candidates, 1).solve()
}

/// Assigns rows such that the sum of costs is smallest; a row without column costs 0, so that candidates of positive
/// cost are never used. `candidates` are sorted by row. Returns the column of each row.
pub(crate) fn assign_cheapest(rows: usize, columns: usize, candidates: &[Candidate]) -> Vec<Option<u32>> {
    Solver::new(rows, columns, candidates, 0).solve()
}

/// Columns from `columns` on are one of its own for each row: to be without a column.
struct Solver<'a> {
    candidates: &'a [Candidate],
    starts: Vec<usize>,
    columns: usize,
    /// Price of leaving a row out, in the first component of [`Cost`].
    left_out: i64,
    row_prices: Vec<Cost>,
    column_prices: Vec<Cost>,
    row_of: Vec<usize>,
    column_of: Vec<usize>,
    distances: Vec<Option<Cost>>,
    done: Vec<bool>,
    /// The row from which a column was reached.
    reached_from: Vec<usize>,
}

impl<'a> Solver<'a> {
    fn new(rows: usize, columns: usize, candidates: &'a [Candidate], left_out: i64) -> Self {
        debug_assert!(candidates.is_sorted_by_key(|candidate| candidate.row));
        let starts =
            (0..=rows).map(|row| candidates.partition_point(|candidate| (candidate.row as usize) < row)).collect();
        let all = columns + rows;
        Self {
            candidates,
            starts,
            columns,
            left_out,
            row_prices: vec![Cost::ZERO; rows],
            column_prices: vec![Cost::ZERO; all],
            row_of: vec![NONE; all],
            column_of: vec![NONE; rows],
            distances: vec![None; all],
            done: vec![false; all],
            reached_from: vec![NONE; all],
        }
    }

    /// The columns that a row can have, and their costs.
    fn choices(&self, row: usize) -> impl Iterator<Item = (usize, Cost)> + use<'a> {
        let own = (self.columns + row, Cost { left_out: self.left_out, sum: 0.0 });
        let candidates = &self.candidates[self.starts[row]..self.starts[row + 1]];
        let costs = candidates.iter().map(|one| (one.column as usize, Cost { left_out: 0, sum: one.cost }));
        costs.chain([own])
    }

    fn solve(mut self) -> Vec<Option<u32>> {
        for row in 0..self.column_of.len() {
            self.insert(row);
        }
        self.column_of.iter().map(|&column| (column < self.columns).then_some(column as u32)).collect()
    }

    /// Gives a row a column, and other rows other columns where this is cheaper.
    fn insert(&mut self, row: usize) {
        let reduced = self.choices(row).map(|(column, cost)| cost - self.column_prices[column]);
        let Some(least) = reduced.min_by(Cost::compare) else { return };
        self.row_prices[row] = least;
        let mut touched = Vec::new();
        let mut queue = BinaryHeap::new();
        let mut settled = Vec::new();
        let (mut from, mut base) = (row, Cost::ZERO);
        let end = loop {
            for (column, cost) in self.choices(from) {
                if self.done[column] {
                    continue;
                }
                let distance = base + (cost - self.row_prices[from] - self.column_prices[column]);
                if self.distances[column].is_none_or(|known| distance.compare(&known).is_lt()) {
                    if self.distances[column].is_none() {
                        touched.push(column);
                    }
                    self.distances[column] = Some(distance);
                    self.reached_from[column] = from;
                    queue.push(Reached { distance, column });
                }
            }
            // The row's own column is free, so that the queue does not run empty.
            let Some(Reached { distance, column }) = queue.pop() else { break None };
            if self.done[column] {
                continue;
            }
            if self.row_of[column] == NONE {
                break Some((column, distance));
            }
            self.done[column] = true;
            settled.push((column, distance));
            (from, base) = (self.row_of[column], distance);
        };
        if let Some((mut column, total)) = end {
            self.row_prices[row] = self.row_prices[row] + total;
            for (settled_column, distance) in settled {
                let rest = total - distance;
                self.column_prices[settled_column] = self.column_prices[settled_column] - rest;
                let owner = self.row_of[settled_column];
                self.row_prices[owner] = self.row_prices[owner] + rest;
            }
            loop {
                let owner = self.reached_from[column];
                self.row_of[column] = owner;
                column = std::mem::replace(&mut self.column_of[owner], column);
                if owner == row {
                    break;
                }
            }
        }
        for column in touched {
            self.distances[column] = None;
            self.done[column] = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The best (rows assigned, sum of costs) by trying everything.
    fn brute_force(row: usize, rows: usize, used: u32, candidates: &[Candidate], price: f64) -> (f64, f64) {
        if row == rows {
            return (0.0, 0.0);
        }
        let better = |a: (f64, f64), b: (f64, f64)| if a.0 * price + a.1 <= b.0 * price + b.1 { a } else { b };
        let (left_out, sum) = brute_force(row + 1, rows, used, candidates, price);
        let mut best = (left_out + 1.0, sum);
        for one in candidates.iter().filter(|one| one.row as usize == row && used >> one.column & 1 == 0) {
            let (left_out, sum) = brute_force(row + 1, rows, used | 1 << one.column, candidates, price);
            best = better((left_out, sum + one.cost), best);
        }
        best
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0_u32..6, 0_u32..6, -40_i32..40);
        proptest::collection::vec(one, 0..20).prop_map(|mut list| {
            list.sort_unstable();
            list.dedup_by_key(|one| (one.0, one.1));
            list.iter().map(|&(row, column, cost)| Candidate { row, column, cost: f64::from(cost) / 8.0 }).collect()
        })
    }

    fn total(columns: &[Option<u32>], candidates: &[Candidate]) -> (f64, f64) {
        let mut sum = 0.0;
        let mut taken = std::collections::HashSet::new();
        for (row, column) in columns.iter().enumerate() {
            let Some(column) = column else { continue };
            assert!(taken.insert(column), "column {column} is assigned twice");
            let found = candidates.iter().find(|one| one.row as usize == row && one.column == *column);
            sum += found.expect("only candidates are assigned").cost;
        }
        ((columns.len() - taken.len()) as f64, sum)
    }

    proptest! {
        #[test]
        fn equals_the_best_of_all_assignments(candidates in candidates()) {
            let most = total(&assign_most(6, 6, &candidates), &candidates);
            prop_assert_eq!(most, brute_force(0, 6, 0, &candidates, 1e6));
            let cheapest = total(&assign_cheapest(6, 6, &candidates), &candidates);
            prop_assert_eq!(cheapest.1, brute_force(0, 6, 0, &candidates, 0.0).1);
        }
    }

    #[test]
    fn a_long_chain_is_moved_along() {
        // Row i can have columns i and i + 1; the last row only its own, which the one before has taken.
        let mut candidates: Vec<Candidate> = (0..999)
            .flat_map(|row| [(row, row, 2.0), (row, row + 1, 1.0)])
            .map(|(row, column, cost)| Candidate { row, column, cost })
            .collect();
        candidates.push(Candidate { row: 999, column: 999, cost: 1.0 });
        let columns = assign_most(1000, 1000, &candidates);
        assert!((0..1000).all(|row| columns[row] == Some(row as u32)));
    }
}
