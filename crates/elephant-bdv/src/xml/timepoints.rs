//! The `Timepoints` element: a range, a list, or a pattern such as `0-8:2, 10`.

/// Largest number of timepoints that a document may list: ten years at five minutes a timepoint.
const MAX_TIMEPOINTS: usize = 1 << 20;

/// What the element holds. Which of its three forms it has shows in what is there.
#[derive(Debug, Default)]
pub(super) struct TimepointsElement {
    first: Option<u32>,
    last: Option<u32>,
    pattern: Option<String>,
    list: Vec<u32>,
}

impl TimepointsElement {
    /// Takes over the text of the element `field`, a path within `Timepoints`.
    pub fn take(&mut self, field: &str, text: &str) -> Result<(), String> {
        match field {
            "first" => self.first = Some(number(text)?),
            "last" => self.last = Some(number(text)?),
            "integerpattern" => self.pattern = Some(text.to_owned()),
            "Timepoint/id" => self.list.push(number(text)?),
            _ => {}
        }
        Ok(())
    }

    /// Ids of the timepoints, ascending, each one once.
    pub fn ids(self) -> Result<Vec<u32>, String> {
        let mut ids = match (self.pattern, self.first, self.last) {
            (Some(pattern), ..) => parse_pattern(&pattern)?,
            (None, Some(first), Some(last)) => {
                let mut ids = Vec::new();
                extend(&mut ids, (first..=last).map(Some))?;
                ids
            }
            _ => self.list,
        };
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// The ids of a pattern: numbers, ranges `first-last` and ranges with a step `first-last:step`, divided by commas, blanks
/// anywhere. A range may run downwards, and an empty pattern is timepoint 0 (`IntegerPattern` of spimdata).
fn parse_pattern(pattern: &str) -> Result<Vec<u32>, String> {
    let compact: String = pattern.split_whitespace().collect();
    if compact.is_empty() {
        return Ok(vec![0]);
    }
    let mut ids = Vec::new();
    for entry in compact.split(',').filter(|entry| !entry.is_empty()) {
        let Some((first, rest)) = entry.split_once('-') else {
            extend(&mut ids, [Some(number(entry)?)])?;
            continue;
        };
        let (last, step) = rest.split_once(':').unwrap_or((rest, "1"));
        let (first, last, step) = (number(first)?, number(last)?, number(step)?);
        if step == 0 {
            return Err(format!("its timepoints {entry:?} have the step 0"));
        }
        let count = first.abs_diff(last) / step;
        extend(
            &mut ids,
            (0..=count).map(|index| {
                if last < first { first.checked_sub(index * step) } else { first.checked_add(index * step) }
            }),
        )?;
    }
    Ok(ids)
}

fn extend(ids: &mut Vec<u32>, more: impl IntoIterator<Item = Option<u32>>) -> Result<(), String> {
    for id in more.into_iter().flatten() {
        if ids.len() == MAX_TIMEPOINTS {
            return Err(format!("it lists more than {MAX_TIMEPOINTS} timepoints"));
        }
        ids.push(id);
    }
    Ok(())
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("its timepoint {text:.40?} is not a number from 0"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_those_of_spimdata() {
        for (pattern, expected) in [
            ("0-8:2, 10", vec![0, 2, 4, 6, 8, 10]),
            (" 5 , 6,7 ", vec![5, 6, 7]),
            ("0 - 7 : 3", vec![0, 3, 6]),
            ("3-1", vec![1, 2, 3]),
            ("", vec![0]),
            ("20210603,20210601", vec![20_210_601, 20_210_603]),
            ("4294967290-4294967295:4", vec![4_294_967_290, 4_294_967_294]),
            ("7,7,3-3", vec![3, 7]),
        ] {
            let element = TimepointsElement { pattern: Some(pattern.to_owned()), ..TimepointsElement::default() };
            assert_eq!(element.ids(), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn ranges_and_lists_are_read() {
        let mut range = TimepointsElement::default();
        range.take("first", "7").unwrap();
        range.take("last", "9").unwrap();
        assert_eq!(range.ids(), Ok(vec![7, 8, 9]));
        let mut list = TimepointsElement::default();
        list.take("Timepoint/id", "12").unwrap();
        list.take("Timepoint/id", "3").unwrap();
        assert_eq!(list.ids(), Ok(vec![3, 12]));
        assert_eq!(TimepointsElement::default().ids(), Ok(vec![]));
        let backwards = TimepointsElement { first: Some(3), last: Some(1), ..TimepointsElement::default() };
        assert_eq!(backwards.ids(), Ok(vec![]));
    }

    #[test]
    fn broken_or_endless_ones_are_refused() {
        for pattern in ["x", "1-", "1-5:0", "-1", "0-4294967295", "1--2", "0-1048576"] {
            assert!(parse_pattern(pattern).is_err(), "{pattern}");
        }
        let endless = TimepointsElement { first: Some(0), last: Some(u32::MAX), ..TimepointsElement::default() };
        assert!(endless.ids().is_err());
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[0-9,: -]{0,30}") {
            let _ = parse_pattern(&pattern);
        }
    }
}
