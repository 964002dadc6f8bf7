//! Text of a file in a message: cut, and without control characters, lines of a report apart. The constructors of [`Error`](crate::Error) call
//! [`message`], so that no decoder has to think of it; they quote names by [`quote`].

/// The longest name that a message quotes, in characters: longer than any that a framework writes, and a few lines of a
/// terminal.
const LONGEST_NAME: usize = 160;

/// The longest message, in characters: a page or two, so that the first problems of a file of 100 000 tensors can be read.
const LONGEST_MESSAGE: usize = 8000;

/// A name or a value of a file, at most 160 characters of it.
///
/// ```
/// use chainrule_tensor::text;
/// assert_eq!(text::name("\u{1b}[2J"), r"\u{1b}[2J");
/// ```
pub fn name(name: &str) -> String {
    clip(name, LONGEST_NAME, false)
}

/// [`name`] in backticks.
///
/// ```
/// use chainrule_tensor::text;
/// assert_eq!(text::quote("encoder.weight"), "`encoder.weight`");
/// ```
pub fn quote(name: &str) -> String {
    format!("`{}`", self::name(name))
}

/// A message that quotes a file, or comes from a parser that reads one: at most 8000 characters of it.
///
/// ```
/// use chainrule_tensor::text;
/// assert_eq!(text::message(&"é".repeat(9000)).chars().count(), 8001); // and …
/// ```
pub fn message(text: &str) -> String {
    clip(text, LONGEST_MESSAGE, true)
}

/// At most `most` characters and a …, those that do not print escaped, ends of lines apart if there may be `lines`; quotes and
/// backslashes stay, so that cutting twice is cutting once.
fn clip(text: &str, most: usize, lines: bool) -> String {
    let (mut out, mut length) = (String::new(), 0);
    for c in text.chars() {
        let plain = matches!(c, '"' | '\'' | '\\') || (lines && c == '\n');
        let escaped = (!plain).then(|| c.escape_debug());
        length += escaped.as_ref().map_or(1, ExactSizeIterator::len);
        if length > most {
            out.push('…');
            break;
        }
        match escaped {
            Some(escaped) => out.extend(escaped),
            None => out.push(c),
        }
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
        assert_eq!(message(&message("a\t\n\"b\"")), "a\\t\n\"b\"");
        assert_eq!(name("a\nb"), r"a\nb");
        let escapes = message(&"\u{1b}".repeat(9000));
        assert_eq!((escapes.chars().count(), message(&escapes)), (7999, escapes.clone()));
    }
}
