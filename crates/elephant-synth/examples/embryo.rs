//! Writes the demonstration movie: `cargo run -p elephant-synth --example embryo -- DIR [SEED]`.

use std::{env, error::Error, path::PathBuf, time::Instant};

use elephant_synth::{EmbryoOptions, Preset, write_movie};
use elephant_types::TaskContext;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("give the directory to write to")?);
    let seed = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let start = Instant::now();
    let options = EmbryoOptions::preset(Preset::Small, seed);
    write_movie(&folder, &"demo".parse()?, &options, &TaskContext::detached())?;
    println!("{} timepoints in {:.2} s", options.timepoints, start.elapsed().as_secs_f64());
    Ok(())
}
