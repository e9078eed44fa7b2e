//! From text to an expression, by recursive descent.
//!
//! ```text
//! any        = all, { "||", all }
//! all        = one, { "&&", one }
//! one        = "!", one | "(", any, ")" | comparison
//! comparison = metric, ( "<" | "<=" | ">" | ">=" | "==" | "!=" ), number
//! ```

use pilotlight_config::duration;
use pilotlight_config::spelling::nearest;

use super::{Clause, Condition, ExpressionError, Relation, Slo};
use crate::outcome::{Metric, Unit};

pub(super) fn expression(text: &str) -> Result<Clause, ExpressionError> {
    let mut parser = Parser::new(text)?;
    let root = parser.any(0)?;
    parser.end()?;
    Ok(root)
}

pub(super) fn slo(text: &str) -> Result<Slo, ExpressionError> {
    let mut parser = Parser::new(text)?;
    let (name, column) = parser.word("a latency such as p95")?;
    let quantile = name.strip_prefix('p').and_then(|digits| shifted(digits, -2));
    let Some(quantile) = quantile.filter(|&quantile| quantile > 0.0 && quantile < 1.0) else {
        return Err(error(
            column,
            format!("an objective is a quantile of latency, such as p95<500ms; not {name:?}"),
        ));
    };
    let includes_threshold = match parser.relation()? {
        (Relation::Below, _) => false,
        (Relation::AtMost, _) => true,
        (_, at) => return Err(error(at, "an objective is kept by what is below it: p95<500ms")),
    };
    let (written, column) = parser.word("a time such as 500ms")?;
    let threshold = duration::parse(written).map_err(|wrong| error(column, wrong.to_string()))?;
    parser.end()?;
    Ok(Slo { quantile, threshold, includes_threshold })
}

/// The metric that goes by `name`, or what is wrong with it.
pub(super) fn metric(name: &str, column: usize) -> Result<&'static Metric, ExpressionError> {
    Metric::named(name).ok_or_else(|| {
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            return error(
                column,
                format!("a comparison starts with a metric, as in p99<300ms; {name:?} is none"),
            );
        }
        match nearest(name, Metric::names()) {
            Some(near) => error(column, format!("unknown metric {name:?}; did you mean {near}?")),
            None => error(column, format!("unknown metric {name:?}; there are {}", families())),
        }
    })
}

fn families() -> String {
    let names: Vec<&str> = crate::outcome::METRICS.iter().map(|metric| metric.name).collect();
    names.join(", ")
}

/// A number in the unit of the metric it is compared with.
fn number(text: &str, column: usize, name: &str, unit: Unit) -> Result<f64, ExpressionError> {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic() || c == '%');
    let suffix = &text[digits.len()..];
    let wrong = |rule: &str| Err(error(column, format!("{name} is {rule}, not {text}")));
    let places = match suffix {
        "%" => -2,
        "k" => 3,
        "M" => 6,
        _ => 0,
    };
    match (unit, shifted(digits, places), suffix) {
        (Unit::Seconds, Some(0.0), "") => Ok(0.0),
        // 300 alone would be ambiguous for a time, and 5 minutes of errors is what that costs.
        (Unit::Seconds, Some(value), "") => wrong(&format!("a time: write {value}ms or {value}s")),
        (Unit::SecondsInAll | Unit::Count | Unit::Ratio, Some(value), "") => Ok(value),
        (Unit::SecondsInAll | Unit::Count, Some(value), "k" | "M") => Ok(value),
        (Unit::Seconds | Unit::SecondsInAll, ..) => match duration::parse(text) {
            Ok(time) => Ok(time.as_secs_f64()),
            Err(wrong) => Err(error(column, wrong.to_string())),
        },
        (Unit::Fraction, Some(value), "%" | "") if value <= 1.0 => Ok(value),
        (Unit::Fraction, ..) => wrong("a share: write 99.9% or 0.999"),
        (Unit::Count, ..) => wrong("a count: write 20, 20k or 20M"),
        (Unit::Ratio, ..) => wrong("a plain number: write 1.5"),
    }
}

/// Decimal digits, their point moved. Moved in the text: 99.9 / 100 is not 0.999 in binary, and `success>=99.9%`
/// must hold for 999 of 1,000.
fn shifted(digits: &str, places: i32) -> Option<f64> {
    let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = format!("{digits}e{places}").parse().ok()?;
    (is_decimal && value.is_finite()).then_some(value)
}

