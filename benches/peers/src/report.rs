//! The table, and the lines for other programs.

use crate::figure::{Figure, Ours};
use crate::measure::Measured;

/// A comparison.
pub struct Row {
    pub name: String,
    pub what: String,
    pub ours: Measured,
    pub peer: String,
    pub theirs: Measured,
    pub unit: &'static str,
    /// The most that the ratio may be.
    pub target: Option<f64>,
}

impl Row {
    /// Of something that takes time.
    pub fn of_time(
        figure: Figure,
        what: Ours,
        ours: Measured,
        peer: &str,
        theirs: Measured,
    ) -> Self {
        Self {
            name: figure.to_string(),
            what: what.to_string(),
            ours,
            peer: peer.to_owned(),
            theirs,
            unit: "ns",
            target: figure.target(what, peer),
        }
    }

    fn ratio(&self) -> f64 {
        self.ours.median / self.theirs.median
    }

    fn markdown(&self) -> String {
        let target = self.target.map_or_else(String::new, |most| {
            let verdict = if self.ratio() <= most { "met" } else { "**missed**" };
            format!("≤ {most} {verdict}")
        });
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {:.0} % |",
            self.name,
            self.what,
            number(self.ours.median),
            self.peer,
            number(self.theirs.median),
            number(self.ratio()),
            target,
            self.unit,
            self.ours.noise.max(self.theirs.noise) * 100.0
        )
    }

    fn json(&self) -> String {
        // A name holds nothing that would have to be escaped. What is divided by nothing is no
        // number of JSON's.
        let json = |value: f64| if value.is_finite() { format!("{value}") } else { "null".into() };
        format!(
            r#"{{"name":"{}","ours":{},"peer":"{}","theirs":{},"ratio":{},"unit":"{}"}}"#,
            self.name,
            json(self.ours.median),
            self.peer,
            json(self.theirs.median),
            json(self.ratio()),
            self.unit
        )
    }
}

/// Three digits that tell something.
fn number(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => String::from("-"),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// What is printed: rows as they come, and last what was skipped.
pub struct Report {
    json: bool,
    begun: bool,
    notes: Vec<Note>,
}

/// Who was not measured in which figures, and why.
struct Note {
    what: Vec<String>,
    who: String,
    why: String,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self { json, begun: false, notes: Vec::new() }
    }

    pub fn row(&mut self, row: &Row) {
        if self.json {
            println!("{}", row.json());
            return;
        }
        if !self.begun {
            println!(
                "| figure | stolon's | ours | peer | theirs | ratio | target | unit | noise |"
            );
            println!("|---|---|---|---|---|---|---|---|---|");
            self.begun = true;
        }
        println!("{}", row.markdown());
    }

    /// Somebody was not measured.
    pub fn skipped(&mut self, what: &str, who: &str, why: &str) {
        if self.json {
            eprintln!("{what}: {who} skipped: {why}");
        }
        let same = |note: &&mut Note| note.who == who && note.why == why;
        match self.notes.iter_mut().find(same) {
            Some(note) => note.what.push(what.to_owned()),
            None => self.notes.push(Note {
                what: vec![what.to_owned()],
                who: who.to_owned(),
                why: why.to_owned(),
            }),
        }
    }

    pub fn finish(&self) {
        if self.json {
            return;
        }
        if !self.notes.is_empty() {
            println!("\nSkipped:\n");
        }
        for Note { what, who, why } in &self.notes {
            println!("- {who}: {why} ({})", what.join(", "));
        }
    }
}
