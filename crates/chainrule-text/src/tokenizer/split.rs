//! Text to the words within which byte-pair encoding merges.

use super::letters::is_letter;

/// GPT-2's words, which are all of the text, one after another:
///
/// ```text
/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// ```
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let length = first_word(rest)?;
        let (word, after) = rest.split_at(length);
        rest = after;
        Some(word)
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

fn class(c: char) -> Class {
    if is_letter(c) {
        Class::Letter
    } else if c.is_numeric() {
        Class::Number
    } else if c.is_whitespace() {
        Class::Space
    } else {
        Class::Other
    }
}

/// The length of the first word; `None` of an empty text.
fn first_word(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    if first == '\'' {
        let suffixes = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
        if let Some(suffix) = suffixes.iter().find(|suffix| text.starts_with(**suffix)) {
            return Some(suffix.len());
        }
    }
    // ` ?` and characters of one class
    let begin = usize::from(first == ' ');
    match text[begin..].chars().next().map(class) {
        Some(Class::Space) | None => Some(spaces(text)),
        Some(of) => Some(begin + run(&text[begin..], of)),
    }
}

/// The length of the characters of a class at the start.
fn run(text: &str, of: Class) -> usize {
    text.char_indices().find(|&(_, c)| class(c) != of).map_or(text.len(), |(at, _)| at)
}

/// White space at the start, but for the last character if something follows and another comes before it.
fn spaces(text: &str) -> usize {
    let all = run(text, Class::Space);
    let last = text[..all].chars().next_back().map_or(0, char::len_utf8);
    if all == text.len() || all == last { all } else { all - last }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        words(text).collect()
    }

    #[test]
    fn words_are_those_of_gpt_2() {
        assert_eq!(
            split("Hello world, it's  2024!\n"),
            ["Hello", " world", ",", " it", "'s", " ", " 2024", "!", "\n"]
        );
        assert_eq!(split("a   b"), ["a", "  ", " b"]);
        assert_eq!(split("a\n\nb"), ["a", "\n", "\n", "b"]);
        assert_eq!(split("a\nb  "), ["a", "\n", "b", "  "]);
        assert_eq!(split("x \n y"), ["x", " \n", " y"]);
        assert_eq!(split("we'll 'They'RE '"), ["we", "'ll", " '", "They", "'", "RE", " '"]);
        assert_eq!(split("naïve жук 12³½ ☃☃ "), ["naïve", " жук", " 12³½", " ☃☃", " "]);
        assert_eq!(split("a\u{a0}b\tc"), ["a", "\u{a0}", "b", "\t", "c"]);
        assert_eq!(split(" "), [" "]);
        assert!(split("").is_empty());
    }
}