struct Parser<'a> {
    tokens: Vec<(Token<'a>, usize)>,
    next: usize,
    /// The column after the last character.
    end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    /// A name, or a number with its unit: which, its place tells.
    Word(&'a str),
    Relation(Relation),
    And,
    Or,
    Not,
    Open,
    Close,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Parser<'a>, ExpressionError> {
        let mut tokens = Vec::new();
        let (mut rest, mut column) = (text, 1);
        while let Some(first) = rest.chars().next() {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let symbol = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol));
            let length = match symbol {
                _ if first.is_whitespace() => first.len_utf8(),
                _ if length > 0 => {
                    tokens.push((Token::Word(&rest[..length]), column));
                    length
                }
                Some(&(symbol, token)) => {
                    tokens.push((token, column));
                    symbol.len()
                }
                None => return Err(error(column, unexpected(first))),
            };
            column += rest[..length].chars().count();
            rest = &rest[length..];
        }
        Ok(Parser { tokens, next: 0, end: column })
    }

    fn any(&mut self, depth: usize) -> Result<Clause, ExpressionError> {
        let mut nodes = vec![self.all(depth)?];
        while self.take(Token::Or) {
            nodes.push(self.all(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Clause::Any(nodes) })
    }

    fn all(&mut self, depth: usize) -> Result<Clause, ExpressionError> {
        let mut nodes = vec![self.one(depth)?];
        while self.take(Token::And) {
            nodes.push(self.one(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Clause::All(nodes) })
    }

    fn one(&mut self, depth: usize) -> Result<Clause, ExpressionError> {
        if depth > MAX_DEPTH {
            return Err(error(self.column(), "too many parentheses inside each other"));
        }
        if self.take(Token::Not) {
            return Ok(Clause::Not(Box::new(self.one(depth + 1)?)));
        }
        let opened = self.column();
        if self.take(Token::Open) {
            let inner = self.any(depth + 1)?;
            if !self.take(Token::Close) {
                return Err(error(self.column(), format!("a ) is missing for the ( in column {opened}")));
            }
            return Ok(inner);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Clause, ExpressionError> {
        let (name, column) = self.word("a comparison such as p99<300ms")?;
        let metric = metric(name, column)?;
        let (relation, _) = self.relation()?;
        let (text, at) = self.word("a number")?;
        let value = number(text, at, name, metric.unit)?;
        Ok(Clause::Compare(Condition { metric: name.to_owned(), relation, value, column }))
    }

    fn relation(&mut self) -> Result<(Relation, usize), ExpressionError> {
        match self.tokens.get(self.next) {
            Some(&(Token::Relation(relation), column)) => {
                self.next += 1;
                Ok((relation, column))
            }
            _ => Err(error(self.column(), "expected one of < <= > >= == != after the name")),
        }
    }

    fn word(&mut self, expected: &str) -> Result<(&'a str, usize), ExpressionError> {
        match self.tokens.get(self.next) {
            Some(&(Token::Word(word), column)) => {
                self.next += 1;
                Ok((word, column))
            }
            _ => Err(error(self.column(), format!("expected {expected}"))),
        }
    }

    fn take(&mut self, token: Token<'_>) -> bool {
        let is_next = self.tokens.get(self.next).is_some_and(|&(next, _)| next == token);
        self.next += usize::from(is_next);
        is_next
    }

    fn end(&self) -> Result<(), ExpressionError> {
        match self.tokens.get(self.next) {
            None => Ok(()),
            Some(&(Token::Word("and" | "AND"), column)) => Err(error(column, "write && for and")),
            Some(&(Token::Word("or" | "OR"), column)) => Err(error(column, "write || for or")),
            Some(&(Token::Relation(_), column)) => {
                Err(error(column, "a comparison has two sides: write p99>1ms && p99<2ms for a range"))
            }
            Some(&(Token::Close, column)) => Err(error(column, "there is no ( for this )")),
            Some(&(_, column)) => Err(error(column, "expected && or ||")),
        }
    }

    /// The column of the next token.
    fn column(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |&(_, column)| column)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '%')
}

fn unexpected(c: char) -> String {
    match c {
        '=' => "= compares nothing; did you mean ==?".to_owned(),
        '&' => "did you mean &&?".to_owned(),
        '|' => "did you mean ||?".to_owned(),
        '≤' => "write <= for ≤".to_owned(),
        '≥' => "write >= for ≥".to_owned(),
        _ => format!("{c:?} has no meaning here"),
    }
}

fn error(column: usize, reason: impl Into<String>) -> ExpressionError {
    ExpressionError { column, reason: reason.into() }
}

/// The longer before those they begin with.
const SYMBOLS: [(&str, Token<'static>); 11] = [
    ("<=", Token::Relation(Relation::AtMost)),
    (">=", Token::Relation(Relation::AtLeast)),
    ("==", Token::Relation(Relation::Equal)),
    ("!=", Token::Relation(Relation::NotEqual)),
    ("<", Token::Relation(Relation::Below)),
    (">", Token::Relation(Relation::Above)),
    ("&&", Token::And),
    ("||", Token::Or),
    ("!", Token::Not),
    ("(", Token::Open),
    (")", Token::Close),
];

/// Deeper than anybody writes, and not so deep that a text could use up the stack.
const MAX_DEPTH: usize = 64;
