//! The state after some entry, in a file beside the database, so that a project is opened without reading its whole log.
//!
//! A snapshot may be missing, damaged or of another log: it is used only when its own checksum is right and the log has its
//! entry with the same checksum. So it is written without being flushed.

use std::{collections::HashMap, fs, path::Path};

use crate::{
    Change, SpotKey,
    codec::{Reader, Writer},
    history::{History, Stacks},
    state::{LinkData, Stamp, State},
};

const MAGIC: &[u8; 8] = b"elpsnap2";
/// Bytes of a spot with what belongs to it.
const SPOT_BYTES: usize = 112;
/// Bytes of a link between two spots, which are counted in their order.
const LINK_BYTES: usize = 29;

/// The state as bytes.
pub(crate) fn to_bytes(state: &State) -> Vec<u8> {
    let mut writer = Writer(Vec::with_capacity(state.spot_count() * (SPOT_BYTES + LINK_BYTES) + 1024));
    writer.0.extend_from_slice(MAGIC);
    writer.u64(state.seq);
    writer.u32(state.checksum);
    writer.u64(state.next_key);
    writer.u64(state.authors.len() as u64);
    state.authors.iter().for_each(|author| writer.text(author));
    writer.u64(state.history.0.len() as u64);
    for (author, Stacks { done, undone }) in &state.history.0 {
        writer.u32(*author);
        for stack in [done, undone] {
            writer.u64(stack.len() as u64);
            for seq in stack {
                writer.u64(*seq);
            }
        }
    }
    let slots = state.slots_between(0, u32::MAX);
    writer.u64(slots.len() as u64);
    for slot in &slots {
        writer.spot(&slot.record);
        write_stamp(&mut writer, slot.stamp);
    }
    let places: HashMap<SpotKey, u32> = slots.iter().map(|slot| slot.record.key).zip(0..).collect();
    writer.u64(state.link_count() as u64);
    for (slot, to) in slots.iter().zip(0..) {
        let Some(from) = state.parent(slot).and_then(|parent| places.get(&parent)) else { continue };
        writer.u32(*from);
        writer.u32(to);
        writer.u8(slot.link.state as u8);
        writer.score(slot.link.score);
        writer.u32(slot.link.author);
        write_stamp(&mut writer, slot.link.stamp);
    }
    let rejected = state.rejected_records();
    writer.u64(rejected.len() as u64);
    for (record, stamp) in rejected {
        writer.link(&record);
        write_stamp(&mut writer, stamp);
    }
    let checksum = crc32fast::hash(&writer.0);
    writer.u32(checksum);
    writer.0
}

fn write_stamp(writer: &mut Writer, stamp: Stamp) {
    writer.u64(stamp.seq);
    writer.u32(stamp.author);
}

fn read_stamp(reader: &mut Reader<'_>) -> Option<Stamp> {
    Some(Stamp { seq: reader.u64()?, author: reader.u32()? })
}

/// The state in these bytes; `None` when they are not a snapshot.
fn from_bytes(bytes: &[u8]) -> Option<State> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let mut reader = Reader(body.strip_prefix(MAGIC)?);
    let (seq, checksum, next_key) = (reader.u64()?, reader.u32()?, reader.u64()?);
    let authors = (0..reader.count(4)?).map(|_| reader.text()).collect::<Option<Vec<_>>>()?;
    let mut history = History::default();
    for _ in 0..reader.count(20)? {
        let author = reader.u32()?;
        let mut stack = || (0..reader.count(8)?).map(|_| reader.u64()).collect::<Option<Vec<_>>>();
        let stacks = Stacks { done: stack()?, undone: stack()? };
        history.0.insert(author, stacks);
    }
    let spots = reader.count(SPOT_BYTES)?;
    let mut state = State::with_capacity(spots);
    for _ in 0..spots {
        let record = reader.spot()?;
        let stamp = read_stamp(&mut reader)?;
        state.apply(&Change::SpotAdded(record), stamp).ok()?;
    }
    for _ in 0..reader.count(LINK_BYTES)? {
        let (from, to) = (reader.u32()?, reader.u32()?);
        let (state_of_link, score, author) = (reader.state()?, reader.score()?, reader.u32()?);
        let stamp = read_stamp(&mut reader)?;
        state.restore_link(from, to, LinkData { state: state_of_link, score, author, stamp })?;
    }
    for _ in 0..reader.count(25)? {
        let record = reader.link()?;
        let stamp = read_stamp(&mut reader)?;
        state.apply(&Change::LinkAdded(record), stamp).ok()?;
    }
    (state.seq, state.checksum, state.next_key) = (seq, checksum, next_key);
    (state.authors, state.history) = (authors, history);
    reader.0.is_empty().then_some(state)
}

/// Reads a snapshot; `None` where there is none that can be used.
pub(crate) fn read(path: &Path) -> Option<State> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(%error, path = %path.display(), "the snapshot of a project cannot be read");
            }
            return None;
        }
    };
    let state = from_bytes(&bytes);
    if state.is_none() {
        tracing::warn!(path = %path.display(), "the snapshot of a project is damaged; its log is read instead");
    }
    state
}

/// Writes a snapshot. The log has everything, so a failure is only logged.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    if let Err(error) = elephant_fs::replace_unflushed(path, bytes) {
        tracing::warn!(%error, path = %path.display(), "the snapshot of a project cannot be written");
    }
}
