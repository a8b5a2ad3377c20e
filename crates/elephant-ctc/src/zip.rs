//! Zip archives that are written while their entries are made.

use std::io::{self, Write};

/// The largest number of a 16-bit and a 32-bit field; it stands for "see the 64-bit field".
const MAX_16: u64 = 0xffff;
const MAX_32: u64 = 0xffff_ffff;

/// Midnight of 1 January 1980, the first date of the format, so that the same entries give the same bytes.
const DATE: [u8; 4] = [0, 0, 0x21, 0];

/// A zip archive on its way to a writer that cannot seek. Entries are stored as they are: label images are compressed
/// already. Archives of 4 GiB and more are in the format's 64-bit form (PKWARE APPNOTE 6.3.3, sections 4.3.7 to 4.3.16).
pub struct ZipStream<W> {
    out: W,
    /// Bytes written so far.
    position: u64,
    entries: u64,
    /// The central directory.
    directory: Vec<u8>,
}

impl<W: Write> ZipStream<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, position: 0, entries: 0, directory: Vec::new() }
    }

    /// Adds a file below no folder, whose name is ASCII.
    ///
    /// # Errors
    /// When the writer fails, for content of 4 GiB and more, and a name of 64 KiB and more or with folders.
    pub fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let invalid = |message: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, message.to_owned()));
        if !name.is_ascii() || name.is_empty() || name.len() as u64 >= MAX_16 || name.contains(['/', '\\']) {
            return invalid("an entry of a zip file needs a short name without folders");
        }
        if content.len() as u64 >= MAX_32 {
            return invalid("an entry of a zip file has 4 GiB or more");
        }
        let offset = self.position;
        let (crc, size) = (libdeflater::crc32(content), content.len() as u32);
        let version: u16 = if offset >= MAX_32 { 45 } else { 20 };
        // What local header and central directory have in common: flags, method, time, sizes, length of the name.
        let mut common = vec![0, 0, 0, 0];
        common.extend_from_slice(&DATE);
        for number in [crc, size, size] {
            common.extend_from_slice(&number.to_le_bytes());
        }
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());

        let mut header = b"PK\x03\x04\x14\0".to_vec();
        header.extend_from_slice(&common);
        header.extend_from_slice(&[0; 2]); // no extra field
        header.extend_from_slice(name.as_bytes());
        self.write(&header)?;
        self.write(content)?;

        let extra: Vec<u8> = match offset {
            MAX_32.. => [&[1, 0, 8, 0][..], &offset.to_le_bytes()].concat(),
            _ => Vec::new(),
        };
        let directory = &mut self.directory;
        directory.extend_from_slice(b"PK\x01\x02");
        directory.extend_from_slice(&version.to_le_bytes());
        directory.extend_from_slice(&version.to_le_bytes());
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        directory.extend_from_slice(&[0; 10]); // no comment, disk 0, no attributes
        directory.extend_from_slice(&(offset.min(MAX_32) as u32).to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
        directory.extend_from_slice(&extra);
        self.entries += 1;
        Ok(())
    }

    /// Writes the archive's directory and returns the writer, flushed.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn finish(mut self) -> io::Result<W> {
        let directory = std::mem::take(&mut self.directory);
        let (start, length, entries) = (self.position, directory.len() as u64, self.entries);
        self.write(&directory)?;
        if start >= MAX_32 || length >= MAX_32 || entries >= MAX_16 {
            let end = self.position;
            let mut record = b"PK\x06\x06".to_vec();
            record.extend_from_slice(&44_u64.to_le_bytes()); // bytes that follow
            record.extend_from_slice(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // versions, disks
            for number in [entries, entries, length, start] {
                record.extend_from_slice(&number.to_le_bytes());
            }
            record.extend_from_slice(b"PK\x06\x07\0\0\0\0");
            record.extend_from_slice(&end.to_le_bytes());
            record.extend_from_slice(&1_u32.to_le_bytes());
            self.write(&record)?;
        }
        let mut record = b"PK\x05\x06\0\0\0\0".to_vec();
        let entries = (entries.min(MAX_16) as u16).to_le_bytes();
        record.extend_from_slice(&entries);
        record.extend_from_slice(&entries);
        record.extend_from_slice(&(length.min(MAX_32) as u32).to_le_bytes());
        record.extend_from_slice(&(start.min(MAX_32) as u32).to_le_bytes());
        record.extend_from_slice(&[0, 0]); // no comment
        self.write(&record)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Seek, SeekFrom};

    use zip::ZipArchive;

    use super::*;

    fn content(archive: &mut ZipArchive<impl Read + Seek>, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn another_program_reads_the_entries() {
        let mut stream = ZipStream::new(Vec::new());
        stream.add("mask000.tif", b"first").unwrap();
        stream.add("mask001.tif", b"").unwrap();
        stream.add("res_track.txt", b"1 0 1 0\n").unwrap();
        for name in ["", "a/b", "..\\b", "\u{e4}"] {
            stream.add(name, b"").unwrap_err();
        }
        let bytes = stream.finish().unwrap();
        let mut archive = ZipArchive::new(Cursor::new(bytes)).unwrap();
        assert_eq!(archive.len(), 3);
        assert_eq!(content(&mut archive, "mask000.tif"), b"first");
        assert_eq!(content(&mut archive, "mask001.tif"), b"");
        assert_eq!(content(&mut archive, "res_track.txt"), b"1 0 1 0\n");
        assert_eq!(ZipArchive::new(Cursor::new(ZipStream::new(Vec::new()).finish().unwrap())).unwrap().len(), 0);
    }

    #[test]
    fn more_than_65535_entries_are_counted_in_64_bits() {
        let mut stream = ZipStream::new(Vec::new());
        for t in 0..70_000 {
            stream.add(&format!("mask{t:05}.tif"), &[t as u8]).unwrap();
        }
        let mut archive = ZipArchive::new(Cursor::new(stream.finish().unwrap())).unwrap();
        assert_eq!(archive.len(), 70_000);
        assert_eq!(content(&mut archive, "mask69999.tif"), [(69_999 % 256) as u8]);
    }

    /// A file that leaves out what is all zeros.
    struct Sparse(std::fs::File);

    impl Write for Sparse {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > 1 << 20 && bytes.iter().all(|&byte| byte == 0) {
                self.0.seek(SeekFrom::Current(bytes.len() as i64))?;
                return Ok(bytes.len());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    #[test]
    fn entries_behind_4_gib_are_found() {
        let zeros = vec![0; 1 << 29];
        let mut stream = ZipStream::new(Sparse(tempfile::tempfile().unwrap()));
        for t in 0..9 {
            stream.add(&format!("mask{t:03}.tif"), &zeros).unwrap();
        }
        stream.add("last", b"last").unwrap();
        let mut archive = ZipArchive::new(stream.finish().unwrap().0).unwrap();
        assert_eq!(archive.len(), 10);
        assert_eq!(content(&mut archive, "last"), b"last");
    }
}
