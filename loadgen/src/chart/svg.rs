//! Charts as SVG: lines over time, and horizontal bars in groups. They stand within a page or, with [`standalone`], on their own.
//!
//! Colours and sizes are classes of [`STYLE`], which follows the reader's light or dark and grows the text where the chart is drawn
//! small. A line is known by the label at its end and by its dash, not by colour alone. Everything that comes from outside is escaped.

use std::fmt::Write;

use super::axis::{self, Axis};
pub use super::axis::{Scale, Unit};

/// What the charts' classes look like.
pub const STYLE: &str = include_str!("style.css");

const WIDTH: f64 = 560.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 78.0;

/// Between two labels at the right edge, also where the text is grown.
const LABEL_APART: f64 = 17.0;

/// A character in the grown text, generously.
const CHARACTER: f64 = 8.5;

/// Text that is safe within an element or a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no way to write the others.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The chart with its style in it, to be a file of its own.
pub fn standalone(svg: &str) -> String {
    match svg.find('>') {
        Some(end) => format!("{}<style>{STYLE}</style>{}", &svg[..=end], &svg[end + 1..]),
        None => svg.to_owned(),
    }
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// Stands at its end.
    pub name: String,
    /// One for each `x`; a gap where nothing was measured.
    pub values: Vec<Option<f64>>,
    /// Colour and dash, 1 to 6.
    pub style: u8,
    /// Measured seldom, so the line goes on over what looks like gaps.
    pub sparse: bool,
}

/// A stretch of time with a name.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Shown if there is room, else its number.
    pub name: String,
    /// Seconds.
    pub from: f64,
    /// Seconds.
    pub to: f64,
}

/// Lines over time.
#[derive(Clone, Debug)]
pub struct LineChart<'a> {
    /// Names it, also for those who don't see it. No two on a page are alike.
    pub title: &'a str,
    /// What it shows, in a sentence.
    pub about: &'a str,
    /// Of all lines.
    pub unit: Unit,
    /// Of the values.
    pub scale: Scale,
    /// Seconds, ascending.
    pub x: &'a [f64],
    /// Where the time axis ends, seconds.
    pub until: f64,
    /// The lines.
    pub lines: Vec<Line>,
    /// What went on.
    pub marks: &'a [Mark],
}

/// Begins a chart: the element, and what is read aloud.
fn open(out: &mut String, class: &str, height: f64, title: &str, about: &str) -> std::fmt::Result {
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart {class}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{0}: {1}\"><title>{0}</title><desc>{1}</desc>",
        escape(title),
        escape(about)
    )
}

