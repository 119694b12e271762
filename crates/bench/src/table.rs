//! The table of a run, for a terminal and for the documents.

use crate::report::{median, Line, Run, Target};

const HEAD: [&str; 6] = ["what", "ours", "baseline", "ratio", "target", "met"];

/// The table in aligned columns, and what is to be said about it.
pub fn for_terminal(run: &Run) -> String {
    let rows: Vec<[String; 6]> = run.lines.iter().map(cells).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = aligned(&HEAD.map(str::to_owned), &widths);
    text += &aligned(&widths.map(|width| "-".repeat(width)), &widths);
    for row in &rows {
        text += &aligned(row, &widths);
    }
    text += &notes(run);
    format!("{text}\n{}\n\n{}\n", run.machine.sentence(), conclusion(run))
}

/// Some lines as a table in Markdown, and what is to be said about them. They stand below the heading of their section.
pub fn for_markdown(lines: &[&Line]) -> String {
    let mut text = format!("| {} |\n|{}\n", HEAD.join(" | "), " --- |".repeat(HEAD.len()));
    for line in lines {
        let mut cells = cells(line);
        cells[0].clone_from(&line.what);
        text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    let noted = lines.iter().filter_map(|line| Some((line, line.note.as_ref()?)));
    let notes: String = noted.map(|(line, note)| format!("- {}: {note}\n", line.what)).collect();
    match notes.is_empty() {
        true => text,
        false => format!("{text}\n{notes}"),
    }
}

/// In the place of a figure that a stored run lacks.
pub const NOT_MEASURED: &str = "not measured in the stored run";

/// A number with three digits that count, and its thousands apart.
pub fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    // Digits after the point so that three count: -1 for thousands, 2 for 1.23, 4 for 0.0123.
    let decimals = 2 - value.abs().log10().floor() as i32;
    if decimals >= 0 {
        return format!("{value:.*}", decimals.min(9) as usize);
    }
    let step = 10f64.powi(-decimals);
    grouped((value / step).round() * step)
}

/// The target with its direction.
pub fn target(target: Target) -> String {
    match target {
        Target::None => "-".into(),
        Target::AtLeast(least) => format!("at least {least}"),
        Target::AtMost(most) => format!("at most {most}"),
    }
}

/// A whole number with commas between thousands.
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        text.insert(0, '-');
    }
    text
}

fn cells(line: &Line) -> [String; 6] {
    let ratio = line.baseline.as_ref().and_then(|_| line.result());
    let met = match line.met() {
        None => "-",
        Some(true) => "yes",
        Some(false) => "NO",
    };
    let what = format!("{}. {}", line.section, line.what);
    [
        what,
        ours(line),
        baseline(line),
        ratio.map_or("-".into(), number),
        target(line.target),
        met.into(),
    ]
}

/// Our figure with its unit.
pub fn ours(line: &Line) -> String {
    with_unit(&line.ours, &line.unit)
}

/// The figure of the baseline with its unit, and whose it is.
pub fn baseline(line: &Line) -> String {
    match &line.baseline {
        Some(baseline) => format!("{} ({})", with_unit(&baseline.samples, &line.unit), baseline.name),
        None => "-".into(),
    }
}

fn with_unit(samples: &[f64], unit: &str) -> String {
    median(samples).map_or("not measured".into(), |median| format!("{} {unit}", number(median)))
}

fn aligned(cells: &[String; 6], widths: &[usize; 6]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:<width$}"));
    let line = padded.collect::<Vec<_>>().join("  ");
    format!("{}\n", line.trim_end())
}

fn notes(run: &Run) -> String {
    let noted = run.lines.iter().filter_map(|line| Some((line, line.note.as_ref()?)));
    let notes: String = noted
        .map(|(line, note)| format!("- {}. {}: {note}\n", line.section, line.what))
        .collect();
    if notes.is_empty() {
        notes
    } else {
        format!("\n{notes}")
    }
}

/// How many targets are met, and which are not.
pub fn conclusion(run: &Run) -> String {
    let (_, missed) = run.targets();
    let mut text = targets(run);
    if !missed.is_empty() {
        text += " Missed:\n";
    }
    for line in missed {
        let result = line.result().map_or("not measured".into(), number);
        text += &format!(
            "\n- {}. {}: {result}, target {}",
            line.section,
            line.what,
            target(line.target)
        );
    }
    text
}

/// How many targets are met.
pub fn targets(run: &Run) -> String {
    let (targets, missed) = run.targets();
    format!("{} of {targets} targets are met.", targets - missed.len())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::machine::Machine;

    /// A made-up run of a made-up machine.
    pub fn run() -> Run {
        let machine = Machine {
            cpu: "Abacus 9".into(),
            cores: 2,
            memory_gib: 7.8,
            kernel: "Linux 6.1".into(),
            os: "Debian 12".into(),
            rustc: "1.95.0".into(),
            nats_server: "2.15.1".into(),
            redis_server: "7.0.15".into(),
            valkey_server: None,
            commit: "0123456789".into(),
            date: "2026-01-02 03:04".into(),
        };
        let gets = vec![3_456_789.0, 3_000_000.0, 3_600_000.0];
        let baseline = vec![1_000_000.0, 1_000_000.0, 1_000_000.0];
        let lines = vec![
            Line::against(
                1,
                "get, 64 callers",
                "/s",
                gets,
                "Redis",
                baseline,
                Target::AtLeast(1.5),
            ),
            Line::alone(8, "growth", "times", vec![1.3], Target::AtMost(1.25)).note("a|b"),
            Line::alone(9, "size", "MB", vec![0.0123], Target::None),
        ];
        Run {
            command: "make bench-quick".into(),
            machine,
            lines,
            series: Vec::new(),
        }
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        let shown = [0.0, 0.01234, 1.0, 12.34, 999.0, 1234.0, 3_456_789.0, -1234.0].map(number);
        let expected = ["0", "0.0123", "1.00", "12.3", "999", "1,230", "3,460,000", "-1,230"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_terminal_shows_aligned_columns_and_what_was_missed() {
        let text = for_terminal(&run());
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("what                ours          baseline"),
            "{text}"
        );
        assert_eq!(
            lines[2],
            "1. get, 64 callers  3,460,000 /s  1,000,000 /s (Redis)  3.46   at least 1.5  yes"
        );
        assert!(
            text.contains("1 of 2 targets are met. Missed:\n\n- 8. growth: 1.30, target at most 1.25\n"),
            "{text}"
        );
    }

    #[test]
    fn markdown_has_a_row_per_line() {
        let run = run();
        let text = for_markdown(&run.lines.iter().collect::<Vec<_>>());
        assert!(
            text.starts_with("| what | ours | baseline | ratio | target | met |\n| --- |"),
            "{text}"
        );
        assert!(
            text.contains("\n| growth | 1.30 times | - | - | at most 1.25 | NO |\n"),
            "{text}"
        );
        assert!(text.contains("\n- growth: a|b\n"), "{text}");
    }
}
