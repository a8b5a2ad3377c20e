//! Options of a synthetic embryo.

use elephant_types::VoxelSize;

use crate::SynthError;

/// Size, age and appearance of a synthetic embryo.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbryoOptions {
    /// Seed of all random numbers.
    pub seed: u64,
    /// Number of images.
    pub timepoints: usize,
    /// Voxels along (z, y, x).
    pub shape: [usize; 3],
    /// Edge lengths of a voxel.
    pub voxel_size: VoxelSize,
    /// Nuclei in the first image.
    pub nuclei: usize,
    /// Radius in µm of a nucleus halfway through its cycle, were it a ball.
    pub radius_um: f64,
    /// Mean number of timepoints from one division to the next.
    pub cycle: f64,
    /// Typical way of a nucleus from one timepoint to the next, in µm.
    pub step_um: f64,
}

/// Ready-made options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// For demonstrations: 12 images of 32 × 160 × 160 voxels with 26 nuclei at the start.
    Small,
    /// For tests: 4 images of 16 × 48 × 48 voxels with a few nuclei.
    Tiny,
}

impl EmbryoOptions {
    /// Ready-made options with the given seed.
    pub fn preset(preset: Preset, seed: u64) -> Self {
        let voxel_size = VoxelSize::new([2.0, 0.5, 0.5]).expect("the edges are positive");
        match preset {
            Preset::Small => Self {
                seed,
                timepoints: 12,
                shape: [32, 160, 160],
                voxel_size,
                nuclei: 26,
                radius_um: 5.0,
                cycle: 24.0,
                step_um: 1.2,
            },
            Preset::Tiny => Self {
                seed,
                timepoints: 4,
                shape: [16, 48, 48],
                voxel_size,
                nuclei: 5,
                radius_um: 4.0,
                cycle: 9.0,
                step_um: 0.8,
            },
        }
    }

    /// The imaged box in µm, (z, y, x).
    pub(crate) fn extent_um(&self) -> [f64; 3] {
        let edges = self.voxel_size.zyx();
        std::array::from_fn(|axis| self.shape[axis] as f64 * edges[axis])
    }

    /// The semi-axes in µm of the ellipsoid that holds the nuclei's centres.
    pub(crate) fn tissue_um(&self) -> [f64; 3] {
        self.extent_um().map(|extent| (extent / 2.0 - 1.15 * self.radius_um).max(0.0))
    }

    pub(crate) fn validate(&self) -> Result<(), SynthError> {
        let check = |name, value: String, is_valid: bool, rule| {
            if is_valid { Ok(()) } else { Err(SynthError::InvalidOption { name, value, rule }) }
        };
        let [z, y, x] = self.shape;
        check(
            "timepoints",
            self.timepoints.to_string(),
            (1..=1000).contains(&self.timepoints),
            "it must be 1 to 1000",
        )?;
        let is_valid = self.shape.iter().all(|&n| (1..=4096).contains(&n)) && z * y * x <= 1 << 30;
        check("shape", format!("{:?}", self.shape), is_valid, "it must have 1 to 4096 voxels an axis and 2^30 in all")?;
        let radius = self.radius_um;
        check("radius_um", radius.to_string(), radius.is_finite() && radius > 0.0, "it must be above 0")?;
        check("cycle", self.cycle.to_string(), self.cycle >= 4.0, "it must be 4 or more")?;
        let step = self.step_um;
        check("step_um", step.to_string(), (0.0..=radius).contains(&step), "it must be 0 to the radius of a nucleus")?;
        check("nuclei", self.nuclei.to_string(), self.nuclei >= 1, "it must be 1 or more")?;
        let rule = "that many nuclei of this radius do not fit into the volume; take fewer or smaller ones";
        check("nuclei", self.nuclei.to_string(), self.nuclei as f64 <= self.capacity(), rule)
    }

    /// How many nuclei the tissue holds while they still have room to move: a third of its volume.
    pub(crate) fn capacity(&self) -> f64 {
        let tissue: f64 = self.tissue_um().iter().map(|axis| axis + self.radius_um).product();
        (tissue / (3.0 * self.radius_um * self.radius_um * self.radius_um)).min(20_000.0)
    }
}
