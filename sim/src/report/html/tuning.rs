//! The result of a search: the answer, its proof on other load, the front, what mattered, and the patch.

use std::collections::BTreeSet;

use super::markup::{coordinate, escaped};
use super::{code, plot};
use crate::outcome::{Metric, Unit};
use crate::report::number::{percent, shown};
use crate::report::scale::{Axis, Scale};
use crate::report::{Candidate, Tuning, about};

pub(super) fn section(tuning: &Tuning) -> String {
    let verdict = if tuning.keeps_defaults() { "Keep the defaults" } else { "The answer" };
    let mut text = format!(
        "<section class=\"verdict\"><h2>{verdict}</h2>\n<p class=\"lead\">{}</p>\n",
        escaped(&tuning.reason)
    );
    if !tuning.searched.is_empty() {
        text += &format!("<p class=\"note\">{}</p>\n", escaped(&tuning.searched));
    }
    text += &gains(tuning);
    if !tuning.patch.is_empty() {
        text += "<h3>The patch</h3>\n";
        text += &code("The patch", &tuning.patch);
    }
    text += "</section>\n";
    text += &front(tuning);
    text + &sensitivities(tuning)
}

fn gains(tuning: &Tuning) -> String {
    if tuning.gains.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr><th scope=\"col\">On load it was not chosen on</th>\
         <th scope=\"col\" class=\"number\">defaults</th><th scope=\"col\" class=\"number\">chosen</th>\
         <th scope=\"col\" class=\"change\">change</th><th scope=\"col\" class=\"change\">on loads like it</th></tr>\
         </thead>\n<tbody>",
    );
    for gain in &tuning.gains {
        text += &format!(
            "<tr><th scope=\"row\" title=\"{}\">{}</th><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"change\">{}</td><td class=\"change\">{}</td></tr>\n",
            escaped(about(&gain.metric)),
            escaped(&gain.metric),
            escaped(&shown(&gain.metric, gain.defaults)),
            escaped(&shown(&gain.metric, gain.chosen)),
            escaped(&gain.change()),
            escaped(&gain.change_on_others())
        );
    }
    text + "</tbody></table></div>\n"
}

/// Cost against latency: all that was tried, the front through the best, the defaults and the choice.
fn front(tuning: &Tuning) -> String {
    let drawable: Vec<&Candidate> =
        tuning.candidates.iter().filter(|c| c.cost.is_finite() && c.latency.is_finite()).collect();
    let (Some(cheapest), Some(dearest)) =
        (drawable.iter().map(|c| c.cost).reduce(f64::min), drawable.iter().map(|c| c.cost).reduce(f64::max))
    else {
        return String::new();
    };
    let axis = match Metric::named(&tuning.latency_metric).map(|metric| metric.unit) {
        Some(Unit::Seconds) => Axis::Seconds,
        _ => Axis::Number,
    };
    let across = Scale::between(Axis::Number, cheapest, dearest, 6);
    let up = Scale::of(axis, drawable.iter().map(|c| c.latency), 5);
    let place = |c: &Candidate| (across.at(c.cost) * 100.0, (1.0 - up.at(c.latency)) * 100.0);
    let best = tuning.front();

    let mut sheet = format!(
        "<svg role=\"img\" width=\"100%\" height=\"100%\"><title>{} against {}</title><desc>{} settings, {} of them on \
         the front</desc>{}",
        escaped(&tuning.latency_metric),
        escaped(&tuning.cost_metric),
        drawable.len(),
        best.len(),
        plot::grid(&up)
    );
    let mut taken = BTreeSet::new();
    for candidate in &drawable {
        let (x, y) = place(candidate);
        // Points that would cover each other are drawn once.
        if taken.insert(((x * 4.0) as i32, (y * 2.0) as i32)) {
            let class = if candidate.is_feasible { "tried" } else { "tried infeasible" };
            sheet += &dot(class, x, y, 2.5, "");
        }
    }
    sheet += "<svg viewBox=\"0 0 100 100\" width=\"100%\" height=\"100%\" preserveAspectRatio=\"none\">";
    sheet += &format!(
        "<path class=\"line blue\" d=\"{}\"/></svg>",
        staircase(best.iter().map(|&at| place(&tuning.candidates[at])))
    );
    let described = |c: &Candidate| {
        let (cost, latency) = (shown(&tuning.cost_metric, c.cost), shown(&tuning.latency_metric, c.latency));
        format!("{}: {} {cost}, {} {latency}", c.name, tuning.cost_metric, tuning.latency_metric)
    };
    for &at in &best {
        let candidate = &tuning.candidates[at];
        let (x, y) = place(candidate);
        sheet += &dot("best", x, y, 4.0, &described(candidate));
    }
    let chosen = tuning.chosen.filter(|_| !tuning.keeps_defaults());
    let mut names = String::new();
    let mut places: Vec<(f64, f64)> = Vec::new();
    for (name, at) in [("defaults", tuning.defaults), ("chosen", chosen)] {
        let Some(candidate) = at.and_then(|at| tuning.candidates.get(at)) else { continue };
        let (x, y) = place(candidate);
        sheet += &dot(name, x, y, 7.0, &described(candidate));
        let side = side(name, (x, y), &places);
        places.push((x, y));
        names += &format!(
            "<span class=\"mark {name}{side}\" style=\"--x:{}%;--y:{}%\">{name}</span>",
            coordinate(x),
            coordinate(y)
        );
    }
    sheet += "</svg>";
    sheet += &names;
    let mut text = String::from("<section><h2>What it costs to wait less</h2>\n");
    text += "<p class=\"note\"><i class=\"swatch dot best\"></i>the front: nothing tried is better in both \
             <i class=\"swatch dot\"></i>tried";
    if drawable.iter().any(|candidate| !candidate.is_feasible) {
        text += " <i class=\"swatch dot infeasible\"></i>tried, breaks a constraint";
    }
    text += "</p>\n";
    let title = format!("{} against {}", tuning.latency_metric, tuning.cost_metric);
    let note = if up.is_log() { "logarithmic; " } else { "" };
    let note = format!("{note}left and low is better");
    text += &plot::framed(&escaped(&title), &note, &sheet, &up, &across, "", "front");
    text += &front_table(tuning, &best);
    text + "</section>\n"
}

