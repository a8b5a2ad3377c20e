//! The command line. Every option also has an environment variable, so that a container can be configured without
//! arguments.

use std::{fmt, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use elephant_amqp::{AddressError, BrokerAddress};
use elephant_types::{NetworkKind, NetworkTask, Numerics, VoxelSize};

use crate::{
    evaluate::EvaluateArgs, export::ExportArgs, fit::FitArgs, import::ImportArgs, job::JobArgs, track::TrackArgs,
};

/// A text that must not be displayed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text; `None` if it is empty.
    pub fn get(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|text| !text.is_empty())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_empty() { "none" } else { "hidden" })
    }
}

/// Three numbers with commas between them.
pub fn voxel_size(text: &str) -> Result<VoxelSize, String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let edges: [f64; 3] = numbers
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or("write three numbers in the order z, y, x, for example 2,0.5,0.5")?;
    VoxelSize::new(edges).map_err(|error| error.to_string())
}

/// The server behind interactive 3-D cell tracking with Mastodon and ELEPHANT.
///
/// Start it with `elephant-server serve`, then set the server URL in Mastodon's ELEPHANT preferences to
/// `http://localhost:8080`. All requests are described at `http://localhost:8080/docs`.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve clients until stopped with Ctrl-C or SIGTERM
    Serve(Box<ServeArgs>),
    /// Run one request without a server, and print its result as JSON
    ///
    /// The request is what `POST /v1/jobs` of a server takes. Its progress is shown on the terminal, and its record is kept
    /// in the workspace, as if a server had run it. A workspace that a server uses cannot be used by this command.
    Job(Box<JobArgs>),
    /// Find the cells of all frames of a dataset and link them into lineages
    ///
    /// Cells are found by the model, unless the project has them already, and linked by one optimum over all frames, with
    /// divisions and gaps. What people have approved, rejected or tagged in the project is kept to. The result is in the
    /// project; export it with `elephant-server export`. A workspace that a server uses cannot be used by this command:
    /// submit `{"track": {"dataset": NAME}}` to `POST /v1/jobs` of the server instead.
    Track(Box<TrackArgs>),
    /// Learn the costs of tracking from known lineages
    ///
    /// Learns from projects whose links are all true, from approved links, and from synthetic movies; begins with the
    /// weights that ship with the program. Complete projects and synthetic movies are learnt from without mistakes and with
    /// missed, spurious and shifted cells. The result is a file in the workspace's folder of models, which `elephant-server
    /// track` and the job `track` take as `weights` (docs/tracking.md).
    Fit(Box<FitArgs>),
    /// Write the tracks of a project for other programs
    ///
    /// Formats: the Cell Tracking Challenge (label images and a track table), GEFF, TrackMate, napari and Mastodon's CSV
    /// importer (docs/exports.md). Gaps are filled with interpolated cells. Works beside a running server.
    Export(ExportArgs),
    /// Make a project of the tracks of another program, for example of the ground truth of a movie
    ///
    /// Reads folders of the Cell Tracking Challenge (each mask becomes the ellipsoid with its moments), GEFF, and tables of
    /// spots with their parents (docs/exports.md). The project appears complete or not at all. Works beside a running server.
    Import(ImportArgs),
    /// Write a synthetic embryo movie with its ground truth, to try the server without data
    ///
    /// The folder then contains NAME.h5 and NAME.xml (open the latter in BigDataViewer or Mastodon), the true masks and
    /// tracks in TRA (Cell Tracking Challenge format) and the true spots in spots.json. The same seed gives the same
    /// movie.
    Demo(DemoArgs),
    /// Train one of the built-in networks from synthetic images only
    ///
    /// To continue an interrupted training, run the same command again; at most the last two minutes are lost. The
    /// model file contains half-precision numbers.
    Pretrain(PretrainArgs),
    /// Evaluate a model on synthetic images that no built-in network was trained on
    ///
    /// Prints F1 of the cells' centres, by anisotropy, radius, density and noise; for a flow network, the error of the
    /// displacements of cells.
    Score(ScoreArgs),
    /// Score tracked cells against ground truth, and list every mistake
    ///
    /// Both are folders of the Cell Tracking Challenge (masks with a track table), GEFF folders, or tables of spots. Of two
    /// folders with masks, a cell is found if more than half of its voxels have one label in the result, and the ground truth
    /// can be the folder that has TRA and SEG in it. Otherwise a cell is found if a cell of the result has its centre within
    /// the true cell's radius. docs/scores.md explains all scores.
    Evaluate(EvaluateArgs),
}

#[derive(Debug, Args)]
pub struct PretrainArgs {
    /// Model file to write
    #[arg(value_name = "MODEL.pth")]
    pub output: PathBuf,

