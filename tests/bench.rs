//! The benchmark, as small as it can be: one name, no delay, and getcrt alone.

use crate::support::prelude::*;

#[test]
fn the_benchmark_measures() {
    let options = "--names 1 --rtt 0 --runs 1 --clients getcrt";
    let options: Vec<&str> = options.split(' ').collect();
    let run = Run::of("sh").arg("tests/bench.sh").args(&options);
    let outcome = run.env("GETCRT", GETCRT).outcome();
    outcome.exits(0);
    let row = outcome
        .stdout
        .lines()
        .find(|line| line.starts_with("| 1 | getcrt |"));
    let cells: Vec<&str> = row
        .unwrap_or_default()
        .trim_matches('|')
        .split('|')
        .map(str::trim)
        .collect();
    // Without a round trip, nothing is a multiple of the least possible time.
    let [_, _, wall, "-", "1.0", cpu, memory, requests, "1"] = cells[..] else {
        panic!("{outcome}")
    };
    let is_between =
        |cell: &str, least: f64, most: f64| (least..most).contains(&cell.parse().unwrap());
    outcome.check(
        "a figure cannot be",
        is_between(wall, 0.01, 60.0)
            && is_between(cpu, 0.01, 30.0)
            && is_between(memory, 5.0, 100.0)
            && is_between(requests, 10.0, 40.0),
    );
}
