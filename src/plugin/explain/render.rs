//! The explanation as text.

use jiff::tz::TimeZone;

use super::{Explanation, Ranked};
use crate::plugin::finding::Standing;
use crate::plugin::screen::{Cell, Screen, ago, style_of};

impl Explanation {
    /// As a person reads it.
    pub fn text(&self) -> String {
        let mut screen = Screen::default();
        let finding = &self.finding;
        let style = style_of(finding.standing);
        let since = finding
            .since
            .map(|since| format!(" for {}", ago(since, self.at)));
        screen.line(format!(
            "{} in namespace {}: {}, {style}{}{style:#}{}",
            self.registration,
            finding.namespace,
            self.state,
            finding.reason,
            since.unwrap_or_default()
        ));
        screen.line(format!("  {}", finding.cause));
        self.home(&mut screen);
        self.reasons(&mut screen);
        screen.heading("When the device comes next");
        screen.line(format!("  {}", self.next_check_in));
        if let Some(trigger) = &self.trigger {
            screen.line(format!("  trigger {trigger}"));
        }
        screen.heading("History");
        let row = |past: &super::Past| {
            let at = past
                .at
                .to_zoned(TimeZone::UTC)
                .strftime("%Y-%m-%d %H:%M:%SZ");
            vec![
                Cell::plain(at.to_string()),
                Cell::plain(&past.reason),
                Cell::plain(&past.what),
            ]
        };
        let rows: Vec<_> = self.history.iter().map(row).collect();
        if rows.is_empty() {
            screen.line("  none");
        } else {
            screen.table(&["WHEN", "REASON", "WHAT"], &rows);
        }
        screen.next(&self.next);
        screen.into_text()
    }

    fn home(&self, screen: &mut Screen) {
        screen.heading("Where it is");
        match (&self.hub, &self.host_name) {
            (Some(hub), Some(host)) => {
                let device = self.device_id.as_ref();
                let device = device.map_or(String::new(), |id| format!(", as device {id}"));
                screen.line(format!("  at {hub} ({host}){device}"));
            }
            _ => screen.line("  nowhere yet"),
        }
        if let Some(open) = &self.moving {
            let since = ago(open.since, self.at);
            let phase = open.phase;
            if open.from == open.to {
                screen.line(format!("  being reset there for {since}: {phase:?}"));
            } else {
                let (from, to) = (&open.from, &open.to);
                screen.line(format!(
                    "  moving from {from} to {to} for {since}: {phase:?}"
                ));
            }
        }
        for host in &self.left_at {
            screen.line(format!("  something of it may be left at {host}"));
        }
    }

    fn reasons(&self, screen: &mut Screen) {
        screen.heading("Why there");
        let enrollment = self.enrollment.as_deref();
        let gone = "none: the one that it came through does not exist any more";
        screen.line(format!("  Enrollment  {}", enrollment.unwrap_or(gone)));
        if let Some(rule) = &self.rule {
            screen.line(format!("  Policy      {rule}"));
        }
        let mut label = "  Allocation  ";
        for (place, hub) in (1..).zip(&self.hubs) {
            screen.line(format!("{label}{place}. {}", describe(hub)));
            label = "              ";
        }
        if enrollment.is_some() && self.hubs.is_empty() {
            screen.line("  Allocation  no hub: the Enrollment matches none");
        }
    }
}

fn describe(hub: &Ranked) -> String {
    let red = style_of(Standing::Stuck);
    let weight = format!("{} (weight {})", hub.name, hub.weight);
    let available = if hub.available {
        String::new()
    } else {
        format!(", {red}takes no devices now{red:#}")
    };
    let home = if hub.home { ", its home" } else { "" };
    format!("{weight}{available}{home}")
}