    /// What the network computes
    #[arg(long, value_enum, default_value_t)]
    pub network: NetworkArg,

    /// Kind of network
    #[arg(long, value_enum, default_value_t)]
    pub dims: DimsArg,

    /// Total number of optimiser steps; the learning rate falls to 0 over them
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,

    /// Seed of all random numbers; another seed gives another network
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Folder for the state of the training, which is needed to continue it after an interruption
    #[arg(long, default_value = "pretraining", value_name = "DIR")]
    pub state: PathBuf,

    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// Model file to evaluate
    #[arg(value_name = "MODEL.pth")]
    pub model: PathBuf,

    /// What the network computes
    #[arg(long, value_enum, default_value_t)]
    pub network: NetworkArg,

    /// Kind of network in the file
    #[arg(long, value_enum, default_value_t)]
    pub dims: DimsArg,

    /// Number of images that a detection network is evaluated on
    #[arg(long, default_value_t = 200)]
    pub scenes: u64,

    /// Number of movies that a flow network is evaluated on
    #[arg(long, default_value_t = 4)]
    pub movies: u64,

    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum NetworkArg {
    /// Classes of voxels: where cells are
    #[default]
    Detection,
    /// Displacements: where cells were in the frame before
    Flow,
}

impl From<NetworkArg> for NetworkTask {
    fn from(network: NetworkArg) -> Self {
        match network {
            NetworkArg::Detection => Self::Detection,
            NetworkArg::Flow => Self::Flow,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
pub enum DimsArg {
    /// 3-D convolutions
    #[default]
    #[value(name = "3d")]
    Volumetric,
    /// 2-D convolutions
    #[value(name = "2d")]
    Planar,
}

impl From<DimsArg> for NetworkKind {
    fn from(dims: DimsArg) -> Self {
        match dims {
            DimsArg::Volumetric => Self::Volumetric,
            DimsArg::Planar => Self::Planar,
        }
    }
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Address to listen on; use 0.0.0.0:8080 to serve other machines (then set a token, or use an SSH tunnel instead)
    #[arg(long, env = "ELEPHANT_BIND", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub bind: SocketAddr,

    /// Create a synthetic dataset if the workspace has none, and print how to use it
    #[arg(long, env = "ELEPHANT_DEMO")]
    pub demo: bool,

    /// Token that every request must contain as `Authorization: Bearer TOKEN` (the Java client cannot send one)
    ///
    /// Other users of this machine can see command lines, so prefer the variable `ELEPHANT_TOKEN`.
    #[arg(long, env = "ELEPHANT_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,

    /// Origin of web pages that may call the server, for example `https://lab.example.org`; can be repeated
    ///
    /// Requests from pages of other origins are refused. The server's own pages need no permission.
    #[arg(long = "cors-origin", env = "ELEPHANT_CORS_ORIGINS", value_delimiter = ',', value_name = "ORIGIN")]
    pub cors_origins: Vec<String>,

    /// Host name by which clients call the server, for example `labserver.example.org`; can be repeated
    ///
    /// Without a token, requests to unknown host names are refused, because a foreign web page could use a name of its
    /// own to reach the server. Always known are localhost and loopback addresses, also through an SSH tunnel. With
    /// --bind to an address other than loopback, all IP addresses and this machine's host name are known too. Add other
    /// names here: a DNS name, or the name or address that a reverse proxy passes on.
    #[arg(long = "allowed-host", env = "ELEPHANT_ALLOWED_HOSTS", value_delimiter = ',', value_name = "HOST")]
    pub allowed_hosts: Vec<String>,

    #[command(flatten)]
    pub broker: BrokerArgs,

    /// Format of the log
    #[arg(long, env = "ELEPHANT_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// What runs requests, and where.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Folder for datasets, models and logs; created if it is missing
    #[arg(long, env = "ELEPHANT_WORKSPACE", default_value = "workspace", value_name = "DIR")]
    pub workspace: PathBuf,

    /// Folder outside the workspace, for example on another disk, into which symbolic links in the workspace's
    /// `datasets` may point; can be repeated, or a list separated by `:`
    ///
    /// Movies and whole datasets may then be links into this folder; the server reads and writes there. Without this
    /// option, links that lead out of the workspace are refused.
    #[arg(long = "data-root", env = "ELEPHANT_DATA_ROOTS", value_delimiter = ':', value_name = "DIR")]
    pub data_roots: Vec<PathBuf>,

    /// Which numbers to compute: those of the corrected method, or the original server's bit for bit
    #[arg(long, env = "ELEPHANT_NUMERICS", value_enum, default_value_t)]
    pub numerics: NumericsArg,

    #[command(flatten)]
    pub compute: ComputeArgs,

    /// Hosts from which models may be downloaded
    #[arg(
        long,
        env = "ELEPHANT_MODEL_HOSTS",
        value_delimiter = ',',
        value_name = "HOST",
        default_value = "github.com,release-assets.githubusercontent.com,objects.githubusercontent.com"
    )]
    pub model_hosts: Vec<String>,

    /// File or https URL of the initial 3-D network, instead of the built-in one and of the original's ("Versatile")
    #[arg(long, env = "ELEPHANT_VERSATILE_3D", value_name = "PATH_OR_URL")]
    pub versatile_3d: Option<String>,

    /// File or https URL of the initial 2-D network
    #[arg(long, env = "ELEPHANT_VERSATILE_2D", value_name = "PATH_OR_URL")]
    pub versatile_2d: Option<String>,

    /// File or https URL of the initial 3-D flow network
    #[arg(long, env = "ELEPHANT_VERSATILE_FLOW_3D", value_name = "PATH_OR_URL")]
    pub versatile_flow_3d: Option<String>,

    /// File or https URL of the initial 2-D flow network
    #[arg(long, env = "ELEPHANT_VERSATILE_FLOW_2D", value_name = "PATH_OR_URL")]
    pub versatile_flow_2d: Option<String>,

    /// Keep state, parameters and job records in this Redis instead of a file in the workspace
    ///
    /// Give it as `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`. Other programs can read the original server's keys there
    /// (`state`, `lr`, `n_crops`, `timepoint`). While Redis is unavailable, running jobs continue, requests for new
    /// jobs get status 503, and `/health/readyz` reports it.
    #[arg(long, env = "ELEPHANT_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<Secret>,

    /// Host of that Redis, as for the original server; ignored if --redis-url is given
    #[arg(long, env = "ELEPHANT_REDIS_HOST", value_name = "HOST")]
    pub redis_host: Option<String>,

    /// Port of the Redis at --redis-host
    #[arg(long, env = "ELEPHANT_REDIS_PORT", value_name = "PORT", default_value_t = 6379)]
    pub redis_port: u16,
}

/// Options for computing the network.
#[derive(Debug, Args)]
pub struct ComputeArgs {
    /// Device for the network: auto uses the first GPU if there is one; cuda:all also distributes training steps over
    /// all GPUs
    #[arg(long, env = "ELEPHANT_DEVICE", value_enum, default_value_t)]
    pub device: DeviceArg,

