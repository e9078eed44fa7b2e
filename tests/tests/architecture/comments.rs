//! A comment begins with its subject: "Decoder of the current request's body.", not "Of the request's body."

use crate::source::Source;
use crate::{Crate, crates};

/// The share of a crate's comments that may open without their noun: at most one in so many.
const ONE_IN: usize = 20;

/// Crates that are not there yet, with the most per cent of comments each may have. Lower it; never raise it.
const NOT_YET: &[(&str, usize)] = &[];

/// Pronouns and relatives: their noun is somewhere else.
const WITHOUT_NOUN: &[&str] = &[
    "anybody",
    "everybody",
    "he",
    "her",
    "his",
    "it",
    "its",
    "itself",
    "nobody",
    "of",
    "she",
    "somebody",
    "that",
    "their",
    "theirs",
    "them",
    "themselves",
    "they",
    "those",
    "what",
    "whatever",
    "where",
    "wherever",
    "which",
    "whichever",
    "who",
    "whoever",
    "whom",
    "whomever",
    "whose",
];

/// Words that need a noun behind them: "This crate …" has one, "This is …" has none.
const DEMONSTRATIVES: &[&str] = &["these", "this"];

const NO_NOUN_AFTER_DEMONSTRATIVE: &[&str] = &[
    "allows", "also", "always", "and", "are", "at", "be", "becomes", "begins", "by", "can", "comes", "could",
    "did", "do", "does", "ends", "for", "from", "gets", "gives", "goes", "had", "happens", "has", "have",
    "holds", "in", "is", "keeps", "leaves", "lets", "lies", "makes", "may", "means", "might", "must",
    "needs", "never", "not", "of", "on", "only", "or", "reads", "runs", "says", "sends", "shall", "should",
    "shows", "stands", "starts", "stays", "stops", "takes", "tells", "to", "too", "uses", "waits", "was",
    "were", "will", "works", "would", "writes",
];

const PREPOSITIONS: &[&str] = &[
    "after", "at", "before", "by", "for", "from", "in", "of", "on", "over", "through", "to", "under", "with",
    "without",
];

const RELATIVES: &[&str] = &["it", "that", "them", "what", "which", "whom", "whose"];

#[test]
fn comments_begin_with_their_subject() {
    let mut wrong = Vec::new();
    let mut summary = String::new();
    for Crate { name, sources } in crates() {
        let all: usize = sources.iter().map(|source| source.comments.len()).sum();
        let offenders: Vec<_> = sources.iter().flat_map(offenders).collect();
        for (place, text) in &offenders {
            println!("{place}: {text}");
        }
        let share = (100 * offenders.len()).div_ceil(all.max(1));
        summary += &format!("{name}: {} of {all} comments, {share} %\n", offenders.len());
        let limit = NOT_YET.iter().find(|(each, _)| *each == name).map(|(_, percent)| *percent);
        match limit {
            _ if offenders.len() * ONE_IN <= all => {
                wrong.extend(limit.map(|_| format!("{name} is below one in {ONE_IN}: take it off NOT_YET")));
            }
            Some(percent) if share <= percent => {}
            _ => wrong.push(format!("{name}: {share} % of its comments open without a noun")),
        }
    }
    println!("{summary}");
    assert!(wrong.is_empty(), "{wrong:#?}\n{summary}see `--nocapture comments` for the list");
}

fn offenders(source: &Source) -> Vec<(String, &str)> {
    let place = |line| format!("{}:{line}", source.path.display());
    let bad = source.comments.iter().filter(|comment| opens_without_noun(&comment.text));
    bad.map(|comment| (place(comment.line), comment.text.as_str())).collect()
}

fn opens_without_noun(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_alone = second.is_empty() || first.ends_with(|last: char| last.is_ascii_punctuation());
    let (first, second) = (word(first), word(second));
    let is_in = |list: &[&str], word: &str| list.contains(&word);
    is_in(WITHOUT_NOUN, &first)
        || is_in(DEMONSTRATIVES, &first) && (is_alone || is_in(NO_NOUN_AFTER_DEMONSTRATIVE, &second))
        || is_in(PREPOSITIONS, &first) && is_in(RELATIVES, &second)
}

/// The letters that `text` begins with, in lower case: "It's," is "it".
fn word(text: &str) -> String {
    text.chars().take_while(|each| each.is_alphabetic()).flat_map(char::to_lowercase).collect()
}

#[test]
fn the_subject_of_a_comment_is_recognized() {
    for bad in [
        "Of the body.",
        "Which showed it.",
        "It's done",
        "This is why",
        "This.",
        "From which it came",
        "Who?",
    ] {
        assert!(opens_without_noun(bad), "{bad}");
    }
    for good in [
        "This crate",
        "These two are",
        "`it` is",
        "Bytes of",
        "From the head",
        "Ofen",
        "1. it",
        "This `x` is",
    ] {
        assert!(!opens_without_noun(good), "{good}");
    }
}
