//! What becomes of a movie in a dataset, its values above all, and what the user is told of it.

use elephant_volume::DatasetShape;

use crate::PipelineError;

/// A floating-point movie whose largest value, rounded down, is below this has lost much.
pub(crate) const FEW_LEVELS: f64 = 16.0;
/// Exponent of the smallest divisor: smaller powers of two are subnormal numbers, which have less precision.
const SMALLEST_EXPONENT: f64 = -1022.0;

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The size of the movie.
    pub shape: DatasetShape,
    /// Whether the images are 16 bit.
    pub is_uint16: bool,
    /// The largest value of the movie, before division.
    pub max_value: f64,
    /// What values were divided by.
    pub divisor: f64,
    /// Whether the divisor is not the one asked for, but fits a floating-point movie within 0 and 1.
    pub is_scaled: bool,
    /// Whether values were too large for the images' type, which keeps their last 8 or 16 bits only.
    pub is_wrapped: bool,
    /// Whether a floating-point movie has so small values that rounding them left few grey levels.
    pub is_coarse: bool,
    /// Frames of which the movie has no image.
    pub blank_frames: usize,
}

impl Summary {
    /// What the user should know of the dataset, in sentences; `uint16` and `divisor` are the names under which they set
    /// these options.
    pub fn remarks(&self, uint16: &str, divisor: &str) -> Vec<String> {
        let bits = if self.is_uint16 { 16 } else { 8 };
        let largest = self.max_value;
        let mut remarks = Vec::new();
        if self.is_wrapped {
            let way_out = if self.is_uint16 { format!("a larger {divisor}") } else { format!("{uint16} or {divisor}") };
            remarks.push(format!(
                "values up to {largest} do not fit into {bits} bit and lost their upper bits; use {way_out}"
            ));
        }
        if self.is_scaled {
            let factor = 1.0 / self.divisor;
            remarks.push(format!("the values lie within 0 and 1: they were multiplied by {factor} and rounded down"));
        }
        if self.is_coarse {
            remarks
                .push(format!("the values, up to {largest}, were rounded down to few levels; use a smaller {divisor}"));
        }
        if self.blank_frames > 0 {
            let (blank, frames) = (self.blank_frames, self.shape.timepoints);
            remarks.push(format!("{blank} of {frames} frames are blank, because the movie has no image of them"));
        }
        if largest <= 0.0 {
            remarks.push("no value is above 0: all frames are blank".to_owned());
        }
        remarks
    }
}

/// The divisor that brings values up to `largest`, which is at most 1, to about half of what the images can hold. It is a
/// power of two, so that the quotients are exact.
pub(crate) fn fraction_divisor(largest: f64, is_uint16: bool) -> f64 {
    let bits = if is_uint16 { 15.0 } else { 7.0 };
    (largest.log2().ceil() - bits).max(SMALLEST_EXPONENT).exp2()
}

/// Says how to get values into the images that do not fit.
pub(crate) fn too_large(largest: f64, is_uint16: bool) -> PipelineError {
    if largest.is_infinite() {
        let what = "the movie holds infinite values, which cannot be stored; export it again without them";
        return PipelineError::Invalid(what.to_owned());
    }
    let bits = if is_uint16 { 16 } else { 8 };
    let limit: f64 = if is_uint16 { u16::MAX.into() } else { u8::MAX.into() };
    let enough = (largest / (limit + 1.0)).floor() + 1.0;
    let number = |value: f64| if value < 1e15 { value.to_string() } else { format!("{value:e}") };
    let wider = if is_uint16 { "" } else { "store them with 16 bit, or " };
    let (largest, enough) = (number(largest), number(enough));
    PipelineError::Invalid(format!(
        "the movie has values of {largest} and more, which do not fit into {bits} bit; {wider}divide them by {enough} or more (dataset_generator --divisor {enough}, or divisor in the request for /dataset/generate)"
    ))
}

#[cfg(test)]
mod tests {
    use elephant_bdv::Scale;

    use super::*;

    #[test]
    fn fractions_fill_half_of_the_images() {
        for (largest, is_uint16, expected) in [
            (1.0, true, 32768.0),
            (0.75, true, 24576.0),
            (0.5, true, 32768.0),
            (1.0, false, 128.0),
            (1e-9, true, 17592.0),
        ] {
            let scale = Scale::new(fraction_divisor(largest, is_uint16));
            assert_eq!(scale.quotient(largest), expected, "{largest}");
        }
        assert!(fraction_divisor(f64::from_bits(1), true) > 0.0);
    }
}