/// Where a point's name stands: above and right of it, unless there is no room. Below and left of the front is nothing,
/// so the choice's name goes there; beside another point that is near, to the other side of it.
fn side(name: &str, (x, y): (f64, f64), others: &[(f64, f64)]) -> &'static str {
    let is_near = |other: &&(f64, f64)| (other.0 - x).abs() < NAME_WIDTH && (other.1 - y).abs() < NAME_HEIGHT;
    let is_at_edge = y > 100.0 - NAME_HEIGHT;
    match (name, others.iter().find(is_near)) {
        // The other's name is above its point, on the side that has room.
        (_, Some(_)) if is_at_edge && x <= 75.0 => " left",
        (_, Some(_)) if is_at_edge => "",
        (_, Some(_)) if x > 75.0 => " below",
        (_, Some(_)) => " right",
        ("chosen", None) if x > NAME_WIDTH && !is_at_edge => " below",
        _ if x > 75.0 => " left",
        _ => "",
    }
}

/// From the cheapest on: level until the next is dearer, then down.
fn staircase(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (x, y) in points {
        let (x, y) = (coordinate(x), coordinate(y));
        path += &if path.is_empty() { format!("M{x} {y}") } else { format!("H{x}V{y}") };
    }
    path
}

fn dot(class: &str, x: f64, y: f64, radius: f64, title: &str) -> String {
    let start = format!(
        "<circle class=\"{class}\" cx=\"{}%\" cy=\"{}%\" r=\"{radius}\"",
        coordinate(x),
        coordinate(y)
    );
    if title.is_empty() {
        start + "/>"
    } else {
        format!("{start}><title>{}</title></circle>", escaped(title))
    }
}

/// The front in numbers; of a long one, as many as can be read, evenly from end to end.
fn front_table(tuning: &Tuning, best: &[usize]) -> String {
    if best.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr><th scope=\"col\">On the front</th>\
         <th scope=\"col\" class=\"number\">{}</th><th scope=\"col\" class=\"number\">{}</th></tr></thead>\n<tbody>",
        escaped(&tuning.cost_metric),
        escaped(&tuning.latency_metric)
    );
    let rows = best.len().min(FRONT_ROWS);
    let picked: BTreeSet<usize> = (0..rows).map(|row| row * (best.len() - 1) / (rows - 1).max(1)).collect();
    let is_chosen = |at: &usize| tuning.chosen == Some(best[*at]);
    for at in (0..best.len()).filter(|at| picked.contains(at) || is_chosen(at)) {
        let candidate = &tuning.candidates[best[at]];
        let mark = if is_chosen(&at) { " <em>chosen</em>" } else { "" };
        text += &format!(
            "<tr><th scope=\"row\">{}{mark}</th><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>\n",
            escaped(&candidate.name),
            escaped(&shown(&tuning.cost_metric, candidate.cost)),
            escaped(&shown(&tuning.latency_metric, candidate.latency))
        );
    }
    text + "</tbody></table></div>\n"
}

fn sensitivities(tuning: &Tuning) -> String {
    if tuning.sensitivities.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "<section class=\"kept\"><h2>What mattered</h2>\n<p class=\"note\">The share of the differences between what \
         was tried that each setting explains, beyond what those above it explain already.</p>\n\
         <table class=\"bars\"><tbody>\n",
    );
    for sensitivity in &tuning.sensitivities {
        let share = if sensitivity.effect_fraction.is_finite() {
            sensitivity.effect_fraction.clamp(0.0, 1.0)
        } else {
            0.0
        };
        text += &format!(
            "<tr><th scope=\"row\">{}</th><td class=\"bar\"><svg width=\"100%\" height=\"14\" aria-hidden=\"true\">\
             <rect class=\"area blue\" width=\"{}%\" height=\"14\" rx=\"2\"/></svg></td><td class=\"number\">{}</td>\
             <td class=\"about\">{}</td></tr>\n",
            escaped(&sensitivity.setting),
            coordinate(share * 100.0),
            escaped(&percent(share)),
            escaped(&sensitivity.about)
        );
    }
    text + "</tbody></table></section>\n"
}

const FRONT_ROWS: usize = 12;

/// Room that the name of a point takes on a narrow page, in percent of the chart.
const NAME_WIDTH: f64 = 30.0;
const NAME_HEIGHT: f64 = 12.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_near_points_stand_on_different_sides() {
        for place in [(5.0, 50.0), (50.0, 50.0), (90.0, 50.0), (50.0, 95.0), (90.0, 95.0)] {
            let defaults = side("defaults", place, &[]);
            let chosen = side("chosen", (place.0 + 1.0, place.1 + 1.0), &[place]);
            assert_ne!(defaults, chosen, "{place:?}");
        }
        assert_eq!(side("chosen", (50.0, 50.0), &[(90.0, 5.0)]), " below");
    }
}
