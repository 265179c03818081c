//! A Rust source file as the rules see it: its text, and its code without comments and without what strings say.

/// The mark that stands in the code for each byte of a string; it is no blank, no brace and no part of a word.
const STRING: u8 = b'"';

/// One source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// The path from the root of the workspace, with `/` between its parts.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// The file, line for line, with comments blanked and the insides of strings covered.
    pub(crate) code: String,
}

/// One function that has a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its `fn`, counted from 1.
    pub(crate) line: usize,
    /// How many lines of its body hold code.
    pub(crate) length: usize,
    /// Whether its attributes expect `clippy::too_many_lines`.
    pub(crate) may_be_long: bool,
}

impl Source {
    /// Reads `text` as the file at `path`.
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { path: path.into(), code: covered(&text), text }
    }

    /// Whether the file says of itself that a program wrote it.
    pub(crate) fn is_generated(&self) -> bool {
        self.text.lines().next().is_some_and(|line| line.contains("@generated"))
    }

    /// How many lines the file has.
    pub(crate) fn length(&self) -> usize {
        self.text.lines().count()
    }

    /// The words of the code with the lines they stand on.
    pub(crate) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.code).flat_map(|(number, line)| {
            line.split(|letter: char| !is_word(letter))
                .filter(|word| !word.is_empty())
                .map(move |word| (number, word))
        })
    }

    /// The lines of the code, numbered from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.code)
    }

    /// The functions that have a body, in order.
    pub(crate) fn functions(&self) -> Vec<Function> {
        self.code.match_indices("fn ").filter_map(|(at, _)| function_at(&self.code, at)).collect()
    }
}

/// The lines of `text`, numbered from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Whether `letter` can be part of an identifier.
fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

/// Reads the function whose `fn` stands at `at`; a type like `fn(u8)` or a declaration without a body is none.
fn function_at(code: &str, at: usize) -> Option<Function> {
    if code[..at].ends_with(is_word) {
        return None;
    }
    let name: String = code[at + 3..].chars().take_while(|letter| is_word(*letter)).collect();
    let body = if name.is_empty() { None } else { body_after(code, at) }?;
    let before = &code[code[..at].rfind(['{', '}', ';']).map_or(0, |end| end + 1)..at];
    let attributes: String = before.split_whitespace().collect();
    Some(Function {
        name,
        line: code[..at].matches('\n').count() + 1,
        length: body.lines().filter(|line| !line.trim().is_empty()).count(),
        may_be_long: attributes.contains("expect(clippy::too_many_lines"),
    })
}

/// What stands between the braces of the item that starts at `at`, if it has braces before its `;`.
fn body_after(code: &str, at: usize) -> Option<&str> {
    let mut nested = 0_usize;
    for (index, letter) in code[at..].char_indices() {
        match letter {
            '(' | '[' => nested += 1,
            ')' | ']' => nested = nested.saturating_sub(1),
            ';' if nested == 0 => return None,
            '{' if nested == 0 => return Some(&code[at + index + 1..closing_brace(code, at + index)]),
            _ => {}
        }
    }
    None
}

/// Where the brace that opens at `open` closes, or the end of the code.
pub(crate) fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, letter) in code[open..].char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return open + index,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Blanks the comments of `text` and covers what its strings and characters say; lines stay where they are.
fn covered(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    while code.len() < bytes.len() {
        let at = code.len();
        let (length, cover) = token(bytes, at);
        let taken = &bytes[at..(at + length).min(bytes.len())];
        match cover {
            None => code.extend_from_slice(taken),
            Some(mark) => code.extend(taken.iter().map(|byte| if *byte == b'\n' { b'\n' } else { mark })),
        }
    }
    String::from_utf8(code).expect("only whole comments and strings are covered")
}

/// The length of the token at `at`, and the mark that covers it, if one does.
fn token(bytes: &[u8], at: usize) -> (usize, Option<u8>) {
    let rest = &bytes[at..];
    let in_word = at > 0 && (bytes[at - 1] == b'_' || bytes[at - 1].is_ascii_alphanumeric());
    match rest {
        [b'/', b'/', ..] => (until(rest, b"\n"), Some(b' ')),
        [b'/', b'*', ..] => (block_comment(rest), Some(b' ')),
        [b'"', ..] => (quoted(rest, b'"'), Some(STRING)),
        [b'r', b'"' | b'#', ..] if !in_word || raw_prefix(bytes, at) => raw(rest),
        [b'\'', ..] => character(rest),
        _ => (1, None),
    }
}

