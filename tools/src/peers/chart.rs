//! The comparison as a chart: for each figure a group of bars, one a broker, as long as its ratio to the floor on a logarithmic scale.
//!
//! Text and lines take their colours from the reader's light or dark theme; the bars' colours are of middle lightness and read on both.

use std::fmt::Write;

use super::{COMPARED, Compared};

const WIDTH: f64 = 760.0;
/// Where the bars begin.
const LEFT: f64 = 170.0;
/// What is kept for the figure behind the longest bar.
const RIGHT: f64 = 60.0;
const TOP: f64 = 46.0;
const BAR: f64 = 16.0;
const GAP: f64 = 18.0;

/// Bars, by broker after the floor.
const COLOURS: [&str; 6] = [
    "#2f81f7", "#d2893b", "#3f9e5f", "#b05cc8", "#c9565b", "#6e7f8d",
];

/// The whole file.
pub(super) fn svg(compared: &Compared) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _infallible = write(compared, &mut out);
    out
}

fn write(compared: &Compared, out: &mut String) -> std::fmt::Result {
    let brokers = compared.brokers.get(1..).unwrap_or_default();
    let ratio = |line, of| {
        compared
            .ratio(line, of)
            .filter(|ratio| ratio.is_finite() && *ratio > 0.0)
    };
    let most = COMPARED
        .iter()
        .flat_map(|&(_, of)| brokers.iter().filter_map(move |line| ratio(line, of)))
        .fold(2.0, f64::max);
    // Half of the floor's cost to the left, the next power of two to the right.
    let (low, high) = (-1.0, most.log2().ceil());
    let x =
        |ratio: f64| LEFT + (ratio.log2().max(low) - low) / (high - low) * (WIDTH - LEFT - RIGHT);
    let group = brokers.len() as f64 * BAR + GAP;
    let bottom = TOP + COMPARED.len() as f64 * group;
    let height = bottom + 50.0;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>CPU of brokers as a ratio to a bare epoll server</title>\n\
         <style>text{{fill:#1f2328}}.grid{{stroke:#d1d9e0}}.one{{stroke:#59636e}}\
         @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.grid{{stroke:#3d444d}}.one{{stroke:#9198a1}}}}</style>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\" font-weight=\"600\">CPU as a ratio to the floor (a bare epoll server), logarithmic; shorter is better</text>"
    )?;
    for step in low as i32..=high as i32 {
        let (value, class) = (
            f64::from(step).exp2(),
            if step == 0 { "one" } else { "grid" },
        );
        let at = x(value);
        writeln!(
            out,
            "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>",
            TOP - 8.0,
            bottom + 14.0
        )?;
    }
    for (index, &(name, of)) in COMPARED.iter().enumerate() {
        let top = TOP + index as f64 * group;
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0,
            top + (group - GAP) / 2.0 + 4.0
        )?;
        for (place, line) in brokers.iter().enumerate() {
            let y = top + place as f64 * BAR;
            let text = y + BAR - 4.0;
            match ratio(line, of) {
                Some(ratio) => writeln!(
                    out,
                    "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\" fill=\"{}\"/>\
                     <text x=\"{:.1}\" y=\"{text:.1}\">{ratio:.2}{}</text>",
                    x(ratio) - LEFT,
                    BAR - 3.0,
                    COLOURS[place % COLOURS.len()],
                    x(ratio) + 5.0,
                    if line.slower > 1 { " *" } else { "" }
                )?,
                None => writeln!(
                    out,
                    "<text x=\"{:.1}\" y=\"{text:.1}\">didn't keep up</text>",
                    LEFT + 5.0
                )?,
            }
        }
    }
    let mut at = LEFT;
    for (place, line) in brokers.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let mark = if line.slower > 1 { " *" } else { "" };
        writeln!(
            out,
            "<rect x=\"{at:.1}\" y=\"{:.1}\" width=\"11\" height=\"11\" rx=\"2\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}{mark}</text>",
            bottom + 27.0,
            at + 16.0,
            bottom + 37.0,
            line.name
        )?;
        at += 30.0 + 7.5 * (line.name.len() + mark.len()) as f64;
    }
    writeln!(out, "</svg>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ratio_is_a_bar_and_what_is_not_there_is_said() {
        let text = svg(&Compared::made_up());
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        // Four of Stillwire, two of the one that stopped, and three in the legend.
        assert_eq!(text.matches("<rect").count(), 4 + 2 + 3, "{text}");
        assert_eq!(text.matches("didn't keep up").count(), 2 + 4);
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }
}
