//! The networks as the use cases see them: models by file, on the device.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use elephant_checkpoint::{Checkpoint, OptimizerState};
use elephant_fs::FileVersion;
use elephant_model::{
    FlowModel, FlowOptions, ImageSource, ModelError, ModelInTraining, NetworkCatalogue, PlaneSink, SegmentationModel,
    SegmentationOptions, TrainableModel, TrainingOptions,
};
use elephant_types::{CancelToken, NetworkTask, NetworkType, Numerics, TaskContext};

use crate::{DeviceHandle, DeviceOptions, Model, NnError};

/// Networks on a device: predicts with the models in files, and trains them.
pub struct Networks {
    device: DeviceHandle,
    files: ModelFiles,
}

impl Networks {
    /// Starts the thread that owns the device.
    ///
    /// # Errors
    /// As [`DeviceHandle::start`].
    pub fn start(options: DeviceOptions) -> Result<Self, NnError> {
        Ok(Self { device: DeviceHandle::start(options)?, files: ModelFiles::default() })
    }

    /// Whether the device can be used now; see [`DeviceHandle::health`].
    ///
    /// # Errors
    /// As [`DeviceHandle::health`].
    pub fn health(&self) -> Result<(), NnError> {
        self.device.health()
    }
}

impl SegmentationModel for Networks {
    fn segment(
        &self,
        model: &Path,
        image: Arc<dyn ImageSource>,
        options: &SegmentationOptions,
        sink: &mut dyn PlaneSink,
        context: &TaskContext,
    ) -> Result<(), ModelError> {
        Ok(self.device.segment(self.files.model(model)?, image, options, sink, context)?)
    }

    fn segment_bytes(&self, shape: [usize; 3], options: &SegmentationOptions) -> Result<u64, ModelError> {
        Ok(self.device.segment_bytes(shape, options)?)
    }
}

impl FlowModel for Networks {
    fn displacements(
        &self,
        model: &Path,
        pair: Arc<dyn ImageSource>,
        options: &FlowOptions,
        sink: &mut dyn PlaneSink,
        context: &TaskContext,
    ) -> Result<(), ModelError> {
        Ok(self.device.displacements(self.files.model(model)?, pair, options, sink, context)?)
    }

    fn displacement_bytes(&self, shape: [usize; 3], options: &FlowOptions) -> Result<u64, ModelError> {
        Ok(self.device.displacement_bytes(shape, options)?)
    }
}

impl NetworkCatalogue for Networks {
    fn identify(&self, checkpoint: &Checkpoint) -> Result<NetworkType, ModelError> {
        Ok(Model::new(checkpoint.clone())?.network_type())
    }

    fn initialise(&self, network: NetworkType, seed: u64) -> Result<Checkpoint, ModelError> {
        Ok(Model::random_of(network, seed)?.checkpoint().clone())
    }
}

impl TrainableModel for Networks {
    fn device_count(&self) -> Result<usize, ModelError> {
        Ok(self.device.info()?.training_devices)
    }

    fn step_bytes(&self, task: NetworkTask, voxels: u64, numerics: Numerics) -> Result<u64, ModelError> {
        Ok(self.device.training_bytes(task, voxels, numerics)?)
    }

    fn begin(
        &self,
        model: Checkpoint,
        options: TrainingOptions,
        state: Option<OptimizerState>,
        cancel: &CancelToken,
    ) -> Result<Box<dyn ModelInTraining>, ModelError> {
        let model = Arc::new(Model::new(model)?);
        Ok(Box::new(self.device.train(model, options, state, cancel)?))
    }

    fn publish(&self, path: &Path, version: FileVersion, model: &Checkpoint) -> Result<(), ModelError> {
        let model = Arc::new(Model::new(model.clone())?);
        *lock(&self.files.published) = Some(Published { path: path.to_owned(), version, model });
        Ok(())
    }

    fn withdraw(&self, path: &Path) {
        lock(&self.files.published).take_if(|published| published.path == path);
    }
}

/// The models that predictions by their file use.
#[derive(Default)]
struct ModelFiles {
    /// The file that was used last.
    last: Mutex<Option<Arc<ModelFile>>>,
    /// The model in training, which is ahead of its file.
    published: Mutex<Option<Published>>,
}

/// One version of a model's file.
struct ModelFile {
    path: PathBuf,
    version: FileVersion,
    /// Locked while the file is read, so that those who wait for it do not read it too.
    model: Mutex<Option<Arc<Model>>>,
}

/// A model in training, which predictions use instead of one version of a file.
struct Published {
    path: PathBuf,
    version: FileVersion,
    model: Arc<Model>,
}

impl ModelFiles {
    fn model(&self, path: &Path) -> Result<Arc<Model>, NnError> {
        let version = FileVersion::of(path)?;
        let published = lock(&self.published);
        if let Some(published) = published.as_ref().filter(|p| p.path == path && p.version == version) {
            return Ok(published.model.clone());
        }
        drop(published);
        let file = self.file(path, version);
        let mut model = lock(&file.model);
        if let Some(model) = &*model {
            return Ok(model.clone());
        }
        Ok(model.insert(Arc::new(Model::read(path)?)).clone())
    }