    /// Floating-point format of the network; bf16 is faster on CPUs with AVX512-BF16 (predictions only) and on GPUs
    #[arg(long, env = "ELEPHANT_PRECISION", value_enum, default_value_t)]
    pub precision: PrecisionArg,

    /// Number of CPU threads for computing [default: all cores]
    #[arg(long, env = "ELEPHANT_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

/// The broker from which the ELEPHANT client reads progress and log. The client works without it, but its status light
/// stays red.
#[derive(Debug, Args)]
pub struct BrokerArgs {
    /// RabbitMQ for the client's progress dialog and server log: `amqp://USER:PASSWORD@HOST:PORT/VHOST`
    ///
    /// Write the virtual host `/` as %2f. The client's default user and password are `user` and `user`. A broker that
    /// is unavailable, slow or restarted does not affect requests and jobs; `/health/readyz` reports its state. The
    /// same progress is available at `/events` and `/ws/events` without a broker.
    #[arg(long, env = "ELEPHANT_AMQP_URL", hide_env_values = true, value_name = "URL")]
    pub amqp_url: Option<Secret>,

    /// Host of that broker, as for the original server; this and the next four options are ignored if --amqp-url is
    /// given
    #[arg(long, env = "RABBITMQ_HOST", value_name = "HOST")]
    pub rabbitmq_host: Option<String>,

    /// Port of the broker
    #[arg(long, env = "RABBITMQ_NODE_PORT", value_name = "PORT", default_value_t = 5672)]
    pub rabbitmq_port: u16,

    /// Virtual host on the broker
    #[arg(long, env = "RABBITMQ_VIRTUAL_HOST", value_name = "NAME", default_value = "/")]
    pub rabbitmq_vhost: String,

    /// User name on the broker
    #[arg(long, env = "RABBITMQ_USER", value_name = "NAME", default_value = "user")]
    pub rabbitmq_user: String,

