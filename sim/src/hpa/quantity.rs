//! Kubernetes quantities: `10`, `500m`, `1.5`, `1k`, `2Gi`, `1e3`. The autoscaler works with whole thousandths.

/// A quantity as it was written: `mantissa` x 10^`decimal` x 2^`binary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity {
    mantissa: u64,
    decimal: i32,
    binary: u32,
}

impl Quantity {
    /// Reads a quantity that is not negative; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('+').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        // More digits than there are in 64 bits are nobody's target.
        let mantissa: u64 = format!("{whole}{fraction}").parse().ok()?;
        let (exponent, binary) = suffix_power(suffix)?;
        let decimal = exponent - i32::try_from(fraction.len()).ok()?;
        Some(Quantity { mantissa, decimal, binary })
    }

    /// In thousandths, the rest of one rounded up, as Kubernetes does; `None` if there are too many to count.
    pub(super) fn milli(self) -> Option<u64> {
        let scaled = u128::from(self.mantissa).checked_mul(1 << self.binary)?;
        let power = self.decimal + 3;
        let ten = 10_u128.checked_pow(power.unsigned_abs());
        let milli = match ten {
            Some(ten) if power >= 0 => scaled.checked_mul(ten)?,
            Some(ten) => scaled.div_ceil(ten),
            // A part of one this small, or a multiple this large, leaves only zero what it is.
            None if power < 0 || self.mantissa == 0 => u128::from(self.mantissa > 0),
            None => return None,
        };
        // A bound of Kubernetes' own: it counts with a sign.
        i64::try_from(milli).ok().map(i64::unsigned_abs)
    }

    /// As a number.
    pub(super) fn value(self) -> f64 {
        // Divided, not multiplied by a negative power: 1/20 and 0.05 are the same number then.
        let (whole, ten) = (self.mantissa as f64 * 2_f64.powi(self.binary as i32), self.decimal);
        if ten < 0 { whole / 10_f64.powi(-ten) } else { whole * 10_f64.powi(ten) }
    }
}

/// The power of ten and the power of two a suffix stands for.
fn suffix_power(suffix: &str) -> Option<(i32, u32)> {
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty()) {
        let is_number = exponent.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit());
        let exponent: i32 = exponent.parse().ok().filter(|_| is_number)?;
        return (exponent.abs() <= 30).then_some((exponent, 0));
    }
    let known: &[(&str, i32, u32)] = &[
        ("", 0, 0),
        ("n", -9, 0),
        ("u", -6, 0),
        ("m", -3, 0),
        ("k", 3, 0),
        ("M", 6, 0),
        ("G", 9, 0),
        ("T", 12, 0),
        ("P", 15, 0),
        ("E", 18, 0),
        ("Ki", 0, 10),
        ("Mi", 0, 20),
        ("Gi", 0, 30),
        ("Ti", 0, 40),
        ("Pi", 0, 50),
        ("Ei", 0, 60),
    ];
    known.iter().find(|(name, ..)| *name == suffix).map(|&(_, ten, two)| (ten, two))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_thousandths_and_rounded_up() {
        let cases = [
            ("10", 10_000),
            ("+1.5", 1_500),
            (".5", 500),
            ("5.", 5_000),
            ("500m", 500),
            ("0", 0),
            ("1k", 1_000_000),
            ("2Ki", 2_048_000),
            ("1e3", 1_000_000),
            ("1E-2", 10),
            ("0.0001", 1),
            ("1500u", 2),
            ("1n", 1),
            ("0E", 0),
        ];
        for (text, milli) in cases {
            assert_eq!(Quantity::parse(text).and_then(Quantity::milli), Some(milli), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_or_too_large_a_one_is_refused() {
        for text in ["", "m", ".", "1.2.3", "-1", "ten", "1 ", "1x", "1e", "1e99", "1e+-2", "1mm", "10%"] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
        for text in ["9E", "8Ei", "99999999999999999999", "1e30"] {
            assert_eq!(Quantity::parse(text).and_then(Quantity::milli), None, "{text}");
        }
    }

    #[test]
    fn a_tolerance_is_the_nearest_number_to_what_was_written() {
        let cases = [("0.05", 0.05), ("50m", 0.05), ("0.1", 0.1), ("0", 0.0), ("1", 1.0), ("2Ki", 2_048.0)];
        for (text, value) in cases {
            assert_eq!(Quantity::parse(text).map(Quantity::value), Some(value), "{text}");
        }
    }
}
