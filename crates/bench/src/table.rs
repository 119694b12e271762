//! The table of a run, for a terminal and for the README.

use crate::report::{median, Limit, Line, Run};

const HEAD: [&str; 6] = ["what", "ours", "peer", "ratio", "bar", "holds"];

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

/// The table in Markdown, and what is to be said about it.
pub fn for_markdown(run: &Run) -> String {
    let mut text = format!("| {} |\n|{}\n", HEAD.join(" | "), " --- |".repeat(HEAD.len()));
    for line in &run.lines {
        text += &format!("| {} |\n", cells(line).map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    format!("{text}{}\n{}\n", notes(run), conclusion(run))
}

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

/// The bar with its direction.
pub fn bar(limit: Limit) -> String {
    match limit {
        Limit::None => "-".into(),
        Limit::AtLeast(bar) => format!("at least {bar}"),
        Limit::AtMost(bar) => format!("at most {bar}"),
    }
}

fn grouped(value: f64) -> String {
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
    let with_unit = |samples: &[f64]| match median(samples) {
        Some(median) => format!("{} {}", number(median), line.unit),
        None => "not measured".into(),
    };
    let (peer, ratio) = match &line.peer {
        Some(peer) => (
            format!("{} ({})", with_unit(&peer.samples), peer.name),
            line.judged().map_or("-".into(), number),
        ),
        None => ("-".into(), "-".into()),
    };
    let holds = match line.holds() {
        None => "-",
        Some(true) => "yes",
        Some(false) => "NO",
    };
    let what = format!("{}. {}", line.bar, line.what);
    [what, with_unit(&line.ours), peer, ratio, bar(line.limit), holds.into()]
}

fn aligned(cells: &[String; 6], widths: &[usize; 6]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:<width$}"));
    let line = padded.collect::<Vec<_>>().join("  ");
    format!("{}\n", line.trim_end())
}

fn notes(run: &Run) -> String {
    let noted = run.lines.iter().filter_map(|line| Some((line, line.note.as_ref()?)));
    let notes: String = noted
        .map(|(line, note)| format!("- {}. {}: {note}\n", line.bar, line.what))
        .collect();
    if notes.is_empty() {
        notes
    } else {
        format!("\n{notes}")
    }
}

/// How many bars hold, and which do not.
fn conclusion(run: &Run) -> String {
    let (bars, missed) = run.judgement();
    let mut text = format!("{} of {bars} bars hold.", bars - missed.len());
    if !missed.is_empty() {
        text += " Missed:\n";
    }
    for line in missed {
        let judged = line.judged().map_or("not measured".into(), number);
        text += &format!("\n- {}. {}: {judged}, bar {}", line.bar, line.what, bar(line.limit));
    }
    text
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
            commit: "0123456789".into(),
            date: "2026-01-02 03:04".into(),
        };
        let gets = vec![3_456_789.0, 3_000_000.0, 3_600_000.0];
        let peer = vec![1_000_000.0, 1_000_000.0, 1_000_000.0];
        let lines = vec![
            Line::against(1, "get, 64 callers", "/s", gets, "Redis", peer, Limit::AtLeast(1.5)),
            Line::alone(8, "growth", "times", vec![1.3], Limit::AtMost(1.25)).note("a|b"),
            Line::alone(9, "size", "MB", vec![0.0123], Limit::None),
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
        assert!(lines[0].starts_with("what                ours          peer"), "{text}");
        assert_eq!(
            lines[2],
            "1. get, 64 callers  3,460,000 /s  1,000,000 /s (Redis)  3.46   at least 1.5  yes"
        );
        assert!(
            text.contains("1 of 2 bars hold. Missed:\n\n- 8. growth: 1.30, bar at most 1.25\n"),
            "{text}"
        );
    }

    #[test]
    fn markdown_has_a_row_per_line() {
        let text = for_markdown(&run());
        assert!(
            text.starts_with("| what | ours | peer | ratio | bar | holds |\n| --- |"),
            "{text}"
        );
        assert!(
            text.contains("\n| 8. growth | 1.30 times | - | - | at most 1.25 | NO |\n"),
            "{text}"
        );
        assert!(text.contains("\n- 8. growth: a|b\n"), "{text}");
    }
}