    /// Password of that user
    #[arg(
        long,
        env = "RABBITMQ_PASSWORD",
        hide_env_values = true,
        value_name = "WORD",
        default_value = "user",
        hide_default_value = true
    )]
    pub rabbitmq_password: Secret,
}

impl BrokerArgs {
    /// The broker, if one is given.
    ///
    /// # Errors
    /// When `--amqp-url` is not an AMQP address.
    pub fn address(&self) -> Result<Option<BrokerAddress>, AddressError> {
        if let Some(url) = self.amqp_url.as_ref().and_then(Secret::get) {
            return BrokerAddress::parse(url).map(Some);
        }
        let host = self.rabbitmq_host.as_deref().filter(|host| !host.is_empty());
        Ok(host.map(|host| {
            let (user, password) = (&self.rabbitmq_user, self.rabbitmq_password.get().unwrap_or_default());
            BrokerAddress::new(host, self.rabbitmq_port, &self.rabbitmq_vhost, user, password)
        }))
    }
}

impl EngineArgs {
    /// The Redis for the state, unless the state is kept in the workspace.
    pub fn redis_url(&self) -> Option<String> {
        let host = self.redis_host.as_ref().filter(|host| !host.is_empty());
        let by_host = || host.map(|host| format!("redis://{host}:{}/0", self.redis_port));
        self.redis_url.as_ref().and_then(Secret::get).map(str::to_owned).or_else(by_host)
    }
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder to write to; created if it is missing
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,

    /// Name of the movie's files
    #[arg(long, default_value = "elephant-demo")]
    pub name: String,

    /// Seed of all random numbers; another seed gives another embryo
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum NumericsArg {
    /// The original's method with its errors corrected (docs/numerics.md)
    #[default]
    Corrected,
    /// The original's numbers, with its errors
    Original,
}

impl From<NumericsArg> for Numerics {
    fn from(numerics: NumericsArg) -> Self {
        match numerics {
            NumericsArg::Corrected => Self::Corrected,
            NumericsArg::Original => Self::Original,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
pub enum DeviceArg {
    /// The first GPU, or the CPU when there is none
    #[default]
    Auto,
    /// The CPU
    Cpu,
    /// The first GPU, or an error when there is none
    Cuda,
    /// As cuda; the crops of each training step are distributed over all GPUs
    #[value(name = "cuda:all")]
    AllCuda,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum PrecisionArg {
    /// Single precision, 32 bits
    #[default]
    F32,
    /// 16 bits with the range of f32
    Bf16,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// Plain text
    #[default]
    Text,
    /// One JSON object per line, for log collectors
    Json,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn serve(arguments: &[&str]) -> ServeArgs {
        match Cli::parse_from(["elephant-server", "serve"].iter().chain(arguments)).command {
            Command::Serve(args) => *args,
            _ => unreachable!("the command is serve"),
        }
    }

    #[test]
    fn data_roots_are_repeated_or_a_list() {
        let roots = serve(&["--data-root", "/a", "--data-root", "/b:/c"]).engine.data_roots;
        assert_eq!(roots, ["/a", "/b", "/c"].map(PathBuf::from));
        assert!(serve(&[]).engine.data_roots.is_empty());
    }

    #[test]
    fn services_are_given_by_address_or_by_the_originals_options() {
        let redis = |arguments: &[&str]| serve(arguments).engine.redis_url();
        assert_eq!(redis(&["--redis-host", "state"]).as_deref(), Some("redis://state:6379/0"));
        assert_eq!(redis(&["--redis-host", "state", "--redis-port", "1"]).as_deref(), Some("redis://state:1/0"));
        let both = ["--redis-host", "state", "--redis-url", "redis://other"];
        assert_eq!(redis(&both).as_deref(), Some("redis://other"), "the address has priority");
        assert_eq!(redis(&["--redis-host", "", "--redis-url", ""]), None);
        let broker = |arguments: &[&str]| {
            serve(arguments).broker.address().map(|address| address.map(|address| address.to_string()))
        };
        let parts = ["--rabbitmq-host", "broker", "--rabbitmq-port", "1", "--rabbitmq-vhost", "lab"];
        assert_eq!(broker(&parts).unwrap().as_deref(), Some("broker:1, vhost lab"));
        assert_eq!(broker(&["--rabbitmq-host", "broker"]).unwrap().as_deref(), Some("broker:5672, vhost /"));
        let both = ["--rabbitmq-host", "broker", "--amqp-url", "amqp://other/lab"];
        assert_eq!(broker(&both).unwrap().as_deref(), Some("other:5672, vhost lab"));
        assert_eq!(broker(&["--rabbitmq-host", "", "--amqp-url", ""]).unwrap(), None);
        assert!(broker(&["--amqp-url", "other"]).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let words = ["--token", "s3cret", "--redis-url", "redis://:s3cret@a", "--amqp-url", "amqp://u:s3cret@a"];
        let args = serve(&[&words[..], &["--rabbitmq-password", "s3cret"]].concat());
        let shown = format!("{args:?}");
        assert!(!shown.contains("s3cret") && shown.contains("token: Some(hidden)"), "{shown}");
        assert_eq!(args.token.unwrap().get(), Some("s3cret"));
        assert_eq!(serve(&["--token", ""]).token.unwrap().get(), None);
    }
}
