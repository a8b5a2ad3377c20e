//! Track tables: `man_track.txt` of a ground truth, `res_track.txt` of a result.

use std::{
    collections::HashSet,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
};

use elephant_fs::FsError;
use elephant_types::{TrackId, TrackRow};

use crate::CtcError;

/// The longest line that is read; four numbers have at most 43 characters.
const LONGEST_LINE: u64 = 256;

/// The most tracks of a table.
const MOST_TRACKS: usize = 1 << 26;

/// Reads a track table: one line for each track with its number, its first and last timepoint, and the number of its
/// parent or 0, separated by blanks. Empty lines are skipped.
///
/// Tracks come in the order of the lines. Whether parents exist, and end before their children begin, is not checked.
///
/// # Errors
/// When the file cannot be read, for a line that is not four numbers, a track with number 0 or that ends before it begins,
/// and for two lines with the same track.
pub fn read_tracks(path: &Path) -> Result<Vec<TrackRow>, CtcError> {
    let file = elephant_fs::open_file(path)?;
    let mut reader = BufReader::new(file);
    let (mut rows, mut known) = (Vec::new(), HashSet::new());
    for number in 1.. {
        let mut line = Vec::new();
        let read = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(FsError::io("read", path))?;
        if read == 0 {
            break;
        }
        let invalid = |reason: String| CtcError::InvalidTable { path: path.to_owned(), line: number, reason };
        if read as u64 == LONGEST_LINE {
            return Err(invalid("it is too long".to_owned()));
        }
        let Ok(line) = str::from_utf8(&line) else { return Err(invalid("it is not text".to_owned())) };
        if line.trim().is_empty() {
            continue;
        }
        let row = parse(line).map_err(invalid)?;
        if !known.insert(row.id) {
            return Err(invalid(format!("track {} has another line", row.id)));
        }
        if rows.len() == MOST_TRACKS {
            return Err(invalid(format!("there are more than {MOST_TRACKS} tracks")));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn parse(line: &str) -> Result<TrackRow, String> {
    let numbers: Vec<u32> = line
        .split_ascii_whitespace()
        .map(|word| word.parse().map_err(|_| format!("{word:?} is not a whole number from 0 to {}", u32::MAX)))
        .collect::<Result<_, _>>()?;
    let [id, begin, end, parent] = numbers[..] else {
        return Err(format!("it has {} numbers", numbers.len()));
    };
    let id = TrackId::new(id).ok_or("track 0 is the background")?;
    if end < begin {
        return Err("the track ends before it begins".to_owned());
    }
    Ok(TrackRow { id, begin, end, parent: TrackId::new(parent) })
}

/// Writes a track table.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_tracks(rows: impl IntoIterator<Item = TrackRow>, out: &mut impl Write) -> io::Result<()> {
    rows.into_iter().try_for_each(|row| writeln!(out, "{row}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<TrackRow>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("res_track.txt");
        std::fs::write(&path, text).unwrap();
        read_tracks(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn other_line_ends_and_blanks_are_read() {
        let rows = read(b"1 0 7 0\r\n\n2\t3  4 1 \n7 5 5 2").unwrap();
        let mut text = Vec::new();
        write_tracks(rows, &mut text).unwrap();
        assert_eq!(text, b"1 0 7 0\n2 3 4 1\n7 5 5 2\n");
        assert!(read(b"").unwrap().is_empty());
    }

    #[test]
    fn invalid_lines_are_named() {
        for (text, word) in [
            (&b"1 0 7 0\n2 3 4"[..], "line 2"),
            (b"1 0 7", "it has 3 numbers"),
            (b"1 0 7 0 0", "it has 5 numbers"),
            (b"1 0 -7 0", "\"-7\" is not a whole number"),
            (b"1 0 NaN 0", "\"NaN\""),
            (b"1 0 99999999999 0", "\"99999999999\""),
            (b"0 0 7 0", "background"),
            (b"1 4 3 0", "ends before it begins"),
            (b"1 0 3 0\n1 4 5 0", "another line"),
            (&[b' '; 1000], "too long"),
            (&[0xff, 0xfe], "not text"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }
}
