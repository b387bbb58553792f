//! Writes the figures down, for programs and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Figure;

/// Writes `bench.json`, `bench.md` and `bench.svg` into `dir`. Figures of an earlier run that weren't measured this
/// time are dropped: a report holds one run.
pub fn write(dir: &Path, figures: &[Figure]) -> Result<()> {
    let by_key: BTreeMap<&str, Value> =
        figures.iter().map(|figure| Ok((figure.key, serde_json::to_value(figure)?))).collect::<Result<_>>()?;
    let files = [
        ("bench.json", serde_json::to_string_pretty(&by_key)? + "\n"),
        ("bench.md", markdown(figures)),
        ("bench.svg", plot(figures)),
    ];
    for (name, text) in files {
        std::fs::write(dir.join(name), text).with_context(|| format!("write {}", dir.join(name).display()))?;
    }
    Ok(())
}

/// The table for people.
pub fn markdown(figures: &[Figure]) -> String {
    let mut text = String::from(
        "# Figures\n\n![share of each goal that is used](bench.svg)\n\n\
         | key | median | p95 | n | goal | met | others | how |\n\
         | --- | ---: | ---: | ---: | ---: | --- | --- | --- |\n",
    );
    for figure in figures {
        let goal = figure.goal.map_or("—".into(), |goal| {
            format!("{} {} {}", if figure.at_least { "≥" } else { "≤" }, number(goal), figure.unit)
        });
        let met = match figure.met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let others: Vec<String> =
            figure.peers.iter().map(|(peer, value)| format!("{peer} {}", number(*value))).collect();
        let _ = writeln!(
            text,
            "| `{}` | {} {} | {} | {} | {goal} | {met} | {} | {} |",
            figure.key,
            number(figure.value),
            figure.unit,
            number(figure.p95),
            figure.samples.len(),
            others.join(", "),
            figure.how
        );
    }
    text
}

fn number(value: f64) -> String {
    let digits = if value.abs() >= 100.0 || value.fract() == 0.0 { 0 } else { 2 };
    format!("{value:.digits$}")
}

/// A bar for each figure with a goal: how much of the goal is used. The line is the goal.
fn plot(figures: &[Figure]) -> String {
    let with_goal: Vec<&Figure> = figures.iter().filter(|figure| figure.goal.is_some()).collect();
    let height = 40 + 28 * with_goal.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (row, figure) in with_goal.iter().enumerate() {
        let Some(goal) = figure.goal else { continue };
        let share = if figure.at_least { goal / figure.value } else { figure.value / goal };
        let y = 20 + 28 * row;
        let colour = if figure.met() == Some(true) { "#2a7f62" } else { "#c0392b" };
        let width = (share * 250.0).clamp(1.0, 430.0);
        let _ = writeln!(
            svg,
            "<text x=\"240\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"250\" y=\"{y}\" width=\"{width:.0}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"{}\">{:.0} %</text>",
            y + 14,
            figure.key,
            250.0 + width + 6.0,
            y + 14,
            share * 100.0
        );
    }
    let _ = writeln!(svg, "<line x1=\"500\" y1=\"10\" x2=\"500\" y2=\"{}\" stroke=\"black\"/>", height - 14);
    svg + "<text x=\"500\" y=\"10\" text-anchor=\"middle\" font-size=\"11\">goal</text>\n</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_shown_as_missed() {
        let mut figure = Figure::new("boot_api_over_floor_ms", "ms", Some(350.0), "icount", vec![400.0, 420.0, 380.0]);
        figure.peers = [("b".to_owned(), 1.25), ("a".to_owned(), 2000.0)].into();
        let table = markdown(&[figure]);
        assert!(table.contains("| 400 ms |") && table.contains("**no** | a 2000, b 1.25 |"), "{table}");
    }
}
