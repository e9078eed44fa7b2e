//! A name means one type in a crate: a search for it ends at one place.

use std::collections::BTreeMap;

use crate::source::Source;
use crate::{Crate, crates};

#[test]
fn names_of_types_are_given_once_in_a_crate() {
    let mut wrong = Vec::new();
    for Crate { name, sources } in crates() {
        let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for source in sources.iter().filter(|source| !source.is_for_tests()) {
            for (line, name) in types(source) {
                places.entry(name).or_default().push(format!("{}:{line}", source.path.display()));
            }
        }
        places.retain(|_, places| places.len() > 1);
        wrong.extend(places.iter().map(|(each, places)| format!("{name}: {each} at {}", places.join(" "))));
    }
    assert!(wrong.is_empty(), "names given to several types: {wrong:#?}");
}

/// Types and traits defined at the top of a file: what is indented belongs to a test or a function.
fn types(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source.lines().filter_map(|(line, code)| {
        let code =
            code.strip_prefix("pub").map_or(code, |rest| rest.split_once(' ').map_or(rest, |(_, rest)| rest));
        let (keyword, rest) = code.split_once(' ')?;
        let name = rest.split(|each: char| !each.is_alphanumeric() && each != '_').next()?;
        ["enum", "struct", "trait", "type", "union"].contains(&keyword).then_some((line, name))
    })
}

#[test]
fn types_are_found_at_the_top_of_files() {
    let code = "pub struct A<T>;\nenum B {}\npub(crate) trait C: D {}\nimpl E for F {\n    type G = H;\n}\ntype I = J;\n";
    let source = Source::parse("some.rs".into(), code);
    assert_eq!(types(&source).collect::<Vec<_>>(), [(1, "A"), (2, "B"), (3, "C"), (7, "I")]);
}
