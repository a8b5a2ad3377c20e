//! `elephant-server job`: one request, run by this process.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use elephant_api_core::parse_as;
use elephant_fs::FsError;
use elephant_jobs::{Ended, JobError, JobRunner};
use elephant_pipeline::{PipelineError, Task, TaskOutput, UseCases};

use crate::{
    config::{EngineArgs, LogFormat},
    signals, telemetry,
    terminal::{self, Bar},
    wiring, workspace,
};

/// Arguments of `elephant-server job`.
#[derive(Debug, Args)]
#[command(after_long_help = JOB_EXAMPLE)]
pub struct JobArgs {
    /// JSON file with the request; `-` reads standard input
    #[arg(value_name = "FILE.json")]
    pub file: PathBuf,

    #[command(flatten)]
    pub engine: EngineArgs,
}

const JOB_EXAMPLE: &str = r#"Example: the cells of the first frame
  echo '{"predict": {"dataset": "elephant-demo", "timepoint": 0, "voxel_size": [2, 0.5, 0.5]}}' > job.json
  elephant-server job job.json --workspace workspace > cells.json

Other requests: {"generate": {"dataset": "fly"}}
                {"reset": {"model": "detection.pth", "kind": "3d", "source": "pretrained"}}
                {"erase_labels": {"dataset": "fly"}}
Sizes and positions are in z, y, x order. POST /v1/jobs of a server takes the same; http://localhost:8080/docs describes it."#;

/// Runs the request of a file and prints its result as JSON.
pub fn run(args: &JobArgs) -> Result<ExitCode> {
    let task = read(&args.file)?;
    let body = format!("@{}", args.file.display());
    run_task(task, &args.engine, &body, |output| Ok(serde_json::to_string(output)?))
}

/// Runs a request as a job and prints what `describe` says of its result. `body` is the request as an argument of curl, for those
/// who have to send it to a server.
pub fn run_task(
    task: Task,
    engine: &EngineArgs,
    body: &str,
    describe: impl FnOnce(&TaskOutput) -> Result<String>,
) -> Result<ExitCode> {
    telemetry::init(LogFormat::Text, "warn,lapin=off", None);
    wiring::start_threads(&engine.compute)?;
    let _lock = workspace::hold(engine, "a job of the command line").map_err(|error| {
        let FsError::Locked { holder, .. } = &error else { return anyhow!("{error}") };
        let Some(server) = holder.strip_prefix("the server on ") else {
            return anyhow!("cannot run a job in this workspace: {error}");
        };
        let address = server.split(' ').next().unwrap_or_default();
        anyhow!(
            "cannot run a job in this workspace: {error}; that server can: curl 'http://{address}/v1/jobs?wait=true' \
             -H 'Content-Type: application/json' -d {body}"
        )
    })?;
    let workspace = workspace::open(engine)?;
    let wiring::Engine { use_cases, runner, .. } = wiring::engine(engine, &workspace)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    let (ended, status) = runtime.block_on(run_with_bar(task, use_cases, runner))?;
    match ended {
        Ok(Ended::Done(output)) => {
            terminal::print(&describe(&output)?).context("cannot write the result")?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ended::Cancelled) | Err(JobError::Closing) => {
            eprintln!("elephant-server: the job was cancelled");
            Ok(status.map_or(ExitCode::FAILURE, ExitCode::from))
        }
        Err(error) => Err(error.into()),
    }
}

/// The request of a JSON file; `-` is standard input.
fn read(file: &Path) -> Result<Task> {
    let mut text = String::new();
    let (name, read) = if file == Path::new("-") {
        ("standard input".to_owned(), std::io::stdin().read_to_string(&mut text))
    } else {
        let read = std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text));
        (file.display().to_string(), read)
    };
    read.with_context(|| format!("cannot read {name}"))?;
    let task: Task =
        parse_as("it", text.as_bytes()).map_err(|error| anyhow!("{name} is not a request: {}", error.message()))?;
    task.validate()?;
    Ok(task)
}

/// Runs a request as a job, with a bar on the terminal, until it ends. Ctrl-C or SIGTERM cancels it; its exit status is
/// then returned too.
async fn run_with_bar(
    task: Task,
    use_cases: UseCases,
    runner: JobRunner,
) -> Result<(Result<Ended<TaskOutput>, JobError<PipelineError>>, Option<u8>)> {
    let mut signal = std::pin::pin!(signals::stop_signal().context("cannot wait for signals")?);
    let spec = task.spec();
    let bar = Bar::new(spec.kind);
    let mut events = runner.jobs().subscribe();
    let job = match runner.start(spec, move |context| task.run(&use_cases, context)).await {
        Ok(job) => job,
        Err(error) => return Ok((Err(error), None)),
    };
    let mut ended = std::pin::pin!(job.ended());
    let mut status = None;
    loop {
        tokio::select! {
            ended = &mut ended => return Ok((ended, status)),
            event = events.recv() => {
                // An error means that events were missed; the next one has the newest progress.
                if let Some(progress) = event.ok().and_then(|event| event.progress) {
                    bar.set(progress.step, progress.total.unwrap_or(progress.step));
                }
            }
            signalled = &mut signal, if status.is_none() => {
                status = Some(signalled);
                runner.close();
            }
        }
    }
}
