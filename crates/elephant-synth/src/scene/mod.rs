//! Single images of nuclei of great variety, to train networks with and to score them.
//!
//! Unlike an [`Embryo`](crate::Embryo), a scene has no time and no lineage; its nuclei differ in size, shape, texture and
//! brightness, and so does the microscope.

mod noise;
mod options;
mod pair;
mod placement;
mod render;

use elephant_types::VoxelSize;
use ndarray::Array3;

pub use self::{
    options::{Content, SceneOptions, SceneSet},
    pair::{MovedNucleus, ScenePair},
};
use crate::Nucleus;

/// An image with its ground truth.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Camera counts, (z, y, x); a 2-D image has z = 1.
    pub image: Array3<u16>,
    /// The nuclei, also those that lie partly or with their centre outside the image.
    pub nuclei: Vec<Nucleus>,
    /// Edges of a voxel. One along y or x is 1 µm long, so that lengths in µm are lengths in pixels.
    pub voxel_size: VoxelSize,
}

impl Scene {
    /// Places nuclei and makes the image. The same options give the same scene on every machine.
    pub fn render(options: &SceneOptions) -> Self {
        let nuclei = placement::place(options);
        let image = match options.content {
            Content::Noise => noise::image(options),
            Content::Nuclei | Content::Empty => render::image(options, &nuclei, nuclei.len(), 0),
        };
        Self { image, nuclei, voxel_size: options.voxel_size() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_scene() {
        let scene = |seed| Scene::render(&SceneOptions::draw(SceneSet::Trained, false, seed));
        let (first, second) = (scene(3), scene(3));
        assert_eq!(first.image, second.image);
        assert_eq!(first.nuclei, second.nuclei);
        assert_ne!(first.image, scene(4).image);
    }

    #[test]
    fn a_planar_scene_has_one_plane_and_nuclei_in_it() {
        let scene = Scene::render(&SceneOptions::draw(SceneSet::Trained, true, 5));
        assert_eq!(scene.image.dim().0, 1);
        assert!(scene.nuclei.iter().all(|nucleus| nucleus.center_um[0] == 0.0));
    }

    #[test]
    fn nuclei_shine_in_a_clean_scene() {
        let mut bright = 0;
        let mut all = 0;
        for seed in 0..20 {
            let options = SceneOptions { noise_to_signal: 0.02, ..SceneOptions::draw(SceneSet::Trained, false, seed) };
            let scene = Scene::render(&options);
            let mut values: Vec<u16> = scene.image.iter().copied().collect();
            values.sort_unstable();
            let median = values[values.len() / 2];
            let edges = scene.voxel_size.zyx();
            for nucleus in &scene.nuclei {
                let index: [f64; 3] = std::array::from_fn(|axis| (nucleus.center_um[axis] / edges[axis]).round());
                let index = index.map(|i| i as isize);
                let Some(value) = usize::try_from(index[0]).ok().and_then(|z| {
                    scene.image.get((z, usize::try_from(index[1]).ok()?, usize::try_from(index[2]).ok()?))
                }) else {
                    continue;
                };
                all += 1;
                bright += usize::from(*value >= median);
            }
        }
        assert!(all > 100 && bright * 10 > all * 8, "{bright} of {all}");
    }
}
