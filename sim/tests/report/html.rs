//! The page is parsed as XML, which is stricter than any browser.

use pilotlight_sim::report::html::page;
use pilotlight_sim::report::{Page, ReportedRun};
use roxmltree::{Document, Node, ParsingOptions};

use crate::samples::{self, SKETCH, Sketch};
use crate::{HOSTILE, all_pages, hostile};

/// The markup without what is not markup: scripts and styles.
fn markup(html: &str) -> String {
    let mut rest = html;
    let mut text = String::new();
    for (open, close) in [("<style>", "</style>"), ("<script", "</script>"), ("<script>", "</script>")] {
        let (before, after) = rest.split_once(open).unwrap();
        text.push_str(before);
        rest = after.split_once(close).unwrap().1;
    }
    text + rest
}

fn with_document(page_of: &Page, check: impl Fn(&Document<'_>)) {
    let text = markup(&page(page_of));
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&text, options)
        .unwrap_or_else(|error| panic!("{}: {error}\n{text}", page_of.title));
    check(&document);
}

fn elements<'a>(document: &'a Document<'a>, name: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    document.descendants().filter(move |node| node.has_tag_name(name))
}

fn titles(document: &Document<'_>) -> Vec<String> {
    elements(document, "figcaption")
        .map(|caption| caption.first_element_child().unwrap().text().unwrap().to_owned())
        .collect()
}

#[test]
fn every_page_is_well_formed() {
    for (name, page) in all_pages() {
        with_document(&page, |document| assert_eq!(elements(document, "html").count(), 1, "{name}"));
    }
}

#[test]
fn every_number_in_a_drawing_is_a_number() {
    for (name, page) in all_pages() {
        with_document(&page, |document| {
            for node in document.descendants().filter(Node::is_element) {
                for attribute in node.attributes().filter(|a| GEOMETRY.contains(&a.name())) {
                    let numbers =
                        attribute.value().split(|c: char| c.is_ascii_alphabetic() || " %:;-".contains(c));
                    for number in numbers.filter(|number| !number.is_empty()) {
                        assert!(number.parse::<f64>().is_ok_and(f64::is_finite), "{name}: {attribute:?}");
                    }
                    for word in ["NaN", "inf"] {
                        assert!(!attribute.value().contains(word), "{name}: {attribute:?}");
                    }
                }
            }
        });
    }
}

#[test]
fn names_that_look_like_markup_stay_text() {
    let html = page(&hostile());
    assert_eq!(html.matches("alert(1)").count(), html.matches("&lt;script&gt;alert(1)").count());
    assert_eq!(html.matches("<script").count(), 2);
    with_document(&hostile(), |document| {
        let title = elements(document, "h1").next().unwrap().text().unwrap().to_owned();
        // A browser shows them as they are, but for what no document may contain.
        assert_eq!(title, HOSTILE.replace(['\u{1b}', '\u{0}'], "\u{fffd}"));
    });
}

#[test]
fn the_data_for_the_script_is_json_and_cannot_end_it() {
    for (name, of) in all_pages().into_iter().filter(|(name, _)| !name.starts_with("hostile")) {
        let html = page(&of);
        let data = html.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        let data: serde_json::Value =
            serde_json::from_str(data).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(data["runs"].is_array());
    }
    let html = page(&hostile());
    let data = html.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    assert!(serde_json::from_str::<serde_json::Value>(data).is_ok(), "{data}");
}

#[test]
fn every_value_the_script_shows_is_in_its_data() {
    let of = samples::single();
    let html = page(&of);
    let data = html.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    with_document(&of, |document| {
        let shown: Vec<_> = document.descendants().filter_map(|node| node.attribute("data-key")).collect();
        assert!(shown.len() > 8);
        for key in shown {
            let values = data["runs"][0]["series"][key].as_array().unwrap_or_else(|| panic!("{key}"));
            assert_eq!(values.len(), 600, "{key}");
        }
    });
}