/// Whether the `r` at `at` follows the `b` or `c` of a raw byte or C string.
fn raw_prefix(bytes: &[u8], at: usize) -> bool {
    let alone = at < 2 || !(bytes[at - 2] == b'_' || bytes[at - 2].is_ascii_alphanumeric());
    alone && matches!(bytes[at - 1], b'b' | b'c')
}

/// The length of a raw string such as `r#"…"#`; a raw identifier such as `r#type` is one plain letter.
fn raw(rest: &[u8]) -> (usize, Option<u8>) {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return (1, None);
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let opening = 2 + hashes;
    (opening + until(&rest[opening..], &end) + end.len(), Some(STRING))
}

/// The length of a character such as `'{'` or `'\u{1F}'`; the quote of a lifetime is one plain letter.
fn character(rest: &[u8]) -> (usize, Option<u8>) {
    match rest.get(1) {
        Some(b'\\') => (quoted(rest, b'\''), Some(STRING)),
        Some(first) => {
            let width = match first {
                0xF0.. => 4,
                0xE0.. => 3,
                0xC0.. => 2,
                _ => 1,
            };
            if rest.get(1 + width) == Some(&b'\'') { (2 + width, Some(STRING)) } else { (1, None) }
        }
        None => (1, None),
    }
}

/// The length of what stands in `quote`s, in which `\` takes the next byte with it.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut length = 1;
    while let Some(byte) = rest.get(length) {
        length += match byte {
            b'\\' => 2,
            _ => 1,
        };
        if *byte == quote {
            break;
        }
    }
    length
}

/// The length of a block comment, which may hold others.
fn block_comment(rest: &[u8]) -> usize {
    let (mut length, mut depth) = (2, 1_usize);
    while depth > 0 && length < rest.len() {
        match &rest[length..] {
            [b'*', b'/', ..] => (length, depth) = (length + 2, depth - 1),
            [b'/', b'*', ..] => (length, depth) = (length + 2, depth + 1),
            _ => length += 1,
        }
    }
    length
}

/// How many bytes stand before the first `end`, or all of them.
fn until(rest: &[u8], end: &[u8]) -> usize {
    rest.windows(end.len()).position(|window| window == end).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::{Source, covered};

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(covered(text), expected);
    }

    #[test]
    fn comments_are_blanked_and_strings_are_covered() {
        check("a // todo!()\nb", &format!("a{:11}\nb", ""));
        check("a /* x /* y */ z */ b", &format!("a{:19}b", ""));
        check(r#"f("a\"}", b)"#, r#"f("""""", b)"#);
        check("f(r#\"}\"{\"#, b)", "f(\"\"\"\"\"\"\"\", b)");
        check("br\"{\" + r#type", "b\"\"\"\" + r#type");
    }

    #[test]
    fn characters_are_covered_and_lifetimes_are_not() {
        check("'{' '\\'' '→'", "\"\"\" \"\"\"\" \"\"\"\"\"");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
    }

    #[test]
    fn what_never_ends_reaches_the_end_of_the_file() {
        for text in ["\"", "'", "r\"", "r#\"x\"", "/*", "'\\", "\"\\"] {
            assert_eq!(covered(text).len(), text.len(), "{text}");
        }
    }

    #[test]
    fn functions_are_found_with_their_lengths() {
        let text = "trait T { fn declared(&self); }\nconst X: fn(u8) = y;\n#[expect(\n    clippy::too_many_lines,\n    \
                    reason = \"a table\"\n)]\nfn f(a: [u8; 4]) {\n    // nothing\n    a;\n\n    b { }\n}\n";
        let functions = Source::new("x.rs", text).functions();
        assert_eq!(functions.len(), 1, "{functions:?}");
        let function = &functions[0];
        assert_eq!((function.name.as_str(), function.line, function.length), ("f", 7, 2));
        assert!(function.may_be_long);
    }
}
