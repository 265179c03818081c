//! Names: what is one, and which one was meant.

/// The most bytes of a name.
const NAME_BYTES: usize = 128;

/// The rule that [`is_name`] checks, in the words of a message.
pub(crate) const NAME_RULE: &str = "1 to 128 of A-Z a-z 0-9 _ . -, and not \".\" or \"..\"";

/// Whether `text` can be the name of a pipeline, the id of a step or the name of an output.
///
/// `.` and `..` are no names, so that a name can be the name of a file.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed) && !matches!(text, "." | "..")
}

/// Why a variable of the environment cannot have this name, as the end of a sentence.
pub(crate) fn env_name_fault(name: &str) -> Option<&'static str> {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if name.is_empty() {
        Some("is empty")
    } else if name.contains('=') {
        Some("has \"=\"")
    } else if name.starts_with(|c: char| c.is_ascii_digit()) {
        Some("starts with a digit")
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        Some("has other characters than A-Z a-z 0-9 _")
    } else if starts(&["HODEI_"]) {
        Some("is reserved: HODEI_ belongs to the engine")
    } else if starts(&["LD_", "DYLD_"]) || matches!(name, "BASH_ENV" | "ENV" | "PROMPT_COMMAND") {
        Some("is denied: it makes a loader or a shell run other code")
    } else {
        None
    }
}

/// The end of a message that offers the nearest candidate: `; did you mean "x"?`, or nothing.
pub(crate) fn suggestion<'c>(wrong: &str, candidates: impl Iterator<Item = &'c str>) -> Option<String> {
    let reach = if wrong.chars().count() < 3 { 1 } else { 2 };
    candidates
        .filter_map(|candidate| Some((distance(wrong, candidate, reach)?, candidate)))
        .filter(|&(distance, candidate)| distance < candidate.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| format!("; did you mean \"{candidate}\"?"))
}

/// The edit distance of two texts (a swap of neighbours counts one), unless it is above `reach`.
fn distance(left: &str, right: &str, reach: usize) -> Option<usize> {
    if left.len().abs_diff(right.len()) > reach {
        return None;
    }
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, &a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &b) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(a != b);
            let mut best = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && a == right[column - 1] && left[row - 1] == b {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        if current.iter().all(|&cost| cost > reach) {
            return None;
        }
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().filter(|&cost| cost <= reach)
}
