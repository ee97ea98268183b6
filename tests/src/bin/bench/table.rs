//! The table for people, and the same as JSON.

use serde::Serialize;

use crate::measure::Row;

#[derive(Serialize)]
struct JsonRow<'a> {
    name: &'a str,
    unit: &'a str,
    floor: Option<f64>,
    ours: f64,
    ratio: Option<f64>,
    budget: f64,
}

pub(crate) fn print(rows: &[Row]) {
    println!("{:<64} {:>10} {:>10} {:>4} {:>6} {:>8}", "what", "floor", "ours", "unit", "ratio", "budget");
    for row in rows {
        let floor = row.floor.map_or_else(|| "-".to_owned(), |floor| format!("{floor:.1}"));
        let ratio = row.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let sign = if row.more_is_better { ">=" } else { "<=" };
        let mark = if row.keeps_budget() { "" } else { "  over budget" };
        println!(
            "{:<64} {floor:>10} {:>10.1} {:>4} {ratio:>6} {sign}{:>6.2}{mark}",
            row.name, row.ours, row.unit, row.budget
        );
    }
}

/// Writes `bench.json` beside the folder of the programs: `target/bench.json`.
pub(crate) fn write(rows: &[Row]) {
    let rows: Vec<JsonRow<'_>> = rows
        .iter()
        .map(|row| JsonRow {
            name: &row.name,
            unit: row.unit,
            floor: row.floor,
            ours: row.ours,
            ratio: row.ratio(),
            budget: row.budget,
        })
        .collect();
    let path = tests::programs::folder().parent().expect("a target folder").join("bench.json");
    let text = serde_json::to_string_pretty(&rows).expect("rows are JSON");
    std::fs::write(&path, text + "\n").expect("the table can be written");
    println!("written to {}", path.display());
}
