//! The encoding of an XML document. BigDataViewer has written documents in the platform's encoding that call themselves
//! UTF-8, so the bytes count for more than the declaration.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// The declaration is looked for in so many bytes.
const DECLARATION_BYTES: usize = 256;

/// The text of a document: by its byte order mark; UTF-16 by its zero bytes; UTF-8 when it is valid; else as it declares;
/// else Windows-1252 (Latin-1). Whatever the bytes are, there is some text.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return encoding.decode_without_bom_handling(&bytes[mark..]).0;
    }
    let encoding = match bytes {
        [b'<', 0, ..] => UTF_16LE,
        [0, b'<', ..] => UTF_16BE,
        _ if str::from_utf8(bytes).is_ok() => UTF_8,
        _ => declared(bytes)
            .filter(|encoding| encoding.is_ascii_compatible() && *encoding != UTF_8)
            .unwrap_or(WINDOWS_1252),
    };
    encoding.decode_without_bom_handling(bytes).0
}

/// The encoding that the XML declaration names.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(DECLARATION_BYTES)]);
    let declaration = start.trim_start().strip_prefix("<?xml")?.split("?>").next()?;
    let value = declaration.split_once("encoding")?.1.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    Encoding::for_label(value[1..].split(quote).next()?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(declared: &str) -> String {
        format!("<?xml version=\"1.0\" encoding='{declared}'?><unit>µm</unit>")
    }

    #[test]
    fn every_encoding_gives_the_same_text() {
        let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let latin1 = |text: &str| text.chars().map(|character| character as u8).collect::<Vec<u8>>();
        for declared in ["UTF-8", "ISO-8859-1", "windows-1252", "UTF-16", "nonsense", "us-ascii"] {
            let text = document(declared);
            let marked = format!("\u{feff}{text}");
            for bytes in [
                text.clone().into_bytes(),
                marked.clone().into_bytes(),
                latin1(&text),
                utf16(&text, u16::to_le_bytes),
                utf16(&text, u16::to_be_bytes),
                utf16(&marked, u16::to_le_bytes),
                utf16(&marked, u16::to_be_bytes),
            ] {
                assert_eq!(decode(&bytes), text);
            }
        }
        let greek = encoding_rs::ISO_8859_7.encode("<?xml version=\"1.0\" encoding=\"ISO-8859-7\"?>ωμ").0.into_owned();
        assert!(decode(&greek).ends_with("ωμ"));
    }

    #[test]
    fn damaged_bytes_give_some_text() {
        for bytes in
            [&b""[..], b"\xff\xfe<", b"<\0x", b"\xef\xbb\xbf\xff", b"<?xml encoding=\xff", b"<?xml encoding=\"\xb5"]
        {
            let _ = decode(bytes);
        }
    }
}