#[test]
fn a_run_shows_its_charts_its_seed_and_its_scenario() {
    let of = samples::single();
    with_document(&of, |document| {
        assert_eq!(titles(document), ["Load", "Concurrency", "Pods", "Queue", "Latency"]);
        let panics =
            elements(document, "rect").filter(|rect| rect.attribute("class") == Some("panic")).count();
        assert_eq!(panics % 5, 0);
        assert!(panics > 0);
        let codes: Vec<_> = elements(document, "code").filter_map(|code| code.text()).collect();
        assert_eq!(codes, [of.command.as_str(), of.scenario.trim_end()]);
        assert_eq!(elements(document, "dd").next().unwrap().text(), Some("7"));
    });
}

#[test]
fn runs_side_by_side_share_their_charts() {
    let of = samples::comparison();
    with_document(&of, |document| {
        let expected = ["Load", "Ready pods", "Starting pods", "Queue", "Latency, p95", "Failures", "Panic"];
        assert_eq!(titles(document), expected);
        let names = elements(document, "th").filter(|th| th.text() == Some("min-scale=2")).count();
        assert_eq!(names, 2);
    });
}

#[test]
fn more_runs_than_can_be_told_apart_are_listed_but_not_drawn() {
    let runs: Vec<ReportedRun> = (0..40)
        .map(|at| ReportedRun::new(format!("run {at}"), Sketch { seconds: 60, ..SKETCH }.outcome(at)))
        .collect();
    let html = page(&Page { runs, ..Page::default() });
    assert!(html.contains("Of 40 runs, 6 are drawn."));
    assert!(html.contains(">run 39</th>"));
}

#[test]
fn long_names_that_begin_alike_are_told_apart_by_numbers() {
    let sketch = Sketch { seconds: 60, ..SKETCH };
    let runs = [30, 60].map(|window| {
        ReportedRun::new(format!("a name that goes on until window={window}s"), sketch.outcome(1))
    });
    let html = page(&Page { runs: runs.to_vec(), ..Page::default() });
    assert!(html.contains("<span>#2 a name that goes on until window=60s</span>"));
}

#[test]
fn a_search_marks_the_defaults_and_the_choice_on_the_front() {
    let of = samples::search();
    with_document(&of, |document| {
        let count = |class: &str| {
            elements(document, "circle").filter(|c| c.attribute("class") == Some(class)).count()
        };
        assert_eq!((count("defaults"), count("chosen")), (1, 1));
        assert_eq!(count("best"), of.tuning.as_ref().unwrap().front().len());
        assert_eq!(elements(document, "h2").next().unwrap().text(), Some("The answer"));
    });
    let mut kept = of;
    if let Some(tuning) = &mut kept.tuning {
        tuning.chosen = tuning.defaults;
    }
    assert!(page(&kept).contains("<h2>Keep the defaults</h2>"));
}

#[test]
fn a_drawing_tells_those_who_hear_it_what_it_shows() {
    with_document(&samples::single(), |document| {
        for drawing in elements(document, "svg").filter(|svg| svg.attribute("role") == Some("img")) {
            let children: Vec<_> = drawing.children().take(2).map(|child| child.tag_name().name()).collect();
            assert_eq!(children, ["title", "desc"]);
            assert!(drawing.children().nth(1).unwrap().text().is_some_and(|text| text.contains("at most")));
        }
    });
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    for (name, of) in all_pages() {
        let html = page(&of);
        for word in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!html.contains(word), "{name} contains {word}");
        }
    }
}

#[test]
fn the_same_page_is_the_same_bytes_and_not_many() {
    let runs = (0..6)
        .map(|at| ReportedRun::new(format!("run {at}"), Sketch { seconds: 4_000, ..SKETCH }.outcome(at)))
        .collect();
    let of = Page { runs, ..samples::search() };
    let html = page(&of);
    assert_eq!(html, page(&of.clone()));
    assert!(html.len() < 1_000_000, "{} bytes", html.len());
}

/// Attributes that say where something is.
const GEOMETRY: [&str; 13] =
    ["d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "style"];
