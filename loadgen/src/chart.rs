//! Small charts out of characters: a line over time, and bars; and larger ones as SVG.

pub mod axis;
pub mod svg;

const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A line over time, scaled from 0 to its peak. More values than `width` are joined by their peak.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let columns = values.len().min(width.max(1));
    let peak = values.iter().copied().fold(0.0, f64::max);
    (0..columns)
        .map(|column| {
            let (from, to) = (
                column * values.len() / columns,
                (column + 1) * values.len() / columns,
            );
            let value = values[from..to].iter().copied().fold(0.0, f64::max);
            if value <= 0.0 || peak <= 0.0 {
                return ' ';
            }
            STEPS[((value / peak * STEPS.len() as f64).ceil() as usize).clamp(1, STEPS.len()) - 1]
        })
        .collect()
}

/// A horizontal bar: `share` of `width` in eighths of a character. Something is never nothing.
pub fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    if eighths == 0 {
        return if share > 0.0 {
            "▏".into()
        } else {
            String::new()
        };
    }
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_scaled_to_their_peak() {
        assert_eq!(sparkline(&[0.0, 1.0, 4.0, 8.0], 10), " ▁▄█");
        assert_eq!(sparkline(&[1.0, 2.0, 0.0, 8.0], 2), "▂█");
        assert_eq!(sparkline(&[0.0, 0.0], 10), "  ");
        assert_eq!(sparkline(&[], 10), "");
    }

    #[test]
    fn bars_have_eighths() {
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(0.53, 4), "██▏");
        assert_eq!(bar(1e-9, 4), "▏");
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(7.0, 2), "██");
    }
}
