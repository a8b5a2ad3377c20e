//! `elephant-server job`: one request, run by this process.

use std::{io::Read, path::Path};

use anyhow::{Context, Result, bail};
use elephant_jobs::{Ended, JobError, JobRunner};
use elephant_pipeline::{PipelineError, Task, TaskOutput, UseCases};

use crate::{
    config::{JobArgs, LogFormat},
    telemetry,
    terminal::Bar,
    wiring, workspace,
};

/// Runs the request of a file and prints its result as JSON.
pub fn run(args: &JobArgs) -> Result<()> {
    let task = read(&args.file)?;
    telemetry::init(LogFormat::Text, "warn,lapin=off", None);
    wiring::start_threads(&args.engine.compute)?;
    let _lock = workspace::hold(&args.engine, "a job of the command line").with_context(|| {
        let file = args.file.display();
        format!(
            "cannot run a job in this workspace; a server that uses it can: curl 'http://ADDRESS/v1/jobs?wait=true' \
             -H 'Content-Type: application/json' -d @{file}"
        )
    })?;
    let workspace = workspace::open(&args.engine)?;
    let wiring::Engine { use_cases, runner, .. } = wiring::engine(&args.engine, &workspace)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    match runtime.block_on(run_with_bar(task, use_cases, runner)) {
        Ok(Ended::Done(output)) => {
            println!("{}", serde_json::to_string(&output)?);
            Ok(())
        }
        Ok(Ended::Cancelled) | Err(JobError::Closing) => bail!("the job was cancelled"),
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
    let task: Task = serde_json::from_str(&text).with_context(|| format!("{name} is not a request"))?;
    task.validate()?;
    Ok(task)
}

/// Runs a request as a job, with a bar on the terminal, until it ends; Ctrl-C cancels it.
async fn run_with_bar(
    task: Task,
    use_cases: UseCases,
    runner: JobRunner,
) -> Result<Ended<TaskOutput>, JobError<PipelineError>> {
    let spec = task.spec();
    let bar = Bar::new(spec.kind);
    let mut events = runner.jobs().subscribe();
    let job = runner.start(spec, move |context| task.run(&use_cases, context)).await?;
    let mut ended = std::pin::pin!(job.ended());
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut is_interrupted = false;
    loop {
        tokio::select! {
            ended = &mut ended => return ended,
            event = events.recv() => {
                // An error means that events were missed; the next one has the newest progress.
                if let Some(progress) = event.ok().and_then(|event| event.progress) {
                    bar.set(progress.step, progress.total.unwrap_or(progress.step));
                }
            }
            interrupted = &mut interrupt, if !is_interrupted => {
                is_interrupted = true;
                // After an error there is no handler: Ctrl-C ends the process at once, and the next one cleans up.
                if interrupted.is_ok() {
                    runner.close();
                }
            }
        }
    }
}
