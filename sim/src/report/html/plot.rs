//! One chart: a sheet of SVG that stretches with the page, and around it, as text that does not stretch, the ticks
//! and the names of its series.
//!
//! The curves lie in a nested drawing of 1000 by 100 units that is pulled to the size of the sheet; strokes keep
//! their width. Everything else is placed in percent.

use super::markup::{coordinate, escaped};
use crate::report::scale::Scale;

/// A chart over time.
pub(super) struct Plot<'a> {
    pub(super) title: String,
    /// The unit, beside the title: `per second`.
    pub(super) note: &'a str,
    pub(super) across: &'a Scale,
    pub(super) up: Scale,
    /// From when to when the background is shaded, in seconds.
    pub(super) bands: &'a [(f64, f64)],
    /// The lowest series comes first.
    pub(super) layers: Vec<Layer>,
}

/// A series of a chart.
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) color: Color,
    pub(super) shape: Shape,
    /// The run and the series in which the script finds the values.
    pub(super) source: (usize, &'static str),
    /// How the script writes them.
    pub(super) unit: &'static str,
    /// The beginning of each step and the end of the last, in seconds: one more than there are values.
    pub(super) times: Vec<f64>,
    /// The values, one a step; `None` where there is none.
    pub(super) values: Vec<Option<f64>>,
    /// The series an area stands on; empty: the axis.
    pub(super) floor: Vec<f64>,
}

/// A series' colour: one of a palette that all kinds of colour vision tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Color {
    Ink,
    Blue,
    Vermilion,
    Green,
    Purple,
    Orange,
    Sky,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Area,
    Line,
    Dashed,
    Dotted,
    /// A line that jumps: for what is decided, not measured.
    Step,
}

impl Color {
    pub(super) fn class(self) -> &'static str {
        match self {
            Color::Ink => "ink",
            Color::Blue => "blue",
            Color::Vermilion => "vermilion",
            Color::Green => "green",
            Color::Purple => "purple",
            Color::Orange => "orange",
            Color::Sky => "sky",
        }
    }
}

impl Shape {
    fn class(self) -> &'static str {
        match self {
            Shape::Area => "area",
            Shape::Line => "line",
            Shape::Dashed => "line dashed",
            Shape::Dotted => "line dotted",
            Shape::Step => "line step",
        }
    }
}

impl Plot<'_> {
    /// The chart as a figure.
    pub(super) fn figure(&self) -> String {
        let title = escaped(&self.title);
        let note = escaped(self.note);
        let mut sheet = format!(
            "<svg role=\"img\" width=\"100%\" height=\"100%\"><title>{title}</title><desc>{}</desc>",
            escaped(&self.description())
        );
        for &(from, to) in self.bands {
            let (left, right) = (self.across.at(from) * 100.0, self.across.at(to) * 100.0);
            // A band as narrow as a hair would not be seen.
            let width = (right - left).max(0.25);
            sheet += &format!(
                "<rect class=\"panic\" x=\"{}%\" y=\"0\" width=\"{}%\" height=\"100%\"/>",
                coordinate(left.min(100.0 - width)),
                coordinate(width)
            );
        }
        sheet += &grid(&self.up);
        sheet += "<svg viewBox=\"0 0 1000 100\" width=\"100%\" height=\"100%\" preserveAspectRatio=\"none\">";
        for layer in &self.layers {
            let path = layer.path(self.across, &self.up);
            let (shape, color) = (layer.shape.class(), layer.color.class());
            if !path.is_empty() {
                sheet += &format!("<path class=\"{shape} {color}\" d=\"{path}\"/>");
            }
            let alone = layer.alone(self.across, &self.up);
            if !alone.is_empty() {
                sheet += &format!("<path class=\"alone {color}\" d=\"{alone}\"/>");
            }
        }
        sheet += "</svg></svg>";
        framed(&title, &note, &sheet, &self.up, self.across, &self.legend(), "time")
    }

    /// The names of the series, each at the height where it ends.
    fn legend(&self) -> String {
        let ends: Vec<f64> = self.layers.iter().map(|layer| layer.end_height(&self.up)).collect();
        let heights = spread(&ends);
        let mut text = String::from("<ul class=\"legend\">");
        for (layer, height) in self.layers.iter().zip(heights).rev() {
            text += &format!(
                "<li class=\"{} {}\" style=\"--y:{}%\"><span>{}</span><b data-run=\"{}\" data-key=\"{}\" data-unit=\"{}\"></b></li>",
                layer.shape.class(),
                layer.color.class(),
                coordinate((1.0 - height) * 100.0),
                escaped(&layer.name),
                layer.source.0,
                layer.source.1,
                layer.unit
            );
        }
        text + "</ul>"
    }

    /// For those who hear the page: the highest value of each series and when it was.
    fn description(&self) -> String {
        let highest = |layer: &Layer| {
            let values = layer.values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?)));
            let (at, value) = values.reduce(|best, next| if next.1 > best.1 { next } else { best })?;
            let time = crate::report::scale::clock(layer.times[at], 1.0);
            Some(format!("{}: at most {} at {time}", layer.name, self.up.label(value)))
        };
        self.layers.iter().filter_map(highest).collect::<Vec<_>>().join("; ")
    }
}

