//! Quantities with units, read exactly: no floating point between the file and the number.

use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Units of time in the order that they may follow one another, in nanoseconds.
const TIME_UNITS: [(&str, u128); 4] = [
    ("h", 3_600 * NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("s", NANOS_PER_SECOND),
    ("ms", NANOS_PER_SECOND / 1_000),
];

const MEMORY_UNITS: [(&str, u128); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Reads a duration above zero; the error is the end of a sentence that begins with the quantity.
pub(crate) fn duration(text: &str, most: Duration) -> Result<Duration, String> {
    let wrong = || "is not a duration; write 500ms, 30s, 5m, 2h, 1h30m or a number of seconds".to_owned();
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    let nanos = nanos(magnitude.strip_prefix('+').unwrap_or(magnitude)).map_err(|fault| match fault {
        DecimalFault::NotDecimal => wrong(),
        DecimalFault::TooFine => "is finer than a nanosecond".to_owned(),
        DecimalFault::TooLarge => above(show_duration(most)),
    })?;
    if text.starts_with('-') || nanos == 0 {
        return Err("is not more than zero".to_owned());
    }
    if nanos > most.as_nanos() {
        return Err(above(show_duration(most)));
    }
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND).map_err(|_| above(show_duration(most)))?;
    let rest = u32::try_from(nanos % NANOS_PER_SECOND).map_err(|_| wrong())?;
    Ok(Duration::new(seconds, rest))
}

/// Reads thousandths of a processor: `500m`, `2` or `0.5`.
pub(crate) fn cpu_millis(text: &str, most: u64) -> Result<u64, String> {
    let (number, scale) = text.strip_suffix('m').map_or((text, 1_000), |number| (number, 1));
    let wrong = "is not a number of processors; write 500m, 2 or 0.5";
    whole(number, scale, most, wrong, "is finer than 1m", &format!("{most}m"))
}

/// Reads bytes of memory: `256MiB`, `1GiB`, `512MB` or a number of bytes.
pub(crate) fn memory_bytes(text: &str, most: u64) -> Result<u64, String> {
    let unit = MEMORY_UNITS.iter().find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    let (number, scale) = unit.unwrap_or((text, 1));
    let wrong = "is not an amount of memory; write a number of bytes or one with \
                 KiB, MiB, GiB, TiB, KB, MB, GB or TB";
    whole(number, scale, most, wrong, "is not a whole number of bytes", &format!("{most} bytes"))
}

fn whole(number: &str, scale: u128, most: u64, wrong: &str, fine: &str, limit: &str) -> Result<u64, String> {
    let magnitude = number.strip_prefix('-').unwrap_or(number);
    let value =
        decimal(magnitude.strip_prefix('+').unwrap_or(magnitude), scale).map_err(|fault| match fault {
            DecimalFault::NotDecimal => wrong.to_owned(),
            DecimalFault::TooFine => fine.to_owned(),
            DecimalFault::TooLarge => above(limit),
        })?;
    if number.starts_with('-') {
        return Err("is negative".to_owned());
    }
    u64::try_from(value).ok().filter(|&value| value <= most).ok_or_else(|| above(limit))
}

fn above(limit: impl std::fmt::Display) -> String {
    format!("is above the limit of {limit}")
}

#[derive(Debug)]
enum DecimalFault {
    NotDecimal,
    TooFine,
    TooLarge,
}

/// The sum of a text such as `1h30m`, whose units go down; a lone number is of seconds.
fn nanos(text: &str) -> Result<u128, DecimalFault> {
    let is_number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if !text.is_empty() && text.bytes().all(is_number) {
        return decimal(text, NANOS_PER_SECOND);
    }
    let mut units = TIME_UNITS.iter();
    let mut rest = text;
    let mut sum: u128 = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.bytes().take_while(|&byte| is_number(byte)).count());
        let (unit, next) = tail.split_at(tail.bytes().take_while(u8::is_ascii_alphabetic).count());
        let (_, scale) = units.find(|(name, _)| *name == unit).ok_or(DecimalFault::NotDecimal)?;
        sum = sum.checked_add(decimal(number, *scale)?).ok_or(DecimalFault::TooLarge)?;
        rest = next;
    }
    if text.is_empty() { Err(DecimalFault::NotDecimal) } else { Ok(sum) }
}

/// `digits`, `digits.digits` or `.digits` times `scale`, exactly.
fn decimal(text: &str, scale: u128) -> Result<u128, DecimalFault> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || fraction.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(DecimalFault::NotDecimal);
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    // Within these lengths no product below leaves 128 bits: 10^20 times a TiB or an hour of nanoseconds.
    if whole.len() > 20 {
        return Err(DecimalFault::TooLarge);
    }
    if fraction.len() > 18 {
        return Err(DecimalFault::TooFine);
    }
    let number = |part: &str| part.bytes().fold(0_u128, |sum, byte| sum * 10 + u128::from(byte - b'0'));
    let parts = fraction.bytes().fold(1_u128, |parts, _| parts * 10);
    let scaled = number(fraction) * scale;
    if !scaled.is_multiple_of(parts) {
        return Err(DecimalFault::TooFine);
    }
    Ok(number(whole) * scale + scaled / parts)
}

/// A duration in the largest unit that writes it whole.
fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let unit = TIME_UNITS.iter().find(|(_, scale)| nanos.is_multiple_of(*scale));
    unit.map_or_else(|| format!("{duration:?}"), |(name, scale)| format!("{}{name}", nanos / scale))
}
