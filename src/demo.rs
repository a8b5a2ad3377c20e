//! Synthetic data to try the server with: `elephant-server demo`, and `serve --demo`.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use elephant_pipeline::{GenerateOptions, Workspace, generate_dataset};
use elephant_synth::{EmbryoOptions, Preset, write_movie};
use elephant_types::{CancelToken, DatasetName, FileName};

use crate::{config::DemoArgs, terminal::with_bar};

/// The demo's dataset and movie.
const NAME: &str = "elephant-demo";

/// Writes a movie for `elephant-server demo`.
pub fn write(args: &DemoArgs) -> Result<()> {
    let name: FileName = args.name.parse()?;
    write_embryo(&args.folder, &name, args.seed)?;
    let folder = args.folder.display();
    println!("{folder}/{name}.xml        open it in BigDataViewer or Mastodon");
    println!("{folder}/spots.json, TRA/  the true cells and tracks");
    println!("to serve it, copy {name}.h5 to WORKSPACE/datasets/{name}/ and POST /dataset/generate");
    Ok(())
}

/// A dataset that was made for somebody who has none.
#[derive(Debug)]
pub struct Demo {
    movie: String,
    shape: [usize; 3],
    scales: [f64; 3],
}

/// Makes the demo dataset when the workspace has no dataset at all.
pub fn prepare(workspace: &Workspace) -> Result<Option<Demo>> {
    let dataset: DatasetName = NAME.parse()?;
    let folder = workspace.dataset(&dataset)?;
    let options = EmbryoOptions::preset(Preset::Small, 0);
    let [z, y, x] = options.voxel_size.zyx();
    let demo = Demo {
        movie: folder.join(format!("{NAME}.xml")).display().to_string(),
        shape: options.shape,
        scales: [x, y, z],
    };
    if elephant_fs::metadata(&folder.join("imgs.zarr"))?.is_some() {
        return Ok(Some(demo));
    }
    if has_datasets(workspace)? {
        return Ok(None);
    }
    println!("the workspace is empty: making the demo dataset {NAME}");
    write_embryo(&folder, &NAME.parse()?, options.seed)?;
    let options = GenerateOptions::new(&folder.join(format!("{NAME}.h5")), &folder);
    with_bar("making its stores", CancelToken::default(), |context| generate_dataset(&options, context))?;
    Ok(Some(demo))
}

impl Demo {
    /// What to do next, with a server at `address`.
    pub fn instructions(&self, address: SocketAddr) -> String {
        let [z, y, x] = self.shape;
        let Self { movie, scales, .. } = self;
        format!(
            "
The dataset {NAME} is ready. In Mastodon, open {movie}
and set in Plugins > ELEPHANT > Preferences:
    server URL    http://{address}
    dataset dir   {NAME}
Or ask for the cells of the first frame yourself:
    curl -s http://{address}/seg/predict -H 'Content-Type: application/json' -d '{{\"dataset_name\": \"{NAME}\", \
\"timepoint\": 0, \"scales\": {scales:?}, \"n_keep_axials\": 2, \"patch\": [{x}, {y}, {z}], \"r_min\": 1, \"r_max\": 8}}'
It begins with the built-in network; to upload one of your own:
    curl http://{address}/seg/reset -F 'data={{\"model_name\": \"detection.pth\"}}' -F file=@YOUR_MODEL.pth
Press Ctrl-C to stop.",
        )
    }
}

fn has_datasets(workspace: &Workspace) -> Result<bool> {
    let folder = workspace.datasets().path();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // Hidden ones are temporary; an interrupted demo is made again.
    Ok(names.into_iter().any(|name| !name.starts_with('.') && name != NAME))
}

fn write_embryo(folder: &Path, name: &FileName, seed: u64) -> Result<()> {
    let options = EmbryoOptions::preset(Preset::Small, seed);
    Ok(with_bar("imaging a synthetic embryo", CancelToken::default(), |context| {
        write_movie(folder, name, &options, context)
    })?)
}
