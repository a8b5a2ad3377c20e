//! `dataset_generator`: creates an ELEPHANT dataset from a BigDataViewer movie, without a server.

#[path = "../terminal.rs"]
mod terminal;

use std::{path::PathBuf, process::ExitCode, thread};

use clap::Parser;
use elephant_pipeline::{GenerateOptions, PipelineError, Reach, Summary, generate_dataset};
use elephant_types::CancelToken;
use terminal::with_bar;

/// Exit status after Ctrl-C, the convention of shells.
const INTERRUPTED: u8 = 130;

/// Create an ELEPHANT dataset from a BigDataViewer movie
///
/// Reads the movie's HDF5 file and writes imgs.zarr and six blank stores for labels and predictions into OUTPUT.
/// Existing stores are replaced, and their labels are lost. They are kept until the new ones are complete, also if the
/// program is interrupted.
#[derive(Debug, Parser)]
#[command(name = "dataset_generator", version, after_long_help = EXAMPLES)]
struct Args {
    /// Movie: the .xml of a BigDataViewer .h5/.xml pair, or the .h5
    ///
    /// An .xml file defines the timepoints and view setups; its image and partition files are looked for at the given
    /// paths and in its own folder. From an .h5 file, all timepoints are taken in the order of their numbers.
    input: PathBuf,

    /// Folder for the dataset; created if it is missing. The server expects it at WORKSPACE/datasets/NAME
    output: PathBuf,

    /// Store the images with 16 bits instead of 8
    ///
    /// Without this option, values above 255 lose their upper bits: use it, or --divisor, for movies with such values.
    /// Movies of types other than unsigned 8 or 16 bits are stored with 16 bits automatically if they need it.
    #[arg(long)]
    uint16: bool,

    /// Divide all values by D and round down; a 12-bit movie fits into 8 bits with --divisor 16
    ///
    /// Negative values become 0. Floating-point movies between 0 and 1 are multiplied by a power of two if D is 1.
    #[arg(long, value_name = "D", default_value_t = 1.0)]
    divisor: f64,

    /// Store only the first plane of each timepoint, as a 2-D movie
    #[arg(long = "2d")]
    is_2d: bool,

    /// Id of the view setup to read (channel or angle) [default: the lowest id of the .xml, or else of the .h5]
    #[arg(long, value_name = "N")]
    setup: Option<u32>,

    /// Resolution level to read; 0 is the full resolution
    #[arg(long, value_name = "N", default_value_t = 0)]
    level: u32,
}

const EXAMPLES: &str = "\
Examples:
  dataset_generator --uint16 embryo.h5 workspace/datasets/embryo
  dataset_generator --divisor 16 embryo.xml workspace/datasets/embryo
  dataset_generator --uint16 --setup 1 --level 1 two_channels.h5 workspace/datasets/second_channel";

fn main() -> ExitCode {
    let args = Args::parse();
    let options = GenerateOptions {
        reach: Reach::Anywhere,
        setup: args.setup,
        level: args.level,
        is_uint16: args.uint16.then_some(true),
        prefers_8_bit: true,
        divisor: args.divisor,
        is_2d: args.is_2d,
        ..GenerateOptions::new(&args.input, &args.output)
    };
    let cancel = CancelToken::default();
    cancel_on_interrupt(cancel.clone());
    let result = with_bar("timepoints", cancel, |context| generate_dataset(&options, context));
    match result {
        Ok(summary) => {
            report(&args, &summary);
            ExitCode::SUCCESS
        }
        Err(PipelineError::Cancelled(_)) => {
            eprintln!("dataset_generator: interrupted; {} is unchanged", args.output.display());
            INTERRUPTED.into()
        }
        Err(error) => {
            eprintln!("dataset_generator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(args: &Args, summary: &Summary) {
    let size: Vec<_> = summary.shape.spatial().iter().rev().map(usize::to_string).collect();
    let bits = if summary.is_uint16 { 16 } else { 8 };
    let line = format!(
        "{}: {} timepoints of {} voxels, {bits} bit",
        args.output.display(),
        summary.shape.timepoints,
        size.join(" × ")
    );
    if let Err(error) = terminal::print(&line) {
        eprintln!("dataset_generator: cannot write to standard output: {error}");
    }
    for remark in summary.remarks("--uint16", "--divisor") {
        eprintln!("dataset_generator: {remark}");
    }
}

/// Lets Ctrl-C cancel the work, so that no incomplete stores remain.
fn cancel_on_interrupt(cancel: CancelToken) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        // If the handler cannot be installed, Ctrl-C ends the program at once, and the next run removes its temporary
        // files.
        if let Ok(runtime) = runtime
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            cancel.cancel();
        }
    });
}
