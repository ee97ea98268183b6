//! Medians of pairs that take turns, so that whatever the machine does meanwhile does it to both.

use std::time::Instant;

/// A row of the table; times are in microseconds, medians of all rounds.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// `None` where nothing stands below.
    pub(crate) floor: Option<f64>,
    pub(crate) ours: f64,
    /// The ratio to the floor that must not be passed; without a floor, the figure itself.
    pub(crate) budget: f64,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
}

impl Row {
    /// A row of times.
    pub(crate) fn times(name: &str, (floor, ours): (f64, f64), budget: f64) -> Self {
        Self { name: name.to_owned(), unit: "us", floor: Some(floor), ours, budget, more_is_better: false }
    }

    /// What is compared with the budget.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.ours / floor)
    }

    pub(crate) fn keeps_budget(&self) -> bool {
        let figure = self.ratio().unwrap_or(self.ours);
        if self.more_is_better { figure >= self.budget } else { figure <= self.budget }
    }
}

/// How often a pair is measured.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    /// Turns of each of the two.
    pub(crate) rounds: usize,
    /// Measurements in one turn.
    pub(crate) each: usize,
}

/// Measures two things in turn; answers the median time of each, in microseconds.
pub(crate) fn pair(rounds: Rounds, mut floor: impl FnMut(), mut ours: impl FnMut()) -> (f64, f64) {
    // Warm.
    floor();
    ours();
    let (mut floors, mut all_ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds.rounds {
        floors.extend((0..rounds.each).map(|_| time(&mut floor)));
        all_ours.extend((0..rounds.each).map(|_| time(&mut ours)));
    }
    (median(floors), median(all_ours))
}

/// How long something takes, in microseconds.
pub(crate) fn time(what: &mut impl FnMut()) -> f64 {
    let began = Instant::now();
    what();
    began.elapsed().as_secs_f64() * 1e6
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