impl Layer {
    fn path(&self, across: &Scale, up: &Scale) -> String {
        let x = |at: f64| coordinate(across.at(at) * 1000.0);
        let y = |value: f64| coordinate((1.0 - up.at(value)) * 100.0);
        let middle = |step: usize| (self.times[step] + self.times[step + 1]) / 2.0;
        let mut path = String::new();
        for span in spans(&self.values) {
            let mut points: Vec<(String, String)> = Vec::new();
            let (first, last) = (span.start, span.end - 1);
            for step in span.clone() {
                let height = y(self.values[step].unwrap_or_default());
                match self.shape {
                    Shape::Step | Shape::Area => {
                        points.push((x(self.times[step]), height.clone()));
                        points.push((x(self.times[step + 1]), height));
                    }
                    _ => {
                        if step == first {
                            points.push((x(self.times[step]), height.clone()));
                        }
                        points.push((x(middle(step)), height.clone()));
                        if step == last {
                            points.push((x(self.times[step + 1]), height));
                        }
                    }
                }
            }
            draw(&mut path, 'M', &points);
            if self.shape == Shape::Area {
                let mut floor: Vec<(String, String)> = Vec::new();
                for step in span.rev() {
                    let height = y(self.floor.get(step).copied().unwrap_or_default());
                    floor.push((x(self.times[step + 1]), height.clone()));
                    floor.push((x(self.times[step]), height));
                }
                draw(&mut path, 'L', &floor);
                path.push('Z');
            }
        }
        path
    }

    /// Points without a neighbour, as lines of no length: their ends are round, and so they are dots.
    fn alone(&self, across: &Scale, up: &Scale) -> String {
        let mut path = String::new();
        let is_line = !matches!(self.shape, Shape::Area);
        for span in spans(&self.values).into_iter().filter(|span| is_line && span.len() == 1) {
            let (from, to) = (across.at(self.times[span.start]), across.at(self.times[span.end]));
            // A wide step is a line that can be seen.
            if let Some(value) = self.values[span.start].filter(|_| (to - from) * 1000.0 < SHORT) {
                let (x, y) = (f64::midpoint(from, to) * 1000.0, (1.0 - up.at(value)) * 100.0);
                path.push_str(&format!("M{} {}h0", coordinate(x), coordinate(y)));
            }
        }
        path
    }

    /// How high its last value lies, from 0 to 1.
    fn end_height(&self, up: &Scale) -> f64 {
        let last = self.values.len().saturating_sub(1);
        if self.shape == Shape::Area {
            // The name of an area stands in its middle; of one that has ended, where it would go on.
            let floor = self.floor.get(last).copied().unwrap_or_default();
            let top = self.values.get(last).copied().flatten().unwrap_or(floor);
            return f64::midpoint(up.at(floor), up.at(top));
        }
        self.values.iter().rev().flatten().next().map_or(0.0, |&value| up.at(value))
    }
}

/// A sheet with its title, its ticks and its legend. `kind` is `time` where the pointer shows values.
pub(super) fn framed(
    title: &str,
    note: &str,
    sheet: &str,
    up: &Scale,
    across: &Scale,
    legend: &str,
    kind: &str,
) -> String {
    let mut text = format!("<figure class=\"chart {kind}\"><figcaption><b>{title}</b>");
    if !note.is_empty() {
        text += &format!(" <span>{note}</span>");
    }
    let end = if kind == "time" {
        format!(" data-end=\"{}\" tabindex=\"0\"", across.high())
    } else {
        String::new()
    };
    text += &format!(
        "</figcaption><div class=\"frame\"><div class=\"ys\" aria-hidden=\"true\">{}</div>",
        y_labels(up)
    );
    text += &format!("<div class=\"paper\"{end}>{sheet}</div>{legend}");
    text += &format!("<div class=\"xs\" aria-hidden=\"true\">{}</div></div></figure>\n", x_labels(across));
    text
}

