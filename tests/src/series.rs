//! The series on a page of metrics, as dashboards and alerts know them: name, type and labels, without values.

use std::collections::{BTreeMap, BTreeSet};

/// The series of a page in Prometheus' text format, one line each: `name type label label`. A histogram is one series
/// with its buckets, and `le` is no label of it. A name that is told with several sets of labels has a line for each.
///
/// ```
/// let page = "# TYPE a_seconds histogram\na_seconds_bucket{code=\"1,2\",le=\"1\"} 1\na_seconds_count{code=\"\"} 1\nb 2\n";
/// let series = pilotlight_tests::series::of(page);
/// assert_eq!(series.into_iter().collect::<Vec<_>>(), ["a_seconds histogram code", "b untyped"]);
/// ```
pub fn of(page: &str) -> BTreeSet<String> {
    let types: BTreeMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let told = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let series = told.map(|line| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
            let base = name.strip_suffix(end)?;
            types.contains_key(base).then_some(base)
        });
        let name = of_histogram.unwrap_or(name);
        let mut words = vec![name, types.get(name).copied().unwrap_or("untyped")];
        words.extend(labels(line).into_iter().filter(|label| *label != "le"));
        words.join(" ")
    });
    series.collect()
}

/// The names of a line's labels, in order.
fn labels(line: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let Some((_, mut rest)) = line.split_once('{') else { return names };
    // A value may hold anything; its own quotes are escaped.
    while let Some((name, behind)) = rest.split_once("=\"") {
        names.insert(name.trim_start_matches(','));
        let mut is_escaped = false;
        let end = behind.find(|letter| {
            let ends = letter == '"' && !is_escaped;
            is_escaped = letter == '\\' && !is_escaped;
            ends
        });
        rest = end.map_or("", |end| &behind[end + 1..]);
        if rest.starts_with('}') {
            break;
        }
    }
    names
}
