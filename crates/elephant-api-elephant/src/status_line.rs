//! Messages as an HTTP status line can carry them: printable ASCII in one line.
//!
//! The ELEPHANT client shows the status line in large letters over the image, where some 70 characters have room, so it has
//! to be short and readable: letters and signs are written with ASCII characters, and what has no such form as its code
//! point, `\u{65e5}`. Of a long message only whole clauses are taken; the body has all of it.

use hyper::ext::ReasonPhrase;

/// Longest text of a status line.
const MAX_CHARS: usize = 64;

/// `message` for the status line; where it is too long, `brief`, or as many clauses from the beginning as have room. `None`
/// when not even the first one has: the status's standard text is left then.
pub(crate) fn reason_phrase(message: &str, brief: Option<&str>) -> Option<ReasonPhrase> {
    let message = ascii(message);
    let text = match brief {
        Some(brief) if message.len() > MAX_CHARS => ascii(brief),
        _ => message,
    };
    ReasonPhrase::try_from(leading_clauses(&text)?.as_bytes()).ok()
}

/// As much of `text` as has room, up to the end of a clause.
fn leading_clauses(text: &str) -> Option<&str> {
    if text.len() <= MAX_CHARS {
        return Some(text);
    }
    let longest = |end: &str| {
        let clauses = text.match_indices(end).map(|(at, _)| &text[..at]);
        clauses.take_while(|clause| clause.len() <= MAX_CHARS).filter(|clause| is_whole(clause)).last()
    };
    // A field's name alone says nothing. A comma may also stand in a list, so it is the last choice.
    let says_something = |clause: &&str| clause.contains(' ');
    longest("; ").or_else(|| longest(": ").filter(says_something)).or_else(|| longest(", ").filter(says_something))
}

/// Whether the text does not end within brackets or quotes.
fn is_whole(text: &str) -> bool {
    let count = |sign| text.matches(sign).count();
    !text.is_empty()
        && count('(') == count(')')
        && count('[') == count(']')
        && count('{') == count('}')
        && count('"') % 2 == 0
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

    use crate::*;

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
    }

    fn shown(message: &str, brief: Option<&str>) -> Option<String> {
        reason_phrase(message, brief).map(|phrase| String::from_utf8(phrase.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn long_messages_end_with_a_clause() {
        let name = "x".repeat(60);
        for (message, expected) in [
            (
                "the dataset fly does not exist; upload its movie and make it with POST /dataset/generate",
                Some("the dataset fly does not exist"),
            ),
            (
                "the crop box is not inside the image: it is at [0, 0, 0] (x, y, z) with the size [49, 48, 16]",
                Some("the crop box is not inside the image"),
            ),
            (
                "the tag \"xy\" is not known; the tags are tp, fp, tn, fn, tb and fb",
                Some("the tag \"xy\" is not known"),
            ),
            (
                "the prediction needs 123456.7 GB of memory, of which 1234567.8 are free",
                Some("the prediction needs 123456.7 GB of memory"),
            ),
            ("crop_box must have 6 numbers (the origin, x, y, z; the size, x, y, z), in voxels of the image", None),
            (&format!("the dataset does not exist: {name}"), Some("the dataset does not exist")),
            (&format!("{name} does not exist"), None),
            (&name, Some(name.as_str())),
            (&"日".repeat(30), None),
        ] {
            assert_eq!(shown(message, None).as_deref(), expected, "{message}");
        }
        assert_eq!(shown(&format!("{name} is gone"), Some("it is gone")).as_deref(), Some("it is gone"));
        assert_eq!(shown("it is not there", Some("gone")).as_deref(), Some("it is not there"));
    }

    proptest! {
        #[test]
        fn every_text_can_be_sent(text in "\\PC{0,80}|.{0,80}|([a-z;:,()\"]{1,9} ){0,30}") {
            let Some(phrase) = shown(&text, None) else { return Ok(()) };
            prop_assert!(phrase.len() <= MAX_CHARS && phrase.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(text.contains('?') || !phrase.contains('?'));
        }
    }
}
