//! Text of a file in an error message: cut, and without control characters.

/// The longest name that a message quotes: longer than any that a framework writes, and a few lines of a terminal.
const LONGEST_NAME: usize = 160;

/// The longest message: a page or two, so that the first problems of a file of 100 000 tensors can be read.
const LONGEST_MESSAGE: usize = 8000;

/// A name of a file, in backticks.
pub(crate) fn quote(name: &str) -> String {
    format!("`{}`", clip(name, LONGEST_NAME))
}

/// A message that quotes a file, or comes from the parser that reads it.
pub(crate) fn message(text: &str) -> String {
    clip(text, LONGEST_MESSAGE)
}

/// At most `most` characters, those that do not print escaped; quotes and backslashes stay, so that cutting twice is cutting
/// once.
fn clip(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    for c in characters.by_ref().take(most) {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    if characters.next().is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_cannot_write_to_the_terminal() {
        assert_eq!(quote("encoder.0.weight"), "`encoder.0.weight`");
        assert_eq!(quote("\u{1b}[2J\u{202e}"), r"`\u{1b}[2J\u{202e}`");
        assert_eq!(quote(&"é".repeat(200)), format!("`{}…`", "é".repeat(160)));
        assert_eq!(message(&message("a\n\"b\"")), "a\\n\"b\"");
    }
}
