//! How numbers are typed and shown: `15k` phones, `250k..500k`, `30s`, `0.1%`, `12,345`, `1.24 ms`, `7.9 KB`.

use std::ops::Range;
use std::time::Duration;

/// Reads a count: `1500`, `1.5k`, `2m`. The units are thousand and million.
pub fn count(text: &str) -> Result<u64, String> {
    let text = text.trim().to_ascii_lowercase();
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => text
            .strip_suffix('m')
            .map_or((text.as_str(), 1.0), |digits| (digits, 1e6)),
    };
    let plain = digits.replace([',', '_'], "");
    let value = plain
        .parse::<f64>()
        .map_err(|_| format!("`{text}` is no count; write 1500, 15k or 2m"))?
        * unit;
    if value.is_finite() && (0.0..1e15).contains(&value) && (value - value.round()).abs() < 1e-6 {
        Ok(value.round() as u64)
    } else {
        Err(format!("`{text}` is no whole count; write 1500, 15k or 2m"))
    }
}

/// Reads a number of phones: a count that fits 32 bits.
pub fn phones(text: &str) -> Result<u32, String> {
    u32::try_from(count(text)?)
        .map_err(|_| format!("`{text}` is more phones than a client id can number"))
}

/// Reads which phones: a count, which begins at number 0, or a range of numbers, its end not included: `15k`, `250k..500k`.
pub fn range(text: &str) -> Result<Range<u32>, String> {
    let range = match text.split_once("..") {
        Some((from, to)) => phones(from)?..phones(to)?,
        None => 0..phones(text)?,
    };
    if range.is_empty() {
        return Err(format!(
            "`{text}` is no phone at all; write a count like 15k, or a range of numbers like 250k..500k"
        ));
    }
    Ok(range)
}

/// Reads a rate per second, which may be less than one: `20k`, `0.1`.
pub fn rate(text: &str) -> Result<f64, String> {
    let trimmed = text.trim();
    match trimmed.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => count(trimmed)
            .map(|count| count as f64)
            .map_err(|_| format!("`{text}` is no rate; write 0.1, 500 or 20k, each a second")),
    }
}

/// Reads a part of the whole, up to 1: `0.1%` or `0.001`.
pub fn share(text: &str) -> Result<f64, String> {
    let trimmed = text.trim();
    let (digits, whole) = match trimmed.strip_suffix('%') {
        Some(digits) => (digits.trim_end(), 100.0),
        None => (trimmed, 1.0),
    };
    match digits.parse::<f64>() {
        Ok(part) if (0.0..=whole).contains(&part) => Ok(part / whole),
        _ => Err(format!(
            "`{text}` is no share; write 0.1% or 0.001, and 100% at most"
        )),
    }
}

/// Reads a duration: `30` (seconds), `250ms`, `30s`, `5m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!(
                "`{unit}` is no unit of time; write 250ms, 30s, 5m or 1h"
            ));
        }
    };
    let value = digits
        .parse::<f64>()
        .map_err(|_| format!("`{text}` is no duration; write 250ms, 30s, 5m or 1h"))?;
    Duration::try_from_secs_f64(value * seconds).map_err(|_| format!("`{text}` is no duration"))
}

/// `12345` as `12,345`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count that may be large, short: `950`, `15.0k`, `2.00m`.
pub fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2}m", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.1}k", value / 1e3)
    } else {
        format!("{value:.0}")
    }
}

/// Microseconds with a unit that suits them: `85 us`, `1.24 ms`, `2.10 s`.
pub fn micros(value: u64) -> String {
    let us = value as f64;
    if us >= 1e6 {
        format!("{:.2} s", us / 1e6)
    } else if us >= 1e4 {
        format!("{:.0} ms", us / 1e3)
    } else if us >= 1e3 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{value} us")
    }
}

/// Bytes with a unit of 1,024: `812 B`, `7.9 KB`, `1.20 GB`.
pub fn bytes(value: f64) -> String {
    let size = value.abs();
    if size >= 1024.0 * 1024.0 * 1024.0 {
        format!("{:.2} GB", value / (1024.0 * 1024.0 * 1024.0))
    } else if size >= 1024.0 * 1024.0 {
        format!("{:.1} MB", value / (1024.0 * 1024.0))
    } else if size >= 1024.0 {
        format!("{:.1} KB", value / 1024.0)
    } else {
        format!("{value:.0} B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        assert_eq!(count("1500"), Ok(1500));
        assert_eq!(count("1.5k"), Ok(1500));
        assert_eq!(count("2M"), Ok(2_000_000));
        assert_eq!(count("15,000"), Ok(15_000));
        for wrong in ["", "k", "-1", "1.2345k5", "0.5", "many", "nan", "inf"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
        assert!(phones("5000m").is_err());
    }

    #[test]
    fn ranges_rates_and_shares_are_read() {
        assert_eq!(range("15k"), Ok(0..15_000));
        assert_eq!(range("250k..500k"), Ok(250_000..500_000));
        for wrong in ["0", "5..5", "9..5", "..5", "5..", "a..b"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate("0.1"), Ok(0.1));
        assert_eq!(rate("20k"), Ok(20_000.0));
        for wrong in ["-1", "inf", "nan", "fast", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(share("0.1%"), Ok(0.001));
        assert_eq!(share("100 %"), Ok(1.0));
        assert_eq!(share("0.25"), Ok(0.25));
        for wrong in ["5", "101%", "-1%", "%", "all"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "-3s", "3d", "1e400"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_shown() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [micros(85), micros(1240), micros(31_000), micros(2_100_000)],
            ["85 us", "1.24 ms", "31 ms", "2.10 s"]
        );
        assert_eq!([bytes(812.0), bytes(8090.0)], ["812 B", "7.9 KB"]);
        assert_eq!(
            [short(950.0), short(15_000.0), short(2e6)],
            ["950", "15.0k", "2.00m"]
        );
    }
}
