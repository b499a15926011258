//! The figures of all rounds as a table.

use std::fmt;

/// What is measured, in the order of the table, with what it is compared to and the goal.
pub(crate) const LINES: [Line; 7] = [
    Line::raw("raw: create + status patch"),
    Line::against(0, 0.7, "first registrations"),
    Line::raw("raw: loop of four writes"),
    Line::against(2, 0.6, "moves"),
    Line::raw("raw: TLS + HTTP echo"),
    Line::against(4, 0.35, "unchanged registrations"),
    Line::at_least(10_000.0, "polls"),
];

pub(crate) struct Line {
    name: &'static str,
    /// The line that it is a part of, and how much of it is the goal.
    against: Option<(usize, f64)>,
    at_least: Option<f64>,
}

/// What was measured in each round, per second, in the order of [`LINES`].
#[derive(Default)]
pub(crate) struct Figures(pub(crate) Vec<[f64; LINES.len()]>);

impl Line {
    const fn raw(name: &'static str) -> Self {
        Self {
            name,
            against: None,
            at_least: None,
        }
    }

    const fn against(line: usize, goal: f64, name: &'static str) -> Self {
        Self {
            against: Some((line, goal)),
            ..Self::raw(name)
        }
    }

    const fn at_least(goal: f64, name: &'static str) -> Self {
        Self {
            at_least: Some(goal),
            ..Self::raw(name)
        }
    }
}

impl Figures {
    fn column(&self, line: usize) -> Vec<f64> {
        self.0.iter().map(|round| round[line]).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<30}", "per second")?;
        for round in 1..=self.0.len() {
            write!(f, " {:>9}", format!("round {round}"))?;
        }
        writeln!(f, " {:>9} {:>9}", "minimum", "median")?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, values: &[f64], digits: usize| {
            write!(f, "{name:<30}")?;
            for value in values {
                write!(f, " {value:>9.digits$}")?;
            }
            let minimum = values.iter().copied().fold(f64::INFINITY, f64::min);
            write!(f, " {minimum:>9.digits$} {:>9.digits$}", median(values))
        };
        for (number, line) in LINES.iter().enumerate() {
            let values = self.column(number);
            row(f, line.name, &values, 0)?;
            if let Some(goal) = line.at_least {
                write!(f, "  goal {goal:.0} {}", reached(median(&values) >= goal))?;
            }
            writeln!(f)?;
            if let Some((other, goal)) = line.against {
                let base = self.column(other);
                let ratios: Vec<_> = values
                    .iter()
                    .zip(base)
                    .map(|(one, raw)| one / raw)
                    .collect();
                row(f, "  ratio", &ratios, 2)?;
                writeln!(f, "  goal {goal} {}", reached(median(&ratios) >= goal))?;
            }
        }
        Ok(())
    }
}

fn reached(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "missed" }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        values[middle - 1].midpoint(values[middle])
    }
}
