//! The blocks without normalisation, in libtorch's operations alone, so that libtorch can record them for training.

use elephant_types::CancelToken;
use tch::Tensor;

use crate::{
    NnError,
    convolution::{Below, Convolution},
    ops,
};

/// A block whose parameters are convolutions alone.
#[derive(Debug)]
pub(crate) enum ConvolutionBlock {
    /// See [`BlockKind::Residual`](crate::spec::BlockKind::Residual).
    Residual { shortcut: Convolution, first: Convolution, second: Convolution },
    /// See [`BlockKind::Plain`](crate::spec::BlockKind::Plain).
    Plain { first: Convolution, second: Convolution },
}

impl ConvolutionBlock {
    /// Changes every convolution.
    pub(crate) fn try_map(self, change: impl Fn(Convolution) -> Result<Convolution, NnError>) -> Result<Self, NnError> {
        Ok(match self {
            Self::Residual { shortcut, first, second } => {
                Self::Residual { shortcut: change(shortcut)?, first: change(first)?, second: change(second)? }
            }
            Self::Plain { first, second } => Self::Plain { first: change(first)?, second: change(second)? },
        })
    }

    /// The block's result for `x` (n, c, …) and the features from below.
    pub(crate) fn apply(&self, x: &Tensor, below: Option<&Below>, cancel: &CancelToken) -> Result<Tensor, NnError> {
        cancel.check()?;
        match self {
            Self::Residual { shortcut, first, second } => {
                let features = ops::leaky_relu(&first.apply(x, below, cancel)?)?;
                cancel.check()?;
                let sum = second.apply(&features, None, cancel)?.f_add(&shortcut.apply(x, below, cancel)?)?;
                ops::leaky_relu(&sum.f_div_scalar(2.0)?)
            }
            Self::Plain { first, second } => {
                let features = ops::leaky_relu(&first.apply(x, below, cancel)?)?;
                cancel.check()?;
                ops::leaky_relu(&second.apply(&features, None, cancel)?)
            }
        }
    }
}
