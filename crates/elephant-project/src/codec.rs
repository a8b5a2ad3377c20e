//! The packed form of changes and records: little-endian, one after the other, without padding.
//!
//! A change is a byte for its kind and its fields. A spot takes 101 bytes with the kind, a link 26.

use crate::{Change, Covariance, DetectionTag, LinkRecord, LinkState, SpotKey, SpotRecord, TrackingTag};

/// Bytes of the shortest change, by which a count is checked before memory is allocated for it.
pub(crate) const SHORTEST_CHANGE: usize = 11;

/// Appends values to bytes.
#[derive(Default)]
pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn f64s(&mut self, values: &[f64]) {
        for value in values {
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// NaN for none; no score is NaN.
    pub fn score(&mut self, score: Option<f32>) {
        self.0.extend_from_slice(&score.unwrap_or(f32::NAN).to_le_bytes());
    }

    pub fn spot(&mut self, record: &SpotRecord) {
        self.u64(record.key.0);
        self.u32(record.t);
        self.f64s(&record.center_um);
        self.f64s(&record.covariance_um2.0);
        self.f64s(&[record.quality]);
        self.u8(record.detection as u8);
        self.u8(record.tracking as u8);
        self.u16(record.flags);
        self.u32(record.author);
    }

    pub fn link(&mut self, record: &LinkRecord) {
        self.u64(record.source.0);
        self.u64(record.target.0);
        self.u8(record.state as u8);
        self.score(record.score);
        self.u32(record.author);
    }

    pub fn change(&mut self, change: &Change) {
        match change {
            Change::SpotAdded(record) => {
                self.u8(0);
                self.spot(record);
            }
            Change::SpotRemoved(record) => {
                self.u8(1);
                self.spot(record);
            }
            Change::Moved { key, from, to } => {
                self.u8(2);
                self.u64(key.0);
                self.f64s(from);
                self.f64s(to);
            }
            Change::Resized { key, from, to } => {
                self.u8(3);
                self.u64(key.0);
                self.f64s(&from.0);
                self.f64s(&to.0);
            }
            Change::DetectionTagged { key, from, to } => {
                self.u8(4);
                self.u64(key.0);
                self.u8(*from as u8);
                self.u8(*to as u8);
            }
            Change::TrackingTagged { key, from, to } => {
                self.u8(5);
                self.u64(key.0);
                self.u8(*from as u8);
                self.u8(*to as u8);
            }
            Change::LinkAdded(record) => {
                self.u8(6);
                self.link(record);
            }
            Change::LinkRemoved(record) => {
                self.u8(7);
                self.link(record);
            }
            Change::LinkMarked { source, target, from, to } => {
                self.u8(8);
                self.u64(source.0);
                self.u64(target.0);
                self.u8(*from as u8);
                self.u8(*to as u8);
            }
            Change::LinkScored { source, target, from, to } => {
                self.u8(9);
                self.u64(source.0);
                self.u64(target.0);
                self.score(*from);
                self.score(*to);
            }
        }
    }
}

/// Takes values from bytes; `None` where they end or are no values.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// A count of things that take at least `bytes` each, so that memory may be allocated for them.
    pub fn count(&mut self, bytes: usize) -> Option<usize> {
        let count = usize::try_from(self.u64()?).ok()?;
        (count <= self.0.len() / bytes.max(1)).then_some(count)
    }

    pub fn f64s<const N: usize>(&mut self) -> Option<[f64; N]> {
        let mut values = [0.0; N];
        for value in &mut values {
            *value = f64::from_le_bytes(self.take()?);
        }
        Some(values)
    }

    pub fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    #[allow(clippy::option_option, reason = "a text that ends too early, and a score that is not there")]
    pub fn score(&mut self) -> Option<Option<f32>> {
        let score = f32::from_le_bytes(self.take()?);
        Some((!score.is_nan()).then_some(score))
    }

    fn key(&mut self) -> Option<SpotKey> {
        let key = SpotKey(self.u64()?);
        (key <= SpotKey::MAX).then_some(key)
    }

    pub fn detection(&mut self) -> Option<DetectionTag> {
        DetectionTag::from_number(self.u8()?)
    }

    pub fn tracking(&mut self) -> Option<TrackingTag> {
        TrackingTag::from_number(self.u8()?)
    }

    pub fn state(&mut self) -> Option<LinkState> {
        LinkState::from_number(self.u8()?)
    }

    pub fn spot(&mut self) -> Option<SpotRecord> {
        Some(SpotRecord {
            key: self.key()?,
            t: self.u32()?,
            center_um: self.f64s()?,
            covariance_um2: Covariance(self.f64s()?),
            quality: self.f64s::<1>()?[0],
            detection: self.detection()?,
            tracking: self.tracking()?,
            flags: self.u16()?,
            author: self.u32()?,
        })
    }

    pub fn link(&mut self) -> Option<LinkRecord> {
        Some(LinkRecord {
            source: self.key()?,
            target: self.key()?,
            state: self.state()?,
            score: self.score()?,
            author: self.u32()?,
        })
    }

    pub fn change(&mut self) -> Option<Change> {
        Some(match self.u8()? {
            0 => Change::SpotAdded(self.spot()?),
            1 => Change::SpotRemoved(self.spot()?),
            2 => Change::Moved { key: self.key()?, from: self.f64s()?, to: self.f64s()? },
            3 => Change::Resized { key: self.key()?, from: Covariance(self.f64s()?), to: Covariance(self.f64s()?) },
            4 => Change::DetectionTagged { key: self.key()?, from: self.detection()?, to: self.detection()? },
            5 => Change::TrackingTagged { key: self.key()?, from: self.tracking()?, to: self.tracking()? },
            6 => Change::LinkAdded(self.link()?),
            7 => Change::LinkRemoved(self.link()?),
            8 => {
                Change::LinkMarked { source: self.key()?, target: self.key()?, from: self.state()?, to: self.state()? }
            }
            9 => {
                Change::LinkScored { source: self.key()?, target: self.key()?, from: self.score()?, to: self.score()? }
            }
            _ => return None,
        })
    }
}