/// A coordinate with a tenth of a unit.
fn tenth(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

impl LineChart<'_> {
    const HEIGHT: f64 = 226.0;
    const TOP: f64 = 26.0;
    const BOTTOM: f64 = 28.0;

    /// There is something to see.
    pub fn has_values(&self) -> bool {
        self.values().next().is_some()
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        let values = self.lines.iter().flat_map(|line| &line.values);
        values.filter_map(|&value| value.filter(|value| value.is_finite()))
    }

    /// Draws it.
    pub fn svg(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _infallible = self.write(&mut out);
        out
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.until.max(1e-3)).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(axis: &Axis, value: f64) -> f64 {
        Self::HEIGHT - Self::BOTTOM - axis.at(value) * (Self::HEIGHT - Self::BOTTOM - Self::TOP)
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let axis = Axis::covering(self.values(), self.scale, self.unit, 5);
        open(out, "lines", Self::HEIGHT, self.title, self.about)?;
        self.write_marks(out)?;
        for &tick in &axis.ticks {
            let y = Self::y(&axis, tick);
            write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {0}H{1}\"/><text class=\"tick end\" x=\"{2}\" y=\"{3}\">{4}</text>",
                tenth(y),
                WIDTH - RIGHT,
                LEFT - 7.0,
                tenth(y + 4.0),
                axis.label(tick)
            )?;
        }
        self.write_times(out)?;
        for line in &self.lines {
            write!(out, "<path class=\"line s{}\" d=\"", line.style)?;
            self.write_path(&axis, line, out)?;
            out.push_str("\"/>");
            self.write_dots(&axis, line, out)?;
        }
        for (line, y) in self.labels(&axis) {
            write!(
                out,
                "<text class=\"label s{}\" x=\"{}\" y=\"{}\">{}</text>",
                line.style,
                WIDTH - RIGHT + 6.0,
                tenth(y + 4.0),
                escape(&line.name)
            )?;
        }
        out.push_str("</svg>");
        Ok(())
    }

    /// Bands behind the lines, every other one shaded, each with its name above if that fits.
    fn write_marks(&self, out: &mut String) -> std::fmt::Result {
        let height = Self::HEIGHT - Self::BOTTOM - Self::TOP;
        let mut free_from = LEFT;
        for (index, mark) in self.marks.iter().enumerate() {
            let (from, to) = (self.x(mark.from), self.x(mark.to.min(self.until)));
            let name = escape(&mark.name);
            write!(
                out,
                "<rect class=\"phase{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{height}\"><title>{name}</title></rect>",
                if index % 2 == 0 { "" } else { " odd" },
                tenth(from),
                Self::TOP,
                tenth((to - from).max(0.0)),
            )?;
            let number = (index + 1).to_string();
            let fitting = [name.as_str(), &number].into_iter().find(|text| {
                to - from.max(free_from) >= text.chars().count() as f64 * CHARACTER + 3.0
            });
            if let Some(text) = fitting {
                write!(
                    out,
                    "<text class=\"phase-name\" x=\"{}\" y=\"{}\">{text}</text>",
                    tenth(from + 3.0),
                    Self::TOP - 7.0
                )?;
                free_from = from + text.chars().count() as f64 * CHARACTER;
            }
        }
        Ok(())
    }

    fn write_times(&self, out: &mut String) -> std::fmt::Result {
        let step = axis::time_step(self.until, 6);
        let mut seconds = 0.0;
        while seconds <= self.until * 1.000_001 {
            let x = self.x(seconds);
            let y = Self::HEIGHT - Self::BOTTOM;
            write!(
                out,
                "<path class=\"axis\" d=\"M{0} {y}v4\"/><text class=\"tick mid\" x=\"{0}\" y=\"{1}\">{2}</text>",
                tenth(x),
                Self::HEIGHT - 8.0,
                axis::time(seconds, self.until)
            )?;
            seconds += step.max(1e-3);
        }
        write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {0}H{1}\"/>",
            Self::HEIGHT - Self::BOTTOM,
            WIDTH - RIGHT
        )
    }

    fn write_path(&self, axis: &Axis, line: &Line, out: &mut String) -> std::fmt::Result {
        let mut pen_down = false;
        for (&seconds, value) in self.x.iter().zip(&line.values) {
            let Some(value) = value.filter(|value| value.is_finite()) else {
                pen_down &= line.sparse;
                continue;
            };
            let (x, y) = (tenth(self.x(seconds)), tenth(Self::y(axis, value)));
            write!(out, "{}{x} {y}", if pen_down { 'L' } else { 'M' })?;
            pen_down = true;
        }
        Ok(())
    }

    /// Values that have gaps on both sides: lines of no length, which round ends make dots.
    fn write_dots(&self, axis: &Axis, line: &Line, out: &mut String) -> std::fmt::Result {
        let value = |at: usize| line.values.get(at).copied().flatten();
        let mut dots = String::new();
        for (at, &seconds) in self.x.iter().enumerate() {
            let alone = at
                .checked_sub(1)
                .is_none_or(|before| value(before).is_none())
                && value(at + 1).is_none();
            if let Some(value) = value(at).filter(|value| alone && value.is_finite()) {
                let (x, y) = (tenth(self.x(seconds)), tenth(Self::y(axis, value)));
                write!(dots, "M{x} {y}h0")?;
            }
        }
        if !dots.is_empty() {
            write!(out, "<path class=\"dots s{}\" d=\"{dots}\"/>", line.style)?;
        }
        Ok(())
    }

    /// Labels at the height of each line's last value, moved apart where they would touch.
    fn labels(&self, axis: &Axis) -> Vec<(&Line, f64)> {
        let mut labels: Vec<(&Line, f64)> = self
            .lines
            .iter()
            .filter_map(|line| {
                let last = line.values.iter().rev().flatten().find(|v| v.is_finite())?;
                Some((line, Self::y(axis, *last)))
            })
            .collect();
        labels.sort_by(|a, b| a.1.total_cmp(&b.1));
        let bottom = Self::HEIGHT - Self::BOTTOM;
        let mut above = Self::TOP - LABEL_APART;
        for label in &mut labels {
            label.1 = label.1.max(above + LABEL_APART);
            above = label.1;
        }
        let mut below = bottom + LABEL_APART;
        for label in labels.iter_mut().rev() {
            label.1 = label.1.min(below - LABEL_APART);
            below = label.1;
        }
        labels
    }
}

