//! The fields of TensorBoard's Event message that scalars need (`tensorboard/compat/proto/event.proto`,
//! `summary.proto`), in protocol buffers' wire format.

// Fields of Event.
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
// Fields of Summary and of its values.
const VALUE: u64 = 1;
const TAG: u64 = 1;
const SIMPLE_VALUE: u64 = 2;

// Wire types: how a field's value is encoded.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH_AND_BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// The first event of a file, at `wall_time` in seconds since 1970.
pub(super) fn file_version(wall_time: f64) -> Vec<u8> {
    let mut event = begin(wall_time);
    put_bytes(&mut event, FILE_VERSION, b"brain.Event:2");
    event
}

/// The event that `tag` has `value` at `step`.
pub(super) fn scalar(wall_time: f64, tag: &str, step: i64, value: f32) -> Vec<u8> {
    let mut entry = Vec::new();
    put_bytes(&mut entry, TAG, tag.as_bytes());
    put_varint(&mut entry, SIMPLE_VALUE << 3 | FOUR_BYTES);
    entry.extend(value.to_le_bytes());
    let mut summary = Vec::new();
    put_bytes(&mut summary, VALUE, &entry);
    let mut event = begin(wall_time);
    // A missing number means zero.
    if step != 0 {
        put_varint(&mut event, STEP << 3 | VARINT);
        put_varint(&mut event, step.cast_unsigned());
    }
    put_bytes(&mut event, SUMMARY, &summary);
    event
}

fn begin(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_varint(&mut event, WALL_TIME << 3 | EIGHT_BYTES);
    event.extend(wall_time.to_le_bytes());
    event
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | LENGTH_AND_BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// The step of an event that has a summary, from the event's first bytes; `None` for other events.
pub(super) fn step_with_summary(event: &[u8]) -> Option<i64> {
    let mut rest = event;
    let (mut step, mut has_summary) = (0, false);
    while let Some(key) = take_varint(&mut rest) {
        let is_there = match (key >> 3, key & 7) {
            (STEP, VARINT) => take_varint(&mut rest).map(|number| step = number.cast_signed()).is_some(),
            (_, VARINT) => take_varint(&mut rest).is_some(),
            (_, EIGHT_BYTES) => skip(&mut rest, 8),
            (_, FOUR_BYTES) => skip(&mut rest, 4),
            (field, LENGTH_AND_BYTES) => {
                has_summary |= field == SUMMARY;
                take_varint(&mut rest).is_some_and(|length| skip(&mut rest, length))
            }
            _ => false,
        };
        if !is_there {
            break;
        }
    }
    has_summary.then_some(step)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn skip(bytes: &mut &[u8], count: u64) -> bool {
    let rest = usize::try_from(count).ok().and_then(|count| bytes.get(count..));
    *bytes = rest.unwrap_or_default();
    rest.is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn steps_are_read_back(step: i64, tag in ".{0,300}", value: f32) {
            prop_assert_eq!(step_with_summary(&scalar(1.5, &tag, step, value)), Some(step));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = step_with_summary(&bytes);
        }
    }

    #[test]
    fn other_events_have_no_step() {
        assert_eq!(step_with_summary(&file_version(1.5)), None);
        assert_eq!(step_with_summary(b""), None);
    }

    #[test]
    fn a_truncated_summary_still_has_its_step() {
        let event = scalar(1.5, "histogram", 77, 0.5);
        assert_eq!(step_with_summary(&event[..event.len() - 4]), Some(77));
    }
}
