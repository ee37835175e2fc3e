//! Invisible characters: two names that differ only in such a character look the same, or are displayed in another
//! order.
//!
//! Joiners (U+200C, U+200D), variation selectors and tags are allowed: scripts and emoji need them.

use std::fmt;

/// An invisible character, which names in requests may not contain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hidden(char);

impl Hidden {
    /// The first invisible character in `text`. Plain ASCII has none.
    pub(crate) fn first_in(text: &str) -> Option<Self> {
        if text.is_ascii() {
            return None;
        }
        text.chars().find(|char| is_hidden(*char)).map(Self)
    }

    fn name(self) -> &'static str {
        match self.0 {
            '\u{ad}' => "soft hyphen",
            '\u{200b}' => "zero width space",
            '\u{2060}' => "word joiner",
            '\u{feff}' => "byte order mark",
            '\u{2028}' | '\u{2029}' => "line or paragraph separator",
            '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => {
                "control of the writing direction"
            }
            '\u{2066}'..='\u{206f}' => "control of the writing direction",
            _ => "invisible",
        }
    }
}

/// The code point and its name: `U+200B (zero width space)`.
impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "U+{:04X} ({})", u32::from(self.0), self.name())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The characters of Unicode's class Cf that no script needs, the line and paragraph separators, and letters that render
/// as blanks.
fn is_hidden(char: char) -> bool {
    matches!(
        char,
        '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
    )
}

/// `text` with its invisible characters escaped, for output that may contain names that former versions recorded.
pub fn shown(text: &str) -> String {
    if Hidden::first_in(text).is_none() {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match is_hidden(char) {
            true => shown.push_str(&format!("⟨U+{:04X}⟩", u32::from(char))),
            false => shown.push(char),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_found_and_named() {
        for (text, told) in [
            ("sport\u{200b}s", "U+200B (zero width space)"),
            ("\u{feff}sports", "U+FEFF (byte order mark)"),
            ("a\u{202e}b", "U+202E (control of the writing direction)"),
            ("a\u{2069}", "U+2069 (control of the writing direction)"),
            ("so\u{ad}ft", "U+00AD (soft hyphen)"),
            ("\u{3164}", "U+3164 (invisible)"),
        ] {
            assert_eq!(Hidden::first_in(text).unwrap().to_string(), told);
        }
        for text in [
            "sports",
            "שלום עולם",
            "👨\u{200d}👩\u{200d}👧",
            "می\u{200c}خواهم",
            "❤\u{fe0f}",
            "e\u{301}",
        ] {
            assert_eq!(Hidden::first_in(text), None, "{text}");
        }
        assert_eq!(shown("a\u{202e}b"), "a⟨U+202E⟩b");
        assert_eq!(shown("🏀"), "🏀");
    }
}
