//! A model in training, on its device.

use elephant_checkpoint::{Checkpoint, OptimizerState, StateDict};
use elephant_types::{CancelToken, LossValues, NetworkKind, Numerics, Objective, TrainingBatch, TrainingOptions};
use ndarray::ArrayD;
use tch::{Device, Kind, Tensor};

use super::{adam::Adam, layer, loss, network};
use crate::{
    Model, NnError, architecture, memory,
    ops::{self, Arithmetic},
    unet,
};

/// A model in training. Every member of an ensemble sees the same crops.
#[derive(Debug)]
pub(crate) struct Trainer {
    kind: NetworkKind,
    options: TrainingOptions,
    device: Device,
    names: Vec<String>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    parameters: Vec<Tensor>,
    optimizer: Adam,
    last_dice: f64,
}

impl Trainer {
    pub(crate) fn new(
        model: &Model,
        options: TrainingOptions,
        state: Option<&OptimizerState>,
        device: Device,
    ) -> Result<Self, NnError> {
        let names = architecture::names(model.kind());
        let tensors =
            |dict: &StateDict| names.iter().map(|name| tensor(dict, name, device)).collect::<Result<Vec<_>, _>>();
        let member = |(index, dict): (usize, &StateDict)| {
            let parameters = tensors(dict)?;
            let moments = state.and_then(|state| {
                Some((state.step, state.first_moments.get(index)?, state.second_moments.get(index)?))
            });
            let optimizer = match moments {
                Some((step, first, second)) => Adam { step, first: tensors(first)?, second: tensors(second)? },
                None => Adam::new(&parameters)?,
            };
            Ok(Member { parameters, optimizer, last_dice: 0.0 })
        };
        let members = model.members().iter().enumerate().map(member).collect::<Result<_, NnError>>()?;
        Ok(Self { kind: model.kind(), options, device, names, members })
    }

    /// One step with every member; the values are the members' mean. When it fails or is cancelled, no parameter has
    /// changed.
    pub(crate) fn step(
        &mut self,
        batch: &TrainingBatch,
        learning_rate: f64,
        cancel: &CancelToken,
    ) -> Result<LossValues, NnError> {
        let (images, labels) = self.arrange(batch)?;
        if self.device == Device::Cpu {
            memory::require(bytes_per_voxel(self.options.numerics) * batch.images.len() as u64)?;
        }
        let mut found = Vec::with_capacity(self.members.len());
        for member in &mut self.members {
            found.push(member.differentiate(&images, &labels, self.kind, &self.options, cancel)?);
        }
        cancel.check()?;
        for (member, (values, gradients)) in self.members.iter_mut().zip(&found) {
            if !values.total.is_finite() {
                return Err(NnError::Diverged { step: member.optimizer.step + 1 });
            }
            member.optimizer.step(&mut member.parameters, gradients, learning_rate)?;
        }
        Ok(mean(found.iter().map(|(values, _)| values)))
    }

    /// Images (n, 1, z, y, x) on the device and labels (n, z, y, x); without z for a planar network, whose planes are
    /// crops of their own.
    fn arrange(&self, batch: &TrainingBatch) -> Result<(Tensor, ArrayD<u8>), NnError> {
        let (n, z, y, x) = batch.images.dim();
        if batch.images.is_empty() {
            return Err(NnError::InvalidTraining { reason: format!("a batch is empty ({n} × {z} × {y} × {x})") });
        }
        if self.options.objective != Objective::Intensities && batch.labels.dim() != batch.images.dim() {
            return Err(NnError::InvalidTraining { reason: "images and labels differ in size".into() });
        }
        let images = Tensor::f_from_slice(batch.images.as_standard_layout().as_slice().unwrap_or_default())?;
        let labels = batch.labels.view();
        let size = [n, z, y, x].map(|size| size as i64);
        let (images, labels) = match self.kind {
            NetworkKind::Volumetric => {
                (images.f_reshape([size[0], 1, size[1], size[2], size[3]])?, labels.into_dyn().to_owned())
            }
            NetworkKind::Planar => {
                let labels = labels.to_shape((labels.dim().0 * labels.dim().1, labels.dim().2, labels.dim().3));
                let labels = labels.map_err(|error| NnError::InvalidTraining { reason: error.to_string() })?;
                (images.f_reshape([size[0] * size[1], 1, size[2], size[3]])?, labels.into_owned().into_dyn())
            }
        };
        Ok((images.f_to_device(self.device)?, labels))
    }

