//! The plan as text.

use super::{Plan, When};
use crate::api::v1alpha1::TransferData;
use crate::plugin::screen::{Cell, Screen, count};

/// Names in a list that is not the answer itself.
const NAMED: usize = 10;

impl Plan {
    /// As a person reads it: every device that moves is named.
    pub fn text(&self) -> String {
        let mut screen = Screen::default();
        for change in &self.changes {
            screen.line(change);
        }
        for note in &self.notes {
            screen.line(format!("note: {note}"));
        }
        let of = count(self.registrations, "registration");
        if self.moves.is_empty() {
            screen.heading(&format!("No device of {of} would move"));
        } else {
            let devices = count(self.moves.len(), "device");
            screen.heading(&format!("{devices} of {of} would move"));
            self.table(&mut screen);
        }
        let anyway = self.moves.iter().filter(|one| one.anyway).count();
        if anyway > 0 {
            screen.line(format!(
                "\n{anyway} of them would move without this manifest, too."
            ));
        }
        let lists = [
            (
                "would move as things are, and would stay",
                &self.stay_after_all,
            ),
            (
                "would start from the initial twin where they are, each time they register",
                &self.resets,
            ),
            (
                "would be refused, because their Enrollment is disabled",
                &self.refused,
            ),
        ];
        for (what, whom) in lists {
            if !whom.is_empty() {
                let devices = count(whom.len(), "device");
                screen.line(format!("\n{devices} {what}: {}", some(whom)));
            }
        }
        for (reason, number) in &self.held_back {
            let devices = count(*number, "device");
            screen.line(format!(
                "\n{devices} would stay for now although wanted elsewhere: {reason}"
            ));
        }
        if self.busy > 0 {
            let devices = count(self.busy, "device");
            screen.line(format!(
                "\n{devices} with an operation under way, judged after it has ended"
            ));
        }
        screen.next("kubectl apply -f FILE");
        screen.into_text()
    }

    fn table(&self, screen: &mut Screen) {
        let several = self
            .moves
            .iter()
            .any(|one| one.namespace != self.moves[0].namespace);
        let row = |one: &super::Move| {
            let name = if several {
                format!("{}/{}", one.namespace, one.registration)
            } else {
                one.registration.clone()
            };
            let data = match one.data {
                TransferData::Migrate => "moves along",
                TransferData::Initial => "initial",
            };
            let when = match one.when {
                When::NextCheckIn => "next check-in",
                When::AtOnce => "at once",
            };
            [&name, &one.from, &one.to, data, when, &one.why]
                .map(Cell::plain)
                .into()
        };
        let rows: Vec<Vec<Cell>> = self.moves.iter().map(row).collect();
        screen.table(&["DEVICE", "FROM", "TO", "TWIN", "WHEN", "WHY"], &rows);
    }
}

fn some(names: &[String]) -> String {
    let named = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!("{named} and {more} more"),
        _ => named,
    }
}
