//! Go's grammars for floats, whole numbers and truth values, as Knative's settings are read with them.

/// Reads what Go's `strconv.ParseFloat` reads: decimals, hexadecimals (`0x1.8p3`), underscores between digits,
/// `Inf` and `NaN` in any case. Too large a number is an error, too small a one is zero.
pub fn parse_float(text: &str) -> Option<f64> {
    let (negative, magnitude) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let is = |word: &str| magnitude.eq_ignore_ascii_case(word);
    let value = if is("inf") || is("infinity") {
        f64::INFINITY
    } else if is("nan") && magnitude.len() == text.len() {
        f64::NAN
    } else if magnitude.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x")) {
        parse_hex(&magnitude[2..])?
    } else {
        parse_decimal(magnitude)?
    };
    Some(if negative { -value } else { value })
}

/// Reads what Go's `strconv.ParseInt(text, 10, 32)` reads, and tells "no number" from "too large".
pub fn parse_int32(text: &str) -> Result<i32, NotAnInt32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NotAnInt32::Syntax);
    }
    text.parse().map_err(|_| NotAnInt32::Range)
}

/// Reads what Go's `strconv.ParseBool` reads.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Why a text is not a whole number of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnInt32 {
    /// Not a whole number at all.
    Syntax,
    /// A whole number that does not fit.
    Range,
}

fn parse_decimal(text: &str) -> Option<f64> {
    // Rust's own grammar differs in its words and in the underscores; both are kept from it here.
    let allowed = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'e' | b'E' | b'+' | b'-');
    if !text.bytes().all(allowed) || text.starts_with(['+', '-']) || !underscores_separate_digits(text, false)
    {
        return None;
    }
    let value: f64 = text.replace('_', "").parse().ok()?;
    value.is_finite().then_some(value)
}

/// The part of a hexadecimal float after `0x`: digits, an optional point, and an exponent of two that must be
/// there.
fn parse_hex(text: &str) -> Option<f64> {
    let (mantissa_text, exponent_text) = text.split_once(['p', 'P'])?;
    if !underscores_separate_digits(text, true) {
        return None;
    }
    let mut mantissa = 0u64;
    let mut exponent = 0i64;
    let mut has_digits = false;
    let mut is_inexact = false;
    let mut after_point = false;
    for c in mantissa_text.chars().filter(|&c| c != '_') {
        if c == '.' {
            if std::mem::replace(&mut after_point, true) {
                return None;
            }
            continue;
        }
        let digit = u64::from(c.to_digit(16)?);
        has_digits = true;
        if mantissa >> 60 == 0 {
            mantissa = mantissa << 4 | digit;
            exponent -= if after_point { 4 } else { 0 };
        } else {
            // Beyond 60 bits a digit only matters for the rounding of a tie.
            is_inexact |= digit != 0;
            exponent += if after_point { 0 } else { 4 };
        }
    }
    if !has_digits {
        return None;
    }
    let exponent_digits = exponent_text.strip_prefix(['+', '-']).unwrap_or(exponent_text);
    if !exponent_digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut power = 0i64;
    for c in exponent_digits.chars().filter(|&c| c != '_') {
        // Beyond ten thousand every mantissa overflows or vanishes.
        power = (power * 10 + i64::from(c.to_digit(10)?)).min(1_000_000);
    }
    let power = if exponent_text.starts_with('-') { -power } else { power };
    scale_by_power_of_two(mantissa, is_inexact, exponent + power)
}

/// `mantissa x 2^exponent`, rounded once, ties to even; `None` if that is too large.
fn scale_by_power_of_two(mantissa: u64, is_inexact: bool, exponent: i64) -> Option<f64> {
    if mantissa == 0 {
        return Some(0.0);
    }
    let bits = 64 - i64::from(mantissa.leading_zeros());
    // The last bit kept stands for 2^lowest: 53 bits of precision, fewer below the smallest normal number.
    let lowest = (exponent + bits - 53).max(-1074);
    let dropped = lowest - exponent;
    let (mut kept, is_above_half, is_half) = match dropped {
        ..=0 => (mantissa << (-dropped).min(63), false, false),
        1..=64 => {
            let kept = if dropped == 64 { 0 } else { mantissa >> dropped };
            let half = 1u64 << (dropped - 1);
            let rest = if dropped == 64 { mantissa } else { mantissa & ((1 << dropped) - 1) };
            (kept, rest > half || rest == half && is_inexact, rest == half && !is_inexact)
        }
        _ => (0, false, false),
    };
    if is_above_half || is_half && kept % 2 == 1 {
        kept += 1;
    }
    // `kept` has at most 54 bits with a zero at the end, so the conversion is exact; two steps of scaling
    // keep each power of two in range.
    let first = lowest / 2;
    let power = |n: i64| 2f64.powi(n.clamp(-2_000, 2_000) as i32);
    let value = kept as f64 * power(first) * power(lowest - first);
    value.is_finite().then_some(value)
}