/// Lines across at the ticks.
pub(super) fn grid(up: &Scale) -> String {
    let line = |&tick: &f64| {
        let y = coordinate((1.0 - up.at(tick)) * 100.0);
        format!("<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y}%\" y2=\"{y}%\"/>")
    };
    up.ticks.iter().map(line).collect()
}

fn y_labels(up: &Scale) -> String {
    let label = |&tick: &f64| {
        let y = coordinate((1.0 - up.at(tick)) * 100.0);
        format!("<span style=\"--y:{y}%\">{}</span>", escaped(&up.label(tick)))
    };
    up.ticks.iter().map(label).collect()
}

/// Every other label may be left out where there is little room.
fn x_labels(across: &Scale) -> String {
    let label = |(at, &tick): (usize, &f64)| {
        let x = across.at(tick);
        let odd = if at % 2 == 1 { "odd" } else { "" };
        let end = if x > 0.94 { " end" } else { "" };
        let x = coordinate(x * 100.0);
        format!("<span class=\"{odd}{end}\" style=\"--x:{x}%\">{}</span>", escaped(&across.label(tick)))
    };
    across.ticks.iter().enumerate().map(label).collect()
}

/// Ranges of values without a gap.
fn spans(values: &[Option<f64>]) -> Vec<std::ops::Range<usize>> {
    let mut spans: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in values.iter().enumerate().filter(|(_, value)| value.is_some()) {
        match spans.last_mut() {
            Some(span) if span.end == at => span.end = at + 1,
            _ => spans.push(at..at + 1),
        }
    }
    spans
}

/// Appends points to a path; those in the middle of a level stretch are left out.
fn draw(path: &mut String, first: char, points: &[(String, String)]) {
    for (at, (x, y)) in points.iter().enumerate() {
        let is_level = at > 0 && at + 1 < points.len() && points[at - 1].1 == *y && points[at + 1].1 == *y;
        if !is_level {
            path.push(if at == 0 { first } else { 'L' });
            path.push_str(x);
            path.push(' ');
            path.push_str(y);
        }
    }
}

/// Heights near the wanted ones, in the same order, and so far from each other that names do not touch.
fn spread(wanted: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]).then(a.cmp(&b)));
    let gap = LEGEND_GAP.min(1.0 / wanted.len().max(1) as f64);
    let mut heights = vec![0.0; wanted.len()];
    let mut lowest = gap / 2.0;
    for &at in &order {
        heights[at] = wanted[at].max(lowest);
        lowest = heights[at] + gap;
    }
    // Labels pushed out at the top come down again, and push the others.
    let mut highest = 1.0 - gap / 2.0;
    for &at in order.iter().rev() {
        heights[at] = f64::min(heights[at], highest);
        highest = heights[at] - gap;
    }
    heights
}

/// Steps of fewer thousandths of a chart are hardly seen.
const SHORT: f64 = 6.0;

/// The height of a name over the height of a chart.
const LEGEND_GAP: f64 = 0.135;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_one_height_are_spread_and_stay_on_the_chart() {
        for wanted in [vec![0.0; 5], vec![1.0; 5], vec![0.5, 0.5, 0.51], vec![0.3; 9]] {
            let mut heights = spread(&wanted);
            heights.sort_by(f64::total_cmp);
            let gap = LEGEND_GAP.min(1.0 / wanted.len() as f64);
            assert!(heights.windows(2).all(|pair| pair[1] - pair[0] > gap - 1e-9), "{heights:?}");
            assert!(heights[0] >= 0.0 && heights[heights.len() - 1] <= 1.0, "{heights:?}");
        }
    }

    #[test]
    fn level_stretches_are_drawn_by_their_ends() {
        let mut path = String::new();
        let points: Vec<_> =
            (0..9).map(|x| (x.to_string(), if x < 8 { "5" } else { "6" }.to_owned())).collect();
        draw(&mut path, 'M', &points);
        assert_eq!(path, "M0 5L7 5L8 6");
    }

    #[test]
    fn gaps_split_a_series() {
        assert_eq!(spans(&[None, Some(1.0), Some(2.0), None, Some(3.0)]), [1..3, 4..5]);
    }
}
