//! A model in training, on its device or devices.

use std::thread;

use elephant_checkpoint::{Checkpoint, OptimizerState, StateDict};
use elephant_model::{LossValues, Objective, Targets, TrainingBatch, TrainingOptions};
use elephant_types::{CancelToken, KeepAxials, NetworkKind, NetworkTask, NetworkType, Numerics};
use ndarray::Array5;
use tch::{Device, Tensor};

use super::{
    adam::Adam,
    flow_loss::VectorRules,
    layer,
    loss::{self, EmptyCrop, Given, Rules, Target},
    tape::{self, TapeConfig},
};
use crate::{
    Model, NnError, Precision,
    network::parameter,
    ops::{self, Arithmetic},
    spec::NetworkSpec,
    walk,
};

/// Devices of a training.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hardware {
    /// The first holds the parameters; a batch is shared out among all.
    pub(crate) devices: Vec<Device>,
    pub(crate) precision: Precision,
}

/// A model in training. Every member of an ensemble sees the same crops.
#[derive(Debug)]
pub(crate) struct Trainer {
    spec: &'static NetworkSpec,
    options: TrainingOptions,
    hardware: Hardware,
    names: Vec<String>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    parameters: Vec<Tensor>,
    optimizer: Adam,
    last_dice: f64,
}

/// A loss with its gradient by every parameter.
type Derivative = (LossValues, Vec<Tensor>);

impl Trainer {
    pub(crate) fn new(
        model: &Model,
        options: TrainingOptions,
        state: Option<&OptimizerState>,
        hardware: &Hardware,
    ) -> Result<Self, NnError> {
        let spec = model.spec();
        let task = match options.objective {
            Objective::Labels { .. } | Objective::Intensities => NetworkTask::Detection,
            Objective::Vectors { .. } => NetworkTask::Flow,
        };
        model.require_type(NetworkType { task, kind: spec.dims })?;
        let names = spec.names();
        let device = hardware.device();
        let tensors =
            |dict: &StateDict| names.iter().map(|name| parameter(dict, name, device)).collect::<Result<Vec<_>, _>>();
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
        Ok(Self { spec, options, hardware: hardware.clone(), names, members })
    }

