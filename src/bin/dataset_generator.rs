//! `dataset_generator`: makes an ELEPHANT dataset of a BigDataViewer movie, without a server.

#[path = "../terminal.rs"]
mod terminal;

use std::{path::PathBuf, process::ExitCode, thread};

use clap::Parser;
use elephant_pipeline::{GenerateOptions, PipelineError, Reach, Summary, generate_dataset};
use elephant_types::CancelToken;
use terminal::with_bar;

/// Exit status after Ctrl-C, as shells expect it.
const INTERRUPTED: u8 = 130;

/// Make an ELEPHANT dataset of a BigDataViewer movie
///
/// Reads the movie's HDF5 file and writes imgs.zarr and six blank stores for labels and predictions into OUTPUT. Stores
/// that are there already are replaced: labels in them are lost. They stay as they are until the new ones are complete,
/// also when the program is interrupted.
#[derive(Debug, Parser)]
#[command(name = "dataset_generator", version, after_long_help = EXAMPLES)]
struct Args {
    /// Movie: the .xml of a BigDataViewer .h5/.xml pair, or the .h5
    ///
    /// Of the .xml, its timepoints and view setups are taken, and its image and partition files are found where it says or
    /// beside it. Of an .h5 file, all timepoints are taken, in the order of their numbers.
    input: PathBuf,

    /// Folder for the dataset; made when missing. The server finds it as WORKSPACE/datasets/NAME
    output: PathBuf,

    /// Store the images with 16 bit instead of 8
    ///
    /// Without it, values above 255 lose their upper bits: use this option or --divisor for movies that have such values.
    /// Movies of other types than unsigned 8 or 16 bit get 16 bit by themselves when they need them.
    #[arg(long)]
    uint16: bool,

    /// Divide all values by D and round down; a 12-bit movie fits into 8 bit with --divisor 16
    ///
    /// Negative values become 0. Floating-point movies within 0 and 1 are multiplied by a power of two when D is 1.
    #[arg(long, value_name = "D", default_value_t = 1.0)]
    divisor: f64,

    /// Store the first plane of each timepoint only, as a 2-D movie
    #[arg(long = "2d")]
    is_2d: bool,

    /// Id of the view setup to read (channel or angle); without it, the lowest id of the .xml, or else of the .h5
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
            eprintln!("dataset_generator: interrupted; {} is as it was before", args.output.display());
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
    println!(
        "{}: {} timepoints of {} voxels, {bits} bit",
        args.output.display(),
        summary.shape.timepoints,
        size.join(" × ")
    );
    for remark in summary.remarks("--uint16", "--divisor") {
        eprintln!("dataset_generator: {remark}");
    }
}

/// Lets Ctrl-C end the work in order, so that no half-made stores stay behind.
fn cancel_on_interrupt(cancel: CancelToken) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        // Without a handler, Ctrl-C ends the program at once; the next run then cleans up.
        if let Ok(runtime) = runtime
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            cancel.cancel();
        }
    });
}
