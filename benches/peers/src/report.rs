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

/// How a report is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A table as in Markdown, and last what was skipped.
    Table,
    /// A line of JSON for each row.
    Json,
    /// What [`Report::include`] reads: rows of the table, and what was skipped as it comes.
    Part,
}

/// What is printed.
pub struct Report {
    form: Form,
    begun: bool,
    notes: Vec<Note>,
}

/// Begins the line of a part that tells of somebody who was skipped.
const SKIPPED: &str = "skipped";

/// Who was not measured in which figures, and why.
struct Note {
    what: Vec<String>,
    who: String,
    why: String,
}

impl Note {
    fn is_of(&self, what: &str, who: &str, why: &str) -> bool {
        self.who == who && self.why == why && self.what.iter().any(|one| one == what)
    }
}

impl Report {
    pub fn new(form: Form) -> Self {
        Self { form, begun: false, notes: Vec::new() }
    }

    pub fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    pub fn row(&mut self, row: &Row) {
        match self.form {
            Form::Table => self.table_row(&row.markdown()),
            Form::Json => println!("{}", row.json()),
            Form::Part => println!("{}", row.markdown()),
        }
    }

    fn table_row(&mut self, row: &str) {
        if !self.begun {
            println!(
                "| figure | stolon's | ours | peer | theirs | ratio | target | unit | noise |"
            );
            println!("|---|---|---|---|---|---|---|---|---|");
            self.begun = true;
        }
        println!("{row}");
    }

    /// Takes over a line of another process's report of a part.
    pub fn include(&mut self, line: &str) {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [SKIPPED, what, who, why] => self.skipped(what, who, why),
            _ if self.form == Form::Table => self.table_row(line),
            _ => println!("{line}"),
        }
    }

    /// Somebody was not measured.
    pub fn skipped(&mut self, what: &str, who: &str, why: &str) {
        match self.form {
            Form::Table => {}
            Form::Json => return eprintln!("{what}: {who} skipped: {why}"),
            Form::Part => return println!("{SKIPPED}\t{what}\t{who}\t{why}"),
        }
        if self.notes.iter().any(|note| note.is_of(what, who, why)) {
            return;
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
        if !self.notes.is_empty() {
            println!("\nSkipped:\n");
        }
        for Note { what, who, why } in &self.notes {
            println!("- {who}: {why} ({})", what.join(", "));
        }
    }
}