    /// One step with every member; the values are the members' mean. When it fails or is cancelled, nothing has changed:
    /// the new parameters and moments of all members are computed beside the old ones and take their place together.
    pub(crate) fn step(
        &mut self,
        batch: &TrainingBatch,
        learning_rate: f64,
        cancel: &CancelToken,
    ) -> Result<LossValues, NnError> {
        let (images, given) = self.batch_to_tensors(batch)?;
        let targets = loss::targets(&self.options.objective, images.size()[0] as usize, &given)?;
        let mut stepped = Vec::with_capacity(self.members.len());
        let mut losses = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let (values, gradients) = self.differentiate(member, batch, &images, &targets, cancel)?;
            if !values.total.is_finite() || !is_finite(&gradients)? {
                return Err(NnError::Diverged);
            }
            stepped.push(member.stepped(&values, &gradients, learning_rate)?);
            losses.push(values);
        }
        cancel.check()?;
        self.members = stepped;
        Ok(mean(&losses))
    }

    /// The loss and its gradient, each device doing its share of the crops (data parallelism).
    fn differentiate(
        &self,
        member: &Member,
        batch: &TrainingBatch,
        images: &Tensor,
        targets: &[Option<Target<'_>>],
        cancel: &CancelToken,
    ) -> Result<Derivative, NnError> {
        let arithmetic = Arithmetic::of(self.options.numerics);
        let precision = if arithmetic == Arithmetic::Original { Precision::F32 } else { self.hardware.precision };
        let pass = Pass {
            config: TapeConfig { spec: self.spec, keep_axials: batch.keep_axials, arithmetic, precision },
            rules: Rules {
                count: targets.iter().flatten().count(),
                empty: if batch.punishes_false_positives {
                    EmptyCrop::PunishFalsePositives
                } else {
                    EmptyCrop::Last(member.last_dice)
                },
                vectors: self.vector_rules(batch.keep_axials),
            },
            cancel,
        };
        let share = targets.len().div_ceil(self.hardware.devices.len());
        if share == targets.len() {
            return pass.differentiate(&member.parameters, images, targets);
        }
        let shares = targets.chunks(share).zip(images.f_split(share as i64, 0)?).zip(&self.hardware.devices);
        // A share without a target adds nothing.
        let shares = shares.filter(|((targets, _), _)| targets.iter().any(Option::is_some));
        let found: Vec<Result<Derivative, NnError>> = thread::scope(|scope| {
            let threads = shares.map(|((targets, images), &device)| {
                let parameters: Vec<Tensor> = member.parameters.iter().map(Tensor::shallow_clone).collect();
                let pass = &pass;
                scope.spawn(move || {
                    let _no_grad = tch::no_grad_guard();
                    let copies = parameters.iter().map(|parameter| parameter.f_to_device(device));
                    let copies = copies.collect::<Result<Vec<_>, _>>()?;
                    pass.differentiate(&copies, &images.f_to_device(device)?, targets)
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err(NnError::Panicked))).collect()
        });
        sum(found.into_iter().collect::<Result<Vec<_>, _>>()?, self.hardware.device())
    }

    fn vector_rules(&self, keep_axials: KeepAxials) -> VectorRules {
        let (max_displacement, axis_weights) = match self.options.objective {
            Objective::Vectors { max_displacement, axis_weights } => (max_displacement, axis_weights),
            _ => (1.0, [1.0; 3]),
        };
        let [z, y, x] = keep_axials.flow_norm(max_displacement);
        VectorRules::new([x, y, z], axis_weights, self.spec.axes(), self.options.numerics)
    }

    /// Inputs (n, c, z, y, x) and targets on the device; without z for a planar network, whose planes are crops of their own.
    fn batch_to_tensors(&self, batch: &TrainingBatch) -> Result<(Tensor, Given), NnError> {
        let (n, c, z, y, x) = batch.inputs.dim();
        let invalid = |reason: String| NnError::InvalidTraining { reason };
        if batch.inputs.is_empty() {
            return Err(invalid(format!("a batch is empty ({n} × {c} × {z} × {y} × {x})")));
        }
        if c != self.spec.inputs {
            return Err(invalid(format!("crops have {c} channels, but the network takes {}", self.spec.inputs)));
        }
        let given = match (&self.options.objective, &batch.targets) {
            (Objective::Intensities, Targets::Inputs) => Given::Inputs,
            (Objective::Labels { .. }, Targets::Classes(labels)) => {
                if labels.dim() != (n, z, y, x) {
                    return Err(invalid("images and labels differ in size".into()));
                }
                let shape = match self.spec.dims {
                    NetworkKind::Volumetric => vec![n, z, y, x],
                    NetworkKind::Planar => vec![n * z, y, x],
                };
                Given::Labels(labels.to_shape(shape).map_err(|error| invalid(error.to_string()))?.into_owned())
            }
            (Objective::Vectors { .. }, Targets::Vectors { values, weight }) => {
                if values.dim() != (n, self.spec.outputs, z, y, x) || weight.dim() != (n, z, y, x) {
                    return Err(invalid("images, vectors and weights differ in size".into()));
                }
                if !values.iter().chain(weight).all(|value| value.is_finite()) {
                    return Err(invalid("vectors or weights are not finite".into()));
                }
                let (values, weight) = match self.spec.dims {
                    NetworkKind::Volumetric => (values.clone().into_dyn(), weight.clone().into_dyn()),
                    NetworkKind::Planar => {
                        let planes = values.view().permuted_axes([0, 2, 1, 3, 4]);
                        let planes = planes.to_shape((n * z, self.spec.outputs, y, x));
                        let weight = weight.to_shape((n * z, y, x));
                        let both = planes.and_then(|planes| Ok((planes.into_owned(), weight?.into_owned())));
                        let (values, weight) = both.map_err(|error| invalid(error.to_string()))?;
                        (values.into_dyn(), weight.into_dyn())
                    }
                };
                Given::Vectors { values, weight }
            }
            (Objective::Labels { .. }, _) => return Err(invalid("labels are needed".into())),
            (Objective::Intensities, _) => return Err(invalid("the images are the only targets".into())),
            (Objective::Vectors { .. }, _) => return Err(invalid("vectors are needed".into())),
        };
        Ok((self.to_device(&batch.inputs)?, given))
    }

    /// Values (n, c, z, y, x) on the device; for a planar network (n · z, c, y, x).
    fn to_device(&self, values: &Array5<f32>) -> Result<Tensor, NnError> {
        let (n, c, z, y, x) = values.dim();
        let [n, c, z, y, x] = [n, c, z, y, x].map(|size| size as i64);
        let values = Tensor::f_from_slice(values.as_standard_layout().as_slice().unwrap_or_default())?;
        let values = values.f_reshape([n, c, z, y, x])?;
        let values = match self.spec.dims {
            NetworkKind::Volumetric => values,
            NetworkKind::Planar => values.f_transpose(1, 2)?.f_reshape([n * z, c, y, x])?,
        };
        Ok(values.f_to_device(self.hardware.device())?)
    }

    /// The parameters and the optimiser's memory as they are now.
    pub(crate) fn snapshot(&self) -> Result<(Checkpoint, OptimizerState), NnError> {
        let dicts = |tensors: fn(&Member) -> &[Tensor]| {
            self.members.iter().map(|member| self.dict(tensors(member))).collect::<Result<Vec<_>, _>>()
        };
        let state = OptimizerState {
            step: self.members.first().map_or(0, |member| member.optimizer.step),
            first_moments: dicts(|member| &member.optimizer.first)?,
            second_moments: dicts(|member| &member.optimizer.second)?,
        };
        Ok((Checkpoint::new(dicts(|member| &member.parameters)?), state))
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

/// Memory in bytes that a step on the CPU holds at once for crops of so many voxels in all; measured on the 3-D networks and
/// rounded up; that of the flow network with the original's numerics is estimated.
pub(crate) fn step_bytes(task: NetworkTask, voxels: u64, numerics: Numerics) -> u64 {
    let bytes_per_voxel: u64 = match (task, numerics) {
        (NetworkTask::Detection, Numerics::Original) => 2200,
        (NetworkTask::Detection, Numerics::Corrected) => 1700,
        (NetworkTask::Flow, Numerics::Original) => 3000,
        (NetworkTask::Flow, Numerics::Corrected) => 1900,
    };
    voxels.saturating_mul(bytes_per_voxel)
}

/// Whether all numbers of the tensors are finite, and far from being infinite.
fn is_finite(tensors: &[Tensor]) -> Result<bool, NnError> {
    let norms = tensors.iter().map(Tensor::f_norm).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?.is_finite())
}

fn add(sum: &mut LossValues, values: &LossValues) {
    sum.total += values.total;
    sum.parts.iter_mut().zip(&values.parts).for_each(|(sum, part)| sum.1 += part.1);
}

/// The mean over the members.
fn mean(losses: &[LossValues]) -> LossValues {
    let Some((first, others)) = losses.split_first() else { return LossValues { total: 0.0, parts: Vec::new() } };
    let (mut mean, count) = (first.clone(), losses.len() as f64);
    for values in others {
        add(&mut mean, values);
    }
    mean.total /= count;
    mean.parts.iter_mut().for_each(|part| part.1 /= count);
    mean
}

/// The batch's derivative from what its shares add to it.
fn sum(shares: Vec<Derivative>, device: Device) -> Result<Derivative, NnError> {
    let mut shares = shares.into_iter();
    let (mut values, gradients) = shares.next().ok_or(NnError::Panicked)?;
    let on_device = |gradients: Vec<Tensor>| gradients.into_iter().map(move |gradient| gradient.f_to_device(device));
    let mut sums = on_device(gradients).collect::<Result<Vec<_>, _>>()?;
    for (share, gradients) in shares {
        add(&mut values, &share);
        for (sum, gradient) in sums.iter_mut().zip(on_device(gradients)) {
            let _ = sum.f_add_(&gradient?)?;
        }
    }
    Ok((values, sums))
}

impl Member {
    /// The member after a step of the optimiser.
    fn stepped(&self, values: &LossValues, gradients: &[Tensor], learning_rate: f64) -> Result<Self, NnError> {
        let (parameters, optimizer) = self.optimizer.stepped(&self.parameters, gradients, learning_rate)?;
        if !is_finite(&parameters)? {
            return Err(NnError::Diverged);
        }
        let dice = values.parts.iter().find(|(name, _)| *name == loss::DICE);
        Ok(Self { parameters, optimizer, last_dice: dice.map_or(self.last_dice, |(_, dice)| *dice) })
    }
}

/// Settings of one forward and backward pass.
struct Pass<'a> {
    config: TapeConfig,
    rules: Rules,
    cancel: &'a CancelToken,
}

impl Pass<'_> {
    /// What these crops add to the batch's loss, and to its gradient by every parameter.
    fn differentiate(
        &self,
        parameters: &[Tensor],
        images: &Tensor,
        targets: &[Option<Target<'_>>],
    ) -> Result<Derivative, NnError> {
        let TapeConfig { spec, keep_axials, arithmetic, .. } = self.config;
        let (fitting, size) = walk::fit(spec, keep_axials, images)?;
        let (logits, tape) = tape::forward(parameters, self.config, &fitting, self.cancel)?;
        let leaf = logits.f_contiguous()?.set_requires_grad(true);
        let activate = || walk::activate(spec, &leaf, &(0..spec.outputs), size.as_deref());
        let results = tch::with_grad(activate)?;
        let (values, gradient) = loss::differentiate(&results, targets, images, self.rules)?;
        let gradient = layer::differentiate(&results, &gradient, &[&leaf])?.remove(0);
        let mut gradients = parameters.iter().map(Tensor::f_zeros_like).collect::<Result<Vec<_>, _>>()?;
        tape.backward(&ops::to_memory_layout(&gradient, arithmetic)?, &mut gradients)?;
        Ok((values, gradients))
    }
}

impl Hardware {
    fn device(&self) -> Device {
        self.devices.first().copied().unwrap_or(Device::Cpu)
    }
}

#[cfg(test)]
impl Hardware {
    /// The CPU, in f32.
    pub(super) fn cpu() -> Self {
        Self { devices: vec![Device::Cpu], precision: Precision::F32 }
    }
}

#[cfg(test)]
impl Trainer {
    /// The gradient by every parameter of the first member, with the parameter's name.
    pub(super) fn gradients(&self, batch: &TrainingBatch) -> Vec<(String, Tensor)> {
        let (images, given) = self.batch_to_tensors(batch).unwrap();
        let targets = loss::targets(&self.options.objective, images.size()[0] as usize, &given).unwrap();
        let found = self.differentiate(&self.members[0], batch, &images, &targets, &CancelToken::default());
        self.names.iter().cloned().zip(found.unwrap().1).collect()
    }
}
