//! The overview as text.

use super::{EnrollmentLine, HubLine, Move, Overview};
use crate::api::v1alpha1::RegistrationState;
use crate::plugin::finding::Standing;
use crate::plugin::screen::{Cell, Screen, ago, count, style_of};

/// Rows of a table; what is well and beyond is counted.
const ROWS: usize = 15;

impl Overview {
    /// As a person reads it.
    pub fn text(&self) -> String {
        let mut screen = Screen::default();
        let place = self.namespace.as_ref();
        let place = place.map_or("all namespaces".to_owned(), |it| format!("namespace {it}"));
        screen.line(format!("Rehome in {place}"));
        self.hub_table(&mut screen);
        self.enrollment_table(&mut screen);
        self.registration_line(&mut screen);
        self.moves(&mut screen);
        self.stuck_list(&mut screen);
        screen.next(&self.next);
        screen.into_text()
    }

    fn hub_table(&self, screen: &mut Screen) {
        screen.heading("Hubs");
        if self.hubs.is_empty() {
            return screen.line("  none: devices have nowhere to live; create an IoTHub");
        }
        let mut shown: Vec<&HubLine> = self.hubs.iter().collect();
        shown.sort_by_key(|hub| hub.standing);
        let row = |hub: &&HubLine| {
            let weight = if hub.cordoned {
                "cordoned".to_owned()
            } else {
                hub.weight.to_string()
            };
            vec![
                Cell::plain(self.named(&hub.namespace, &hub.name)),
                Cell::plain(&hub.host_name),
                ready(hub.standing),
                Cell::plain(&hub.reason),
                Cell::plain(hub.devices.to_string()),
                Cell::plain(weight),
            ]
        };
        let rows: Vec<_> = shown.iter().take(ROWS).map(row).collect();
        screen.table(
            &["NAME", "HOST", "READY", "REASON", "DEVICES", "WEIGHT"],
            &rows,
        );
        more(screen, shown.len());
    }

    fn enrollment_table(&self, screen: &mut Screen) {
        screen.heading("Enrollments");
        if self.enrollments.is_empty() {
            return screen.line("  none: no device may register; create an Enrollment");
        }
        let mut shown: Vec<&EnrollmentLine> = self.enrollments.iter().collect();
        // Those to look at first, then the large ones.
        shown.sort_by_key(|one| (one.standing, std::cmp::Reverse(one.devices)));
        let row = |one: &&EnrollmentLine| {
            vec![
                Cell::plain(self.named(&one.namespace, &one.name)),
                Cell::plain(one.registration_id.as_deref().unwrap_or("group")),
                Cell::plain(one.policy.as_deref().unwrap_or("")),
                ready(one.standing),
                Cell::plain(&one.reason),
                Cell::plain(one.devices.to_string()),
                Cell::plain(one.would_move.to_string()),
            ]
        };
        let rows: Vec<_> = shown.iter().take(ROWS).map(row).collect();
        let header = [
            "NAME",
            "FOR",
            "POLICY",
            "READY",
            "REASON",
            "DEVICES",
            "WOULD-MOVE",
        ];
        screen.table(&header, &rows);
        more(screen, shown.len());
    }

    fn registration_line(&self, screen: &mut Screen) {
        screen.heading("Registrations");
        let new = self.registrations.get("New").copied().unwrap_or(0);
        let states = [
            ("assigned", self.in_state(RegistrationState::Assigned)),
            ("assigning", self.in_state(RegistrationState::Assigning)),
            ("failed", self.in_state(RegistrationState::Failed)),
            ("disabled", self.in_state(RegistrationState::Disabled)),
            ("not taken up yet", new),
        ];
        let states: Vec<_> = states
            .iter()
            .filter(|(_, number)| *number > 0)
            .map(|(state, number)| format!("{number} {state}"))
            .collect();
        if states.is_empty() {
            return screen.line("  none: no device has registered yet");
        }
        screen.line(format!("  {} in all: {}", self.total(), states.join(", ")));
    }

    fn moves(&self, screen: &mut Screen) {
        if self.moving.count == 0 {
            return;
        }
        screen.heading(&format!("Moving: {}", count(self.moving.count, "device")));
        let row = |one: &Move| {
            vec![
                Cell::plain(self.named(&one.namespace, &one.registration)),
                Cell::plain(&one.from),
                Cell::plain(&one.to),
                Cell::plain(format!("{:?}", one.phase)),
                Cell::plain(&one.policy),
                Cell::plain(ago(one.since, self.at)),
            ]
        };
        let rows: Vec<_> = self.moving.oldest.iter().map(row).collect();
        screen.table(&["DEVICE", "FROM", "TO", "PHASE", "POLICY", "SINCE"], &rows);
        if self.moving.count > rows.len() {
            screen.line(format!(
                "  … and {} younger",
                self.moving.count - rows.len()
            ));
        }
    }

    fn stuck_list(&self, screen: &mut Screen) {
        if self.stuck.is_empty() {
            screen.heading("Nothing is stuck");
            return;
        }
        screen.heading("Stuck");
        let (red, plain) = (style_of(Standing::Stuck), "\u{1b}[0m");
        for group in &self.stuck {
            let finding = &group.oldest;
            let since = finding
                .since
                .map(|since| format!(" for {}", ago(since, self.at)));
            let object = match self.namespace {
                Some(_) => finding.object(),
                None => format!("{} in {}", finding.object(), finding.namespace),
            };
            let whose = match group.count {
                1 => object,
                number => format!("{object} and {} more", number - 1),
            };
            screen.line(format!(
                "  {whose}: {red}{}{plain}{}",
                finding.reason,
                since.unwrap_or_default()
            ));
            screen.line(format!("    cause: {}", finding.cause));
            screen.line(format!("    next:  {}", finding.next));
        }
    }

    /// With the namespace only where there are several.
    fn named(&self, namespace: &str, name: &str) -> String {
        match self.namespace {
            Some(_) => name.to_owned(),
            None => format!("{namespace}/{name}"),
        }
    }
}

fn ready(standing: Standing) -> Cell {
    let word = match standing {
        Standing::Fine => "yes",
        Standing::Stuck => "no",
        Standing::Working => "not yet",
        Standing::Disabled => "disabled",
    };
    Cell::verdict(word, standing)
}

fn more(screen: &mut Screen, total: usize) {
    if total > ROWS {
        screen.line(format!("  … and {} more", total - ROWS));
    }
}
