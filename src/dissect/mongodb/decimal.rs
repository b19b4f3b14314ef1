//! Decimal numbers of 128 bits (IEEE 754-2008, integer coefficients) as text.

/// The largest coefficient, 34 digits; larger ones mean 0.
const MAX_COEFFICIENT: u128 = 10u128.pow(34) - 1;
/// What is added to exponents.
const BIAS: i32 = 6176;

/// As the specification of BSON writes it: plain if the exponent is small, else scientific.
pub(super) fn string(bits: u128) -> String {
    let sign = if bits >> 127 == 1 { "-" } else { "" };
    let combination = (bits >> 122 & 0x1f) as u8;
    if combination == 0x1f {
        return "NaN".to_owned();
    }
    if combination == 0x1e {
        return format!("{sign}Infinity");
    }
    // Two bits set there mean a coefficient that is too large to be one.
    let large = combination >> 3 == 3;
    let exponent = if large { bits >> 111 } else { bits >> 113 } as i32 & 0x3fff;
    let exponent = exponent - BIAS;
    let coefficient = if large { 0 } else { bits & ((1 << 113) - 1) };
    let coefficient = if coefficient > MAX_COEFFICIENT { 0 } else { coefficient };
    let digits = coefficient.to_string();
    let adjusted = exponent + coefficient.checked_ilog10().unwrap_or(0).cast_signed();
    if exponent > 0 || adjusted < -6 {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        return format!("{sign}{first}{point}{rest}E{adjusted:+}");
    }
    let places = exponent.unsigned_abs() as usize;
    if places == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = places + 1);
    let (whole, part) = digits.split_at(digits.len() - places);
    format!("{sign}{whole}.{part}")
}

#[cfg(test)]
mod tests {
    use super::string;

    fn number(coefficient: u128, exponent: u128) -> String {
        string(exponent << 113 | coefficient)
    }

    #[test]
    fn as_the_specification_writes_them() {
        assert_eq!(number(5, 6174), "0.05");
        assert_eq!(number(1234, 6176), "1234");
        assert_eq!(number(1234, 6174), "12.34");
        assert_eq!(number(1, 6179), "1E+3");
        assert_eq!(number(1234, 6180), "1.234E+7");
        assert_eq!(number(1, 6169), "1E-7");
        assert_eq!(number(0, 6176), "0");
        assert_eq!(string(1 << 127 | 6175 << 113 | 15), "-1.5");
        assert_eq!(string(0x1f << 122), "NaN");
        assert_eq!(string(0x3e << 122), "-Infinity");
        assert_eq!(number(10u128.pow(34), 6176), "0");
    }
}
