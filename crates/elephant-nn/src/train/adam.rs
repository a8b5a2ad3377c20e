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

    /// The parameters and the memory after one step; those before it stay as they are.
    pub(super) fn stepped(
        &self,
        parameters: &[Tensor],
        gradients: &[Tensor],
        learning_rate: f64,
    ) -> Result<(Vec<Tensor>, Self), NnError> {
        let step = self.step + 1;
        let (first_bias, second_bias) = (1.0 - BETA.0.powf(step as f64), 1.0 - BETA.1.powf(step as f64));
        let mut stepped = (Vec::new(), Self { step, first: Vec::new(), second: Vec::new() });
        let tensors = parameters.iter().zip(gradients).zip(self.first.iter().zip(&self.second));
        for ((parameter, gradient), (first, second)) in tensors {
            let first = first.f_lerp(gradient, 1.0 - BETA.0)?;
            let squares = gradient.f_square()?.f_mul_scalar_(1.0 - BETA.1)?;
            let second = second.f_mul_scalar(BETA.1)?.f_add_(&squares)?;
            let root = second.f_sqrt()?.f_div_scalar_(second_bias.sqrt())?.f_add_scalar_(EPSILON)?;
            let change = first.f_div(&root)?.f_mul_scalar_(learning_rate / first_bias)?;
            stepped.0.push(parameter.f_sub(&change)?);
            stepped.1.first.push(first);
            stepped.1.second.push(second);
        }
        Ok(stepped)
    }
}
