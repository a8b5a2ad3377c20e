//! Adam (Kingma and Ba, ICLR 2015), with moments that can be saved, so that a training goes on exactly where it stopped.

use tch::Tensor;

use crate::NnError;

/// Decay of the mean of the gradients, and of their squares; the defaults of the paper and of the original server.
const BETA: (f64, f64) = (0.9, 0.999);
/// Added to the root of the second moment.
const EPSILON: f64 = 1e-8;

/// The optimiser's memory.
#[derive(Debug)]
pub(super) struct Adam {
    pub(super) step: u64,
    /// For each parameter, the running means of its gradient and of that squared.
    pub(super) first: Vec<Tensor>,
    pub(super) second: Vec<Tensor>,
}

impl Adam {
    /// One that has seen nothing.
    pub(super) fn new(parameters: &[Tensor]) -> Result<Self, NnError> {
        let zeros = || parameters.iter().map(Tensor::f_zeros_like).collect::<Result<_, _>>();
        Ok(Self { step: 0, first: zeros()?, second: zeros()? })
    }

    /// Moves the parameters one step.
    pub(super) fn step(
        &mut self,
        parameters: &mut [Tensor],
        gradients: &[Tensor],
        learning_rate: f64,
    ) -> Result<(), NnError> {
        self.step += 1;
        let exponent = self.step as f64;
        let (first_bias, second_bias) = (1.0 - BETA.0.powf(exponent), 1.0 - BETA.1.powf(exponent));
        let tensors = parameters.iter_mut().zip(gradients).zip(self.first.iter_mut().zip(&mut self.second));
        for ((parameter, gradient), (first, second)) in tensors {
            let _ = first.f_lerp_(gradient, 1.0 - BETA.0)?;
            let _ = second.f_mul_scalar_(BETA.1)?.f_add_(&gradient.f_square()?.f_mul_scalar_(1.0 - BETA.1)?)?;
            let root = second.f_sqrt()?.f_div_scalar_(second_bias.sqrt())?.f_add_scalar_(EPSILON)?;
            let _ = parameter.f_sub_(&first.f_div(&root)?.f_mul_scalar_(learning_rate / first_bias)?)?;
        }
        Ok(())
    }
}
