//! The figures of all rounds as a table.

use std::fmt;

/// What is measured, in the order of the table, with what it is compared to and the goal.
pub(crate) const LINES: [Line; 13] = [
    Line::raw("raw: create + status patch"),
    Line::raw("first registrations").against(0).goal(0.7),
    Line::raw("raw: loop of four writes"),
    Line::raw("moves").against(2).goal(0.6),
    Line::raw("raw: TLS + HTTP echo"),
    Line::raw("unchanged registrations").against(4).goal(0.35),
    Line::raw("polls").goal(10_000.0),
    Line::raw("unchanged, over MQTT").against(4),
    Line::raw("unchanged, over AMQP").against(4),
    Line::raw("raw: handshake + echo"),
    Line::raw("unchanged, handshake").against(9),
    Line::raw("raw: mutual handshake + echo"),
    Line::raw("unchanged, X.509").against(11),
];

pub(crate) struct Line {
    name: &'static str,
    /// The line that it is a part of.
    against: Option<usize>,
    /// How much it is to be, of that line if there is one, else per second.
    goal: Option<f64>,
}

/// What was measured in each round, per second, in the order of [`LINES`].
#[derive(Default)]
pub(crate) struct Figures(pub(crate) Vec<[f64; LINES.len()]>);

impl Line {
    const fn raw(name: &'static str) -> Self {
        Self {
            name,
            against: None,
            goal: None,
        }
    }

    const fn against(mut self, line: usize) -> Self {
        self.against = Some(line);
        self
    }

    const fn goal(mut self, goal: f64) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Whether the goal is reached, if there is one.
    fn verdict(&self, values: &[f64]) -> String {
        let verdict = |goal| {
            let reached = if median(values) >= goal {
                "reached"
            } else {
                "missed"
            };
            format!("  goal {goal} {reached}")
        };
        self.goal.map_or_else(String::new, verdict)
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
            let Some(other) = line.against else {
                writeln!(f, "{}", line.verdict(&values))?;
                continue;
            };
            writeln!(f)?;
            let base = self.column(other);
            let ratios = values.iter().zip(base).map(|(one, raw)| one / raw);
            let ratios: Vec<_> = ratios.collect();
            row(f, "  ratio", &ratios, 2)?;
            writeln!(f, "{}", line.verdict(&ratios))?;
        }
        Ok(())
    }
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
