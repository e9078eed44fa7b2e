//! Misspelt names: keys, fields, annotations, metrics, columns. A message that refuses one says which name was meant.

/// The name among `known` that `unknown` is most likely a misspelling of, if any is near.
///
/// ```
/// use pilotlight_config::spelling::nearest;
/// assert_eq!(nearest("windw", ["target", "window"]), Some("window"));
/// assert_eq!(nearest("colour", ["target", "window"]), None);
/// ```
pub fn nearest<N: AsRef<str> + Ord>(unknown: &str, known: impl IntoIterator<Item = N>) -> Option<N> {
    // A third of the letters may be wrong: enough for a lost dash or a swapped word ending, too little to suggest an
    // unrelated name.
    let most = unknown.chars().count().div_ceil(3);
    let ranked = known.into_iter().map(|name| (strsim::damerau_levenshtein(unknown, name.as_ref()), name));
    ranked.filter(|&(distance, _)| distance <= most).min().map(|(_, name)| name)
}

/// ` (did you mean "window"?)` for the middle of a sentence; nothing if no name is near.
pub fn hint<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(unknown, known).map_or_else(String::new, |name| format!(" (did you mean {name:?}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_letters_may_be_wrong() {
        let near = |unknown| nearest(unknown, ["min-scale", "max-scale", "window"]);
        assert_eq!(near("minscale"), Some("min-scale"), "one of eight");
        assert_eq!(near("widnow"), Some("window"), "two that are swapped are one fault");
        assert_eq!(near("wdw"), None, "three of six letters are not there");
        assert_eq!(near("mxn-scale"), Some("min-scale"), "equally near: the first by name is as good as any");
        assert_eq!(near(""), None);
    }

    #[test]
    fn a_hint_is_empty_where_nothing_is_near() {
        assert_eq!(hint("tok", ["at", "took"]), " (did you mean \"took\"?)");
        assert_eq!(hint("x", ["duration"]), "");
    }
}