    /// The parameters and the optimiser's memory as they are now.
    pub(crate) fn snapshot(&self) -> Result<(Model, OptimizerState), NnError> {
        let dicts = |of: fn(&Member) -> &[Tensor]| {
            self.members.iter().map(|member| self.dict(of(member))).collect::<Result<Vec<_>, _>>()
        };
        let state = OptimizerState {
            step: self.members.first().map_or(0, |member| member.optimizer.step),
            first_moments: dicts(|member| &member.optimizer.first)?,
            second_moments: dicts(|member| &member.optimizer.second)?,
        };
        Ok((Model::new(Checkpoint { members: dicts(|member| &member.parameters)? })?, state))
    }

    fn dict(&self, tensors: &[Tensor]) -> Result<StateDict, NnError> {
        let named = self.names.iter().zip(tensors).map(|(name, tensor)| {
            let shape = tensor.size().iter().map(|&size| size as usize).collect();
            let values = Vec::<f32>::try_from(tensor.f_to_device(Device::Cpu)?.f_contiguous()?.f_reshape([-1])?)?;
            Ok((name.clone(), elephant_checkpoint::Tensor::from_f32(shape, &values)?))
        });
        named.collect()
    }
}

/// Memory that a step on the CPU holds at once for each voxel of its crops; measured on the 3-D network and rounded up.
fn bytes_per_voxel(numerics: Numerics) -> u64 {
    match numerics {
        Numerics::Original => 2200,
        Numerics::Corrected => 1700,
    }
}

fn tensor(dict: &StateDict, name: &str, device: Device) -> Result<Tensor, NnError> {
    let missing = || NnError::WrongModel { reason: format!("the parameter {name} is missing") };
    let tensor = dict.get(name).ok_or_else(missing)?;
    let shape: Vec<i64> = tensor.shape().iter().map(|&size| size as i64).collect();
    Ok(Tensor::f_from_slice(&tensor.to_f32())?.f_reshape(shape)?.f_to_device(device)?)
}

fn mean<'a>(values: impl ExactSizeIterator<Item = &'a LossValues>) -> LossValues {
    let count = values.len() as f64;
    let sum = values.cloned().reduce(|mut sum, values| {
        sum.total += values.total;
        sum.parts.iter_mut().zip(values.parts).for_each(|(sum, part)| sum.1 += part.1);
        sum
    });
    let mut mean = sum.unwrap_or(LossValues { total: 0.0, parts: Vec::new() });
    mean.total /= count;
    mean.parts.iter_mut().for_each(|part| part.1 /= count);
    mean
}

impl Member {
    /// The loss and its gradient by every parameter.
    fn differentiate(
        &mut self,
        images: &Tensor,
        labels: &ArrayD<u8>,
        kind: NetworkKind,
        options: &TrainingOptions,
        cancel: &CancelToken,
    ) -> Result<(LossValues, Vec<Tensor>), NnError> {
        let TrainingOptions { keep_axials, ref objective, numerics } = *options;
        let arithmetic = Arithmetic::of(numerics);
        let size = ops::spatial_size(images);
        let fitting = unet::fitting_size(&size, kind, keep_axials);
        let is_resized = size != fitting;
        let resized = if is_resized { ops::resize(images, &fitting)? } else { images.shallow_clone() };
        let (logits, trace) = network::forward(&self.parameters, keep_axials, arithmetic, &resized, cancel)?;
        let leaf = logits.f_contiguous()?.set_requires_grad(true);
        let logarithms = tch::with_grad(|| -> Result<Tensor, NnError> {
            let logarithms = leaf.f_log_softmax(1, Kind::Float)?;
            if is_resized { ops::resize(&logarithms, &size) } else { Ok(logarithms) }
        })?;
        let (values, gradient) = loss::differentiate(objective, &logarithms, labels, images, &mut self.last_dice)?;
        let gradient = layer::differentiate(&logarithms, &gradient, &[&leaf])?.remove(0);
        let mut gradients = self.parameters.iter().map(Tensor::f_zeros_like).collect::<Result<Vec<_>, _>>()?;
        trace.backward(&ops::arrange(&gradient, arithmetic)?, &mut gradients, cancel)?;
        Ok((values, gradients))
    }
}

#[cfg(test)]
impl Trainer {
    /// The gradient by every parameter of the first member, with the parameter's name.
    pub(super) fn gradients(&mut self, batch: &TrainingBatch) -> Vec<(String, Tensor)> {
        let (images, labels) = self.arrange(batch).unwrap();
        let (kind, options) = (self.kind, self.options.clone());
        let cancel = CancelToken::default();
        let (_, gradients) = self.members[0].differentiate(&images, &labels, kind, &options, &cancel).unwrap();
        self.members[0].last_dice = 0.0;
        self.names.iter().cloned().zip(gradients).collect()
    }
}
