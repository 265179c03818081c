//! What a scalar is under the core schema of YAML 1.2.

use crate::error::{bare, quoted};

/// The type of a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalarKind {
    Null,
    Boolean,
    Integer,
    Float,
    String,
}

/// Resolves a scalar: one in quotes or in a block is a string, a plain one is what it looks like.
pub(crate) fn resolve(text: &str, plain: bool) -> ScalarKind {
    match text {
        _ if !plain => ScalarKind::String,
        "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => ScalarKind::Boolean,
        _ if is_integer(text) => ScalarKind::Integer,
        _ if is_float(text) => ScalarKind::Float,
        _ => ScalarKind::String,
    }
}

/// A scalar in the words of a message.
pub(crate) fn describe(text: &str, plain: bool) -> String {
    match resolve(text, plain) {
        ScalarKind::Null => "null".to_owned(),
        ScalarKind::Boolean => format!("the boolean {}", bare(text)),
        ScalarKind::Integer => format!("the integer {}", bare(text)),
        ScalarKind::Float => format!("the number {}", bare(text)),
        ScalarKind::String => format!("the string {}", quoted(text)),
    }
}

fn is_integer(text: &str) -> bool {
    let all = |digits: &str, test: fn(&u8) -> bool| !digits.is_empty() && digits.as_bytes().iter().all(test);
    match text.as_bytes() {
        [b'0', b'o', ..] => all(&text[2..], |byte| (b'0'..=b'7').contains(byte)),
        [b'0', b'x', ..] => all(&text[2..], u8::is_ascii_hexdigit),
        _ => all(unsigned(text), u8::is_ascii_digit),
    }
}

fn is_float(text: &str) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") || matches!(unsigned(text), ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let text = unsigned(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent = unsigned(exponent);
    let mantissa_ok = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    mantissa_ok && !exponent.is_empty() && digits(exponent)
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}