/// Bars that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Stands above them.
    pub name: String,
    /// Name and value; a bar that couldn't be measured is said to be so.
    pub bars: Vec<(String, Option<f64>)>,
}

/// Horizontal bars in groups.
#[derive(Clone, Debug)]
pub struct BarChart<'a> {
    /// Names it, also for those who don't see it.
    pub title: &'a str,
    /// What it shows, in a sentence.
    pub about: &'a str,
    /// Of all bars.
    pub unit: Unit,
    /// Of the values. On a logarithmic one bars begin at the reference, or at the least value.
    pub scale: Scale,
    /// The groups.
    pub groups: Vec<Group>,
    /// A line across, with its name: what all are compared with.
    pub reference: Option<(&'a str, f64)>,
    /// The bar of this name stands out.
    pub ours: &'a str,
}

impl BarChart<'_> {
    const ROW: f64 = 21.0;
    const HEAD: f64 = 30.0;
    const NAMES: f64 = 112.0;
    const VALUES: f64 = 66.0;

    /// Draws it.
    pub fn svg(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _infallible = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let measured = self.groups.iter().flat_map(|group| &group.bars);
        let measured = measured.filter_map(|(_, value)| *value);
        let all = measured.chain(self.reference.map(|(_, value)| value));
        let axis = Axis::covering(all, self.scale, self.unit, 5);
        let rows: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let top = if self.reference.is_some() { 22.0 } else { 6.0 };
        let bottom = top + self.groups.len() as f64 * Self::HEAD + rows as f64 * Self::ROW;
        open(out, "bars", bottom + 26.0, self.title, self.about)?;
        let x = |value: f64| Self::NAMES + axis.at(value) * (WIDTH - Self::NAMES - Self::VALUES);
        for &tick in &axis.ticks {
            write!(
                out,
                "<path class=\"grid\" d=\"M{0} {top}V{bottom}\"/><text class=\"tick mid\" x=\"{0}\" y=\"{1}\">{2}</text>",
                tenth(x(tick)),
                bottom + 17.0,
                axis.label(tick)
            )?;
        }
        if let Some((name, value)) = self.reference {
            write!(
                out,
                "<path class=\"reference\" d=\"M{0} {top}V{bottom}\"/><text class=\"phase-name\" x=\"{0}\" y=\"{1}\">{2}</text>",
                tenth(x(value)),
                top - 7.0,
                escape(name)
            )?;
        }
        let mut y = top;
        for group in &self.groups {
            write!(
                out,
                "<text class=\"group\" x=\"0\" y=\"{}\">{}</text>",
                y + Self::HEAD - 8.0,
                escape(&group.name)
            )?;
            y += Self::HEAD;
            for (name, value) in &group.bars {
                self.write_bar(out, y, name, *value, &x)?;
                y += Self::ROW;
            }
        }
        out.push_str("</svg>");
        Ok(())
    }

    fn write_bar(
        &self,
        out: &mut String,
        y: f64,
        name: &str,
        value: Option<f64>,
        x: &dyn Fn(f64) -> f64,
    ) -> std::fmt::Result {
        let ours = if name == self.ours { " ours" } else { "" };
        let end = value.map_or(Self::NAMES, x);
        let shown = value.map_or("not measured".into(), |value| self.unit.show(value));
        write!(
            out,
            "<text class=\"name end{ours}\" x=\"{0}\" y=\"{1}\">{2}</text><rect class=\"bar{ours}\" x=\"{3}\" y=\"{4}\" width=\"{5}\" \
             height=\"{6}\" rx=\"1.5\"/><text class=\"value{ours}\" x=\"{7}\" y=\"{1}\">{shown}</text>",
            Self::NAMES - 8.0,
            y + 14.0,
            escape(name),
            Self::NAMES,
            y + 3.0,
            tenth((end - Self::NAMES).max(if value.is_some() { 1.5 } else { 0.0 })),
            Self::ROW - 6.0,
            tenth(end + 6.0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart<'a>(x: &'a [f64], lines: Vec<Line>, marks: &'a [Mark]) -> LineChart<'a> {
        LineChart {
            title: "A <chart> & more",
            about: "\"quoted\"",
            unit: Unit::Micros,
            scale: Scale::Log,
            x,
            until: x.last().copied().unwrap_or(0.0),
            lines,
            marks,
        }
    }

    #[test]
    fn charts_of_little_or_nothing_are_drawn() {
        assert!(!chart(&[], Vec::new(), &[]).has_values());
        assert!(chart(&[], Vec::new(), &[]).svg().ends_with("</svg>"));
        let one = Line {
            name: "<p99>".into(),
            values: vec![Some(5.0), None, Some(f64::NAN), Some(0.0)],
            style: 1,
            sparse: false,
        };
        let mark = Mark {
            name: "a'b".into(),
            from: 0.0,
            to: 9.0,
        };
        let svg = chart(&[1.0, 2.0, 3.0, 4.0], vec![one.clone(), one], &[mark]).svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("&lt;p99&gt;") && svg.contains("A &lt;chart&gt; &amp; more"));
        assert!(svg.contains("a&#39;b") && svg.contains("&quot;quoted&quot;"));
    }

    #[test]
    fn labels_do_not_touch() {
        let lines: Vec<Line> = (0..5)
            .map(|n| Line {
                name: n.to_string(),
                values: vec![Some(100.0 + f64::from(n))],
                style: 1,
                sparse: true,
            })
            .collect();
        let chart = chart(&[1.0], lines, &[]);
        let axis = Axis::covering(chart.values(), chart.scale, chart.unit, 5);
        let heights: Vec<f64> = chart.labels(&axis).iter().map(|(_, y)| *y).collect();
        assert!(
            heights
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= LABEL_APART - 1e-9)
        );
        assert!(heights[4] <= LineChart::HEIGHT && heights[0] >= 0.0);
    }

    #[test]
    fn bars_are_drawn_with_their_values() {
        let svg = BarChart {
            title: "CPU",
            about: "over the floor",
            unit: Unit::Ratio,
            scale: Scale::Linear,
            groups: vec![Group {
                name: "connect".into(),
                bars: vec![("ours".into(), Some(1.1)), ("other".into(), None)],
            }],
            reference: Some(("floor", 1.0)),
            ours: "ours",
        }
        .svg();
        assert!(svg.contains("1.1×") && svg.contains("not measured") && svg.contains("bar ours"));
        let alone = standalone(&svg);
        assert!(alone.starts_with("<svg ") && alone.contains("<style>"));
    }
}
