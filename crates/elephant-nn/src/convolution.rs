//! A convolution of a network, as the device computes with it.

use elephant_types::CancelToken;
use tch::{Kind, Tensor};

use crate::{
    NnError,
    ops::{self, Arithmetic},
};

/// A convolution with zero padding that keeps the size. One that merges two inputs takes the upsampled features of the
/// level below as further channels.
#[derive(Debug)]
pub(crate) struct Convolution {
    /// (out, in, …kernel); without the channels from below where these are `folded`.
    pub(crate) weight: Tensor,
    /// The part of the weight for the features from below, folded with the upsampling.
    pub(crate) folded: Option<Tensor>,
    pub(crate) bias: Option<Tensor>,
    arithmetic: Arithmetic,
}

/// Features of the level below, of half the size.
#[derive(Debug)]
pub(crate) struct Below {
    pub(crate) features: Tensor,
    /// Whether the pooling on the way there left z alone.
    pub(crate) keep_z: bool,
}

/// How a convolution merges the features from below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Merge {
    /// Channels that are not from below.
    pub(crate) skipped: i64,
    pub(crate) keep_z: bool,
}

impl Convolution {
    /// `weight` is for all channels; with `merge`, the last ones are from below. libtorch can record this.
    pub(crate) fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        merge: Option<Merge>,
        arithmetic: Arithmetic,
    ) -> Result<Self, NnError> {
        let arranged = |t: &Tensor| ops::to_memory_layout(t, arithmetic);
        let bias = bias.map(Tensor::shallow_clone);
        let Some(Merge { skipped, keep_z }) = merge.filter(|_| arithmetic == Arithmetic::Fast) else {
            return Ok(Self { weight: arranged(weight)?, folded: None, bias, arithmetic });
        };
        let from_below = weight.f_narrow(1, skipped, weight.size()[1] - skipped)?;
        let folded = Some(arranged(&ops::fold_upsampling(&from_below, keep_z)?)?);
        Ok(Self { weight: arranged(&weight.f_narrow(1, 0, skipped)?)?, folded, bias, arithmetic })
    }

    /// The same in numbers of another type; the part that is folded may have one of its own.
    pub(crate) fn to_kinds(&self, kind: Kind, folded_kind: Kind) -> Result<Self, NnError> {
        Ok(Self {
            weight: self.weight.f_to_kind(kind)?,
            folded: self.folded.as_ref().map(|folded| folded.f_to_kind(folded_kind)).transpose()?,
            bias: self.bias.as_ref().map(|bias| bias.f_to_kind(kind)).transpose()?,
            arithmetic: self.arithmetic,
        })
    }

    /// The result for `x` (n, c, …) and the features from below. Looks at `cancel` between two convolutions.
    pub(crate) fn apply(&self, x: &Tensor, below: Option<&Below>, cancel: &CancelToken) -> Result<Tensor, NnError> {
        let kind = self.weight.kind();
        let convolution =
            |x: &Tensor| ops::convolution(&x.f_to_kind(kind)?, &self.weight, self.bias.as_ref(), self.arithmetic);
        match (below, &self.folded) {
            (None, _) => convolution(x),
            (Some(Below { features, keep_z }), None) => {
                convolution(&Tensor::f_cat(&[x, &ops::upsample(features, *keep_z)?.f_to_kind(x.kind())?], 1)?)
            }
            (Some(Below { features, keep_z }), Some(folded)) => {
                let mut y = convolution(x)?;
                cancel.check()?;
                Ok(y.f_add_(&ops::upsampled_convolution(&features.f_to_kind(folded.kind())?, folded, *keep_z)?)?)
            }
        }
    }
}