/// The changes of an entry, packed.
pub(crate) fn pack<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Vec<u8> {
    let mut writer = Writer::default();
    changes.into_iter().for_each(|change| writer.change(change));
    writer.0
}

/// The `count` changes of an entry; `None` when the bytes are not exactly these.
pub(crate) fn unpack(bytes: &[u8], count: usize) -> Option<Vec<Change>> {
    if count > bytes.len() / SHORTEST_CHANGE {
        return None;
    }
    let mut reader = Reader(bytes);
    let changes = (0..count).map(|_| reader.change()).collect::<Option<Vec<_>>>()?;
    reader.0.is_empty().then_some(changes)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = SpotKey> {
        (0..=SpotKey::MAX.0).prop_map(SpotKey)
    }

    fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
        proptest::sample::select(all)
    }

    fn score() -> impl Strategy<Value = Option<f32>> {
        proptest::option::of(0.0_f32..=1.0)
    }

    fn spot() -> impl Strategy<Value = SpotRecord> {
        let numbers = (key(), any::<u32>(), any::<[f64; 3]>(), any::<[f64; 6]>(), 0.0..=1.0);
        let marks = (one_of(DetectionTag::ALL), one_of(TrackingTag::ALL), any::<u16>(), any::<u32>());
        (numbers, marks).prop_map(|((key, t, center_um, covariance, quality), (detection, tracking, flags, author))| {
            let covariance_um2 = Covariance(covariance);
            SpotRecord { key, t, center_um, covariance_um2, quality, detection, tracking, flags, author }
        })
    }

    fn link() -> impl Strategy<Value = LinkRecord> {
        (key(), key(), one_of(LinkState::ALL), score(), any::<u32>())
            .prop_map(|(source, target, state, score, author)| LinkRecord { source, target, state, score, author })
    }

    pub fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            spot().prop_map(Change::SpotAdded),
            spot().prop_map(Change::SpotRemoved),
            (key(), any::<[f64; 3]>(), any::<[f64; 3]>()).prop_map(|(key, from, to)| Change::Moved { key, from, to }),
            (key(), any::<[f64; 6]>(), any::<[f64; 6]>()).prop_map(|(key, from, to)| Change::Resized {
                key,
                from: Covariance(from),
                to: Covariance(to)
            }),
            (key(), one_of(DetectionTag::ALL), one_of(DetectionTag::ALL))
                .prop_map(|(key, from, to)| Change::DetectionTagged { key, from, to }),
            (key(), one_of(TrackingTag::ALL), one_of(TrackingTag::ALL))
                .prop_map(|(key, from, to)| Change::TrackingTagged { key, from, to }),
            link().prop_map(Change::LinkAdded),
            link().prop_map(Change::LinkRemoved),
            (key(), key(), one_of(LinkState::ALL), one_of(LinkState::ALL))
                .prop_map(|(source, target, from, to)| Change::LinkMarked { source, target, from, to }),
            (key(), key(), score(), score()).prop_map(|(source, target, from, to)| Change::LinkScored {
                source,
                target,
                from,
                to
            }),
        ]
    }

    proptest! {
        #[test]
        fn changes_come_back(changes in proptest::collection::vec(change(), 0..20)) {
            let bytes = pack(&changes);
            prop_assert_eq!(unpack(&bytes, changes.len()), Some(changes.clone()));
            prop_assert_eq!(unpack(&bytes, changes.len() + 1), None);
            if !bytes.is_empty() {
                prop_assert_eq!(unpack(&bytes[..bytes.len() - 1], changes.len()), None);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), count: usize) {
            let _ = unpack(&bytes, count);
        }
    }
}
