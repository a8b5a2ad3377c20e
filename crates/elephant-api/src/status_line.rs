//! Messages as an HTTP status line can carry them: printable ASCII in one line.
//!
//! The ELEPHANT client shows the status line, so it has to be readable: letters and signs are written with ASCII characters,
//! and what has no such form as its code point, `\u{65e5}`. Long messages are cut; the body has all of them.

use hyper::ext::ReasonPhrase;

/// A status line longer than this is cut; the body has the whole message.
const MAX_BYTES: usize = 400;

/// `message` for the status line.
pub(crate) fn reason_phrase(message: &str) -> Option<ReasonPhrase> {
    let mut text = ascii(message);
    if text.len() > MAX_BYTES {
        text.truncate(MAX_BYTES - 3);
        text.push_str("...");
    }
    ReasonPhrase::try_from(text.into_bytes()).ok()
}

/// `text` in printable ASCII.
fn ascii(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_graphic() {
            written.push(c);
        } else if c.is_whitespace() || c.is_control() {
            written.push(' ');
        } else if let Some(replacement) = replacement(c) {
            written.push_str(replacement);
        } else if !is_combining(c) {
            written.extend(c.escape_unicode());
        }
    }
    written
}

/// How a sign or a Latin letter is written in ASCII.
fn replacement(c: char) -> Option<&'static str> {
    const TABLE: &[(&str, &str)] = &[
        ("…", "..."),
        ("‐‑‒–—―−", "-"),
        ("‘’‚‛′´", "'"),
        ("“”„‟″«»", "\""),
        ("‹", "<"),
        ("›", ">"),
        ("·•", "*"),
        ("×", "x"),
        ("÷", "/"),
        ("±", "+-"),
        ("≤", "<="),
        ("≥", ">="),
        ("≠", "!="),
        ("→", "->"),
        ("←", "<-"),
        ("µμ", "u"),
        ("°", " deg"),
        ("²", "2"),
        ("³", "3"),
        ("¹", "1"),
        ("½", "1/2"),
        ("¼", "1/4"),
        ("¾", "3/4"),
        ("€", "EUR"),
        ("©", "(c)"),
        ("®", "(r)"),
        ("ß", "ss"),
        ("ẞ", "SS"),
        ("Æ", "AE"),
        ("æ", "ae"),
        ("Œ", "OE"),
        ("œ", "oe"),
        ("Þ", "Th"),
        ("þ", "th"),
        ("ÀÁÂÃÄÅĀĂĄǍ", "A"),
        ("àáâãäåāăąǎª", "a"),
        ("ÇĆĈĊČ", "C"),
        ("çćĉċč", "c"),
        ("ÐĎĐ", "D"),
        ("ðďđ", "d"),
        ("ÈÉÊËĒĔĖĘĚ", "E"),
        ("èéêëēĕėęě", "e"),
        ("ĜĞĠĢ", "G"),
        ("ĝğġģ", "g"),
        ("ĤĦ", "H"),
        ("ĥħ", "h"),
        ("ÌÍÎÏĨĪĬĮİǏ", "I"),
        ("ìíîïĩīĭįıǐ", "i"),
        ("Ĵ", "J"),
        ("ĵ", "j"),
        ("Ķ", "K"),
        ("ķĸ", "k"),
        ("ĹĻĽĿŁ", "L"),
        ("ĺļľŀł", "l"),
        ("ÑŃŅŇŊ", "N"),
        ("ñńņňŋŉ", "n"),
        ("ÒÓÔÕÖØŌŎŐǑ", "O"),
        ("òóôõöøōŏőǒº", "o"),
        ("ŔŖŘ", "R"),
        ("ŕŗř", "r"),
        ("ŚŜŞŠȘ", "S"),
        ("śŝşšșſ", "s"),
        ("ŢŤŦȚ", "T"),
        ("ţťŧț", "t"),
        ("ÙÚÛÜŨŪŬŮŰŲǓ", "U"),
        ("ùúûüũūŭůűųǔ", "u"),
        ("Ŵ", "W"),
        ("ŵ", "w"),
        ("ÝŶŸ", "Y"),
        ("ýÿŷ", "y"),
        ("ŹŻŽ", "Z"),
        ("źżž", "z"),
    ];
    TABLE.iter().find(|(written, _)| written.contains(c)).map(|&(_, replacement)| replacement)
}

/// Accents that follow their letter, as macOS writes file names, and signs without width.
fn is_combining(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn signs_and_letters_have_an_ascii_form() {
        for (text, expected) in [
            ("groups t00000, t00001, … of 5 × 3 µm – “so”", "groups t00000, t00001, ... of 5 x 3 um - \"so\""),
            ("the model Größe ü.pth does not exist", "the model Grosse u.pth does not exist"),
            ("Gro\u{308}ße\r\nMüller-Łódź", "Grosse  Muller-Lodz"),
            ("日本.h5?", "\\u{65e5}\\u{672c}.h5?"),
        ] {
            assert_eq!(ascii(text), expected);
        }
        assert_eq!(reason_phrase(&"日".repeat(300)).unwrap().as_bytes().len(), MAX_BYTES);
    }

    proptest! {
        #[test]
        fn every_text_can_be_sent(text in "\\PC{0,80}|.{0,80}") {
            let phrase = reason_phrase(&text).unwrap();
            prop_assert!(phrase.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)));
            prop_assert!(text.contains('?') || !phrase.as_bytes().contains(&b'?'));
        }
    }
}