/// Whether each underscore stands between two digits; the prefix `0x` counts as a digit.
fn underscores_separate_digits(text: &str, is_hex: bool) -> bool {
    let is_digit = |b: u8| if is_hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
    let bytes = text.as_bytes();
    bytes.iter().enumerate().filter(|&(_, &b)| b == b'_').all(|(at, _)| {
        let follows_digit = if at == 0 { is_hex } else { is_digit(bytes[at - 1]) };
        follows_digit && bytes.get(at + 1).is_some_and(|&b| is_digit(b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_floats_go_reads() {
        let cases: &[(&str, f64)] = &[
            ("1", 1.0),
            ("+1", 1.0),
            ("-0.5", -0.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e23", 1e23),
            ("1E-3", 0.001),
            ("1e-400", 0.0),
            ("1_23.50_0_0e+1_2", 1.235e14),
            ("0x1p0", 1.0),
            ("0X1.8P3", 12.0),
            ("-0x2p3", -16.0),
            ("0x.8p1", 1.0),
            ("0x1e2p0", 482.0),
            ("0x_1_2.3_4_5p+1_2", 74_565.0),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1p-1074", 5e-324),
            ("0x1p-1075", 0.0),
            ("0x1.8p-1075", 5e-324),
            ("0x1p-100000", 0.0),
            ("0x0p100000", 0.0),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.00000000000018p0", 1.000_000_000_000_000_4),
            ("0x1.000000000000081p0", 1.000_000_000_000_000_2),
            ("0x1.00000000000008000000000000001p0", 1.000_000_000_000_000_2),
            ("0x123456789abcdef01p-64", 1.137_777_777_777_777_7),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("+INF", f64::INFINITY),
        ];
        for (text, value) in cases {
            assert_eq!(parse_float(text), Some(*value), "{text}");
        }
        assert!(parse_float("NaN").unwrap().is_nan());
    }

    #[test]
    fn refuses_the_floats_go_refuses() {
        for text in [
            "", "x", " 1", "1 ", "1x", "1.1.", ".", "e5", ".e-1", "1e", "1e+", "+-1", "--1", "+nan", "-nan",
            "infi", "1e400", "-1e400", "0x1p1024", "0x", "0x.p0", "0x1", "0x1e2", "0x1p", "0x1p+",
            "0x1..8p0", "0xgp0", "_1", "1_", "1__2", "1_.5", "1._5", "1.5_e1", "1.5e_1", "0x__1p0", "0x1p_1",
            "0x1_p1", "1,5", "\u{661}",
        ] {
            assert_eq!(parse_float(text), None, "{text:?}");
        }
    }

    #[test]
    fn tells_no_number_from_too_large_a_number() {
        assert_eq!(parse_int32("+5"), Ok(5));
        assert_eq!(parse_int32("-2147483648"), Ok(i32::MIN));
        assert_eq!(parse_int32("2147483648"), Err(NotAnInt32::Range));
        for text in ["", "-", "1.5", "1_0", " 1", "0x1", "ten"] {
            assert_eq!(parse_int32(text), Err(NotAnInt32::Syntax), "{text:?}");
        }
    }

    #[test]
    fn truth_has_twelve_spellings() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(parse_bool(text), Some(true));
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(parse_bool(text), Some(false));
        }
        for text in ["", "yes", "tRUE", " true"] {
            assert_eq!(parse_bool(text), None);
        }
    }

    proptest! {
        #[test]
        fn every_float_reads_back_in_decimal_and_in_hexadecimal(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(parse_float(&format!("{value:e}")), Some(value));
            let exponent = ((bits >> 52) & 0x7ff) as i64;
            let fraction = bits & ((1 << 52) - 1);
            let (mantissa, power) = match exponent {
                0 => (fraction, -1074),
                e => (fraction | 1 << 52, e - 1075),
            };
            let sign = if value.is_sign_negative() { "-" } else { "" };
            prop_assert_eq!(parse_float(&format!("{sign}0x{mantissa:x}p{power}")), Some(value));
        }

        #[test]
        fn garbage_never_panics(text in "[-+0-9a-fxpPeE._]{0,30}|\\PC{0,20}") {
            let _ = parse_float(&text);
            let _ = parse_int32(&text);
        }
    }
}
