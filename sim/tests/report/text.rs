use pilotlight_sim::Outcome;
use pilotlight_sim::report::text::{Style, compare, page, summary};

use crate::{all_pages, samples};

const PLAIN: Style = Style { color: false, width: 80, charts: true };

#[test]
fn nothing_is_wider_than_the_terminal() {
    for width in [80, 132] {
        for (name, of) in all_pages() {
            // Lines that are to be copied are not cut.
            let patch = of.tuning.as_ref().map(|tuning| tuning.patch.clone()).unwrap_or_default();
            for line in page(&of, Style { width, ..PLAIN }).lines().filter(|line| !patch.contains(line)) {
                assert!(
                    line.chars().count() <= width,
                    "{name} at {width}: {} {line:?}",
                    line.chars().count()
                );
            }
        }
    }
}

#[test]
fn without_colour_there_is_no_escape_and_with_it_the_same_text() {
    for (name, of) in all_pages() {
        let plain = page(&of, PLAIN);
        let colored = page(&of, Style { color: true, ..PLAIN });
        assert!(!plain.contains('\u{1b}'), "{name}");
        assert_eq!(without_color(&colored), plain, "{name}");
    }
}

fn without_color(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').unwrap().1)
}

#[test]
fn a_summary_names_only_the_errors_there_were() {
    let mut outcome = Outcome { requests: 1_000, duration_s: 60.0, ..Outcome::default() };
    outcome.statuses.extend([(200, 1_000), (503, 0)]);
    let sound = summary(&outcome, Style::default());
    assert!(sound.contains("success 100 %") && sound.contains("200 × 1,000"), "{sound}");
    for word in ["503", "lost", "abandoned", "crashes", "retries", "Objective"] {
        assert!(!sound.contains(word), "{word}: {sound}");
    }
    outcome.statuses.extend([(200, 990), (503, 10)]);
    outcome.lost = 3;
    let failed = summary(&outcome, Style::default());
    assert!(failed.contains("503 × 10   lost 3") && failed.contains("success 99 %"), "{failed}");
}

#[test]
fn runs_side_by_side_show_their_change_from_the_first() {
    let text = compare(&samples::comparison().runs[..2], Style::default());
    let row = |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned();
    assert!(row("peak").ends_with('='), "{text}");
    assert!(row("panics").ends_with("−50 %"), "{text}");
    assert!(row("p95").contains('±'), "{text}");
}

#[test]
fn long_names_are_listed_once_and_numbered_in_the_table() {
    let mut runs = samples::comparison().runs;
    runs[1].name = "a name that goes on and on until min-scale=2".into();
    let text = compare(&runs, Style::default());
    assert!(text.contains("\n  #2  a name that goes on and on until min-scale=2\n"), "{text}");
    assert_eq!(text.matches("#1").count(), 1 + 2, "{text}");
}

#[test]
fn charts_have_the_shape_of_their_values() {
    let text = page(&samples::single(), PLAIN);
    let chart: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("Requests/s")).take(9).collect();
    // The second wave has the burst on it: the highest column is right of the middle.
    let top = chart[1..].iter().find(|line| line.contains(['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'])).unwrap();
    assert!(top.chars().position(|c| ('▁'..='█').contains(&c)).unwrap() > 45, "{text}");
    assert!(chart[7].contains("┬") && chart[8].contains("10 min"), "{text}");
}
