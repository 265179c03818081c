//! For any bytes at all: no panic, and an error is one line.

use hodei_pipeline_file::{Limits, parse};
use proptest::prelude::*;

fn check(bytes: &[u8], file: &str) {
    if let Err(error) = parse(bytes, file, &Limits::default()) {
        let message = error.to_string();
        assert!(
            !message.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')),
            "{message:?}"
        );
        let line = error.line().map(|line| format!(":{line}")).unwrap_or_default();
        assert_eq!(message, format!("{}{line}: {}", error.file(), error.cause()));
    }
}

/// Pieces that make YAML of a sort, far more often than random bytes do.
fn piece() -> impl Strategy<Value = String> {
    let pieces: &[&str] = &[
        "steps:",
        "- ",
        "\n",
        "\n  ",
        "\n- ",
        "id: ",
        "run: ",
        "a",
        "b",
        "needs: ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ": ",
        "? ",
        "env: ",
        "A: ",
        "timeout: ",
        "1h30m",
        "-1",
        "retries: ",
        "resources: ",
        "cpu: ",
        "0.5",
        "outputs: ",
        "&x ",
        "*x",
        "!!str ",
        "|",
        ">-",
        "\"",
        "'",
        "\\0",
        "\\n",
        "\t",
        "\r",
        "---\n",
        "...\n",
        "#",
        "<<: ",
        "%YAML",
        "\u{2028}",
        "\u{85}",
        "é",
        "\u{feff}",
        "~",
        "null",
        "99999999999999999999",
        ".nan",
        "name: ",
    ];
    proptest::sample::select(pieces.iter().map(|&piece| piece.to_owned()).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        check(&bytes, "p.yaml");
    }

    #[test]
    fn any_text(text in "\\PC{0,256}", file in any::<String>()) {
        check(text.as_bytes(), &file);
    }

    #[test]
    fn any_pieces(pieces in proptest::collection::vec(piece(), 0..64)) {
        check(pieces.concat().as_bytes(), "p.yaml");
    }

    #[test]
    fn a_file_with_damage(at in 0_usize..400, cut in 0_usize..8, put in proptest::collection::vec(any::<u8>(), 0..4)) {
        let mut bytes = include_bytes!("../../../pipelines/checks.yaml").to_vec();
        let start = at.min(bytes.len());
        let end = (start + cut).min(bytes.len());
        bytes.splice(start..end, put);
        check(&bytes, "p.yaml");
    }
}