    /// The last file if it is this one, or this one instead.
    fn file(&self, path: &Path, version: FileVersion) -> Arc<ModelFile> {
        let mut last = lock(&self.last);
        if let Some(file) = last.as_ref().filter(|file| file.path == path && file.version == version) {
            return file.clone();
        }
        last.insert(Arc::new(ModelFile { path: path.to_owned(), version, model: Mutex::default() })).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use elephant_model::ProbabilityOutput;
    use elephant_types::{KeepAxials, NetworkKind};
    use ndarray::{Array3, Array4};

    use super::*;

    fn write(path: &Path, seed: u64) -> Model {
        let model = Model::random(NetworkKind::Planar, seed).unwrap();
        model.checkpoint().write(path).unwrap();
        model
    }

    #[test]
    fn a_file_is_read_once_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.pth");
        let files = ModelFiles::default();
        let first = write(&path, 1);
        let used = files.model(&path).unwrap();
        assert_eq!(used.fingerprint(), first.fingerprint());
        let again: Vec<_> = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| files.model(&path).unwrap()));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        assert!(again.iter().all(|model| Arc::ptr_eq(model, &used)));
        let second = write(&path, 2);
        assert_eq!(files.model(&path).unwrap().fingerprint(), second.fingerprint());
        std::fs::remove_file(&path).unwrap();
        assert!(files.model(&path).unwrap_err().to_string().starts_with("cannot use the model: "));
    }

    #[test]
    fn a_file_that_is_being_read_does_not_hold_up_another() {
        let folder = tempfile::tempdir().unwrap();
        let [slow, fast] = ["slow.pth", "fast.pth"].map(|name| folder.path().join(name));
        let (files, _) = (ModelFiles::default(), (write(&slow, 1), write(&fast, 2)));
        let file = files.file(&slow, FileVersion::of(&slow).unwrap());
        let reading = lock(&file.model);
        files.model(&fast).unwrap();
        drop(reading);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.pth");
        std::fs::write(&path, "not a checkpoint").unwrap();
        let files = ModelFiles::default();
        assert!(files.model(&path).is_err());
        assert!(files.model(&path).is_err());
        write(&path, 1);
        files.model(&path).unwrap();
    }

    #[test]
    fn a_published_model_takes_the_place_of_one_version_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.pth");
        let networks = Networks::start(DeviceOptions { device: crate::DeviceChoice::Cpu, ..DeviceOptions::default() });
        let networks = networks.unwrap();
        let in_file = write(&path, 1);
        let trained = Model::random(NetworkKind::Planar, 2).unwrap();
        let used = || networks.files.model(&path).unwrap().fingerprint();
        networks.publish(&path, FileVersion::of(&path).unwrap(), trained.checkpoint()).unwrap();
        assert_eq!(used(), trained.fingerprint());
        networks.withdraw(&folder.path().join("other.pth"));
        assert_eq!(used(), trained.fingerprint());
        networks.withdraw(&path);
        assert_eq!(used(), in_file.fingerprint());
        networks.publish(&path, FileVersion::of(&path).unwrap(), trained.checkpoint()).unwrap();
        let replaced = write(&path, 3);
        assert_eq!(used(), replaced.fingerprint());
    }

    #[test]
    fn a_flow_network_is_not_a_detection_network() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.pth");
        let networks = Networks::start(DeviceOptions { device: crate::DeviceChoice::Cpu, ..DeviceOptions::default() });
        let networks = networks.unwrap();
        let context = TaskContext::detached();
        for (network, expected) in [
            (NetworkType::flow(NetworkKind::Volumetric), "the model is a 3-D flow network, but a 3-D detection one"),
            (NetworkType::detection(NetworkKind::Planar), "the model is a 2-D detection network, but a 3-D flow one"),
        ] {
            let checkpoint = networks.initialise(network, 1).unwrap();
            assert_eq!(networks.identify(&checkpoint).unwrap(), network);
            checkpoint.write(&path).unwrap();
            let (kind, keep_axials, numerics) = (NetworkKind::Volumetric, KeepAxials::first(4), Numerics::Corrected);
            let result = match network.task {
                NetworkTask::Flow => {
                    let output = ProbabilityOutput::Center;
                    let options = SegmentationOptions {
                        kind,
                        keep_axials,
                        tile: None,
                        is_pad: false,
                        batch_size: 1,
                        numerics,
                        output,
                    };
                    networks.segment_whole(&path, Array3::zeros((4, 16, 16)), &options, &context)
                }
                NetworkTask::Detection => {
                    let options = FlowOptions { kind, keep_axials, tile: None, is_pad: false, batch_size: 1, numerics };
                    networks.displacements_whole(&path, Array4::zeros((2, 4, 16, 16)), &options, &context)
                }
            };
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
