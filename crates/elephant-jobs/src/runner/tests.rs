use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::Duration,
};

use elephant_testkit::eventually;
use elephant_types::Cancelled;

use super::*;
use crate::{Activity, JobFilter, JobStatus, Owner, ProcessState, QueueSpec, SqliteStore};

const QUEUE: QueueSpec = QueueSpec { name: "predictions", at_once: 1, waiting: 1, retry_after: 5 };

/// The error of the work.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("the dataset is not there")]
    NotFound,
}

impl Coded for WorkError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Cancelled(_) => ErrorCode::Cancelled,
            Self::NotFound => ErrorCode::NotFound,
        }
    }
}

struct Fixture {
    runner: JobRunner,
    _folder: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("state.db")).unwrap();
    Fixture { runner: JobRunner::new(Jobs::open(store, Owner::new("server")).unwrap()), _folder: folder }
}

impl Fixture {
    fn statuses(&self) -> Vec<JobStatus> {
        let records = self.runner.jobs().list(&JobFilter::newest(10)).unwrap();
        records.into_iter().map(|record| record.status).collect()
    }
}

fn predict(on_leave: OnLeave) -> JobSpec {
    let activity = Activity::showing(ProcessState::Wait);
    JobSpec { queue: Some(QUEUE), on_leave, activity, ..JobSpec::new("predict", "fly") }
}

/// Work that says when it begins and goes on until it is cancelled or allowed to end, or until the test has failed.
fn gated() -> (impl FnOnce(&TaskContext) -> Result<u32, WorkError> + Send, Receiver<()>, SyncSender<()>) {
    let (begun, has_begun) = sync_channel(1);
    let (go_on, may_go_on) = sync_channel(1);
    let work = move |context: &TaskContext| {
        begun.send(()).unwrap();
        loop {
            context.check()?;
            if may_go_on.recv_timeout(Duration::from_millis(2)) != Err(RecvTimeoutError::Timeout) {
                return Ok(7);
            }
        }
    };
    (work, has_begun, go_on)
}

#[tokio::test]
async fn results_and_errors_are_returned_and_recorded() {
    let fixture = fixture();
    let run = |work: fn(&TaskContext) -> Result<u32, WorkError>| fixture.runner.run(JobSpec::new("train", "m"), work);
    assert_eq!(run(|_| Ok(3)).await.unwrap(), Ended::Done(3));
    assert_eq!(run(|_| Err(Cancelled.into())).await.unwrap(), Ended::Cancelled);
    let failed = run(|_| Err(WorkError::NotFound)).await.unwrap_err();
    assert_eq!((failed.code(), failed.to_string().as_str()), (ErrorCode::NotFound, "the dataset is not there"));
    let crashed = run(|_| panic!("a defect")).await.unwrap_err();
    assert!(crashed.to_string().starts_with("the train job crashed: "), "{crashed}");
    let expected = [JobStatus::Failed, JobStatus::Failed, JobStatus::Cancelled, JobStatus::Completed];
    eventually("all ends are recorded", || fixture.statuses() == expected);
    assert_eq!(fixture.runner.jobs().details(3).unwrap().record.error.as_deref(), Some("the dataset is not there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_queue_take_turns() {
    let fixture = fixture();
    let (work, has_begun, go_on) = gated();
    let first = fixture.runner.start(predict(OnLeave::Cancel), work).await.unwrap();
    has_begun.recv().unwrap();
    let second = fixture.runner.start(predict(OnLeave::Cancel), |_| Ok::<_, WorkError>(8)).await.unwrap();
    assert_eq!(fixture.runner.waiting("predictions"), 1);
    let third = fixture.runner.start(predict(OnLeave::Cancel), |_| Ok::<_, WorkError>(9)).await;
    assert!(matches!(third, Err(JobError::Refused(JobsError::QueueFull(_)))));
    go_on.send(()).unwrap();
    assert_eq!(first.ended().await.unwrap(), Ended::Done(7));
    assert_eq!(second.ended().await.unwrap(), Ended::Done(8));
    assert_eq!(fixture.statuses(), [JobStatus::Completed; 2], "what was refused leaves no trace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_cancels_what_is_for_him_alone() {
    let fixture = fixture();
    let (work, has_begun, _go_on) = gated();
    let running = fixture.runner.start(predict(OnLeave::Cancel), work).await.unwrap();
    has_begun.recv().unwrap();
    let waiting = fixture.runner.start(predict(OnLeave::Cancel), |_| Ok::<_, WorkError>(8)).await.unwrap();
    drop(waiting);
    eventually("the waiting one is cancelled", || fixture.statuses()[0] == JobStatus::Cancelled);
    assert_eq!(fixture.statuses()[1], JobStatus::Running);
    drop(running);
    eventually("the running one is cancelled", || fixture.statuses() == [JobStatus::Cancelled; 2]);

    let (work, has_begun, go_on) = gated();
    let running = fixture.runner.start(predict(OnLeave::Continue), work).await.unwrap();
    has_begun.recv().unwrap();
    let waiting = fixture.runner.start(predict(OnLeave::Continue), |_| Ok::<_, WorkError>(8)).await.unwrap();
    drop((running, waiting));
    go_on.send(()).unwrap();
    eventually("both go on to their ends", || fixture.statuses()[..2] == [JobStatus::Completed; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_closes_says_so() {
    let fixture = fixture();
    let (work, has_begun, _go_on) = gated();
    let running = fixture.runner.start(JobSpec::new("generate", "fly"), work).await.unwrap();
    has_begun.recv().unwrap();
    fixture.runner.close();
    assert!(matches!(running.ended().await, Err(JobError::Closing)));
    let refused = fixture.runner.run(JobSpec::new("generate", "fly"), |_| Ok::<_, WorkError>(1)).await;
    assert!(matches!(refused, Err(JobError::Closing)));
    assert_eq!(fixture.statuses(), [JobStatus::Cancelled]);
}

/// Collects the log as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_line_of_a_jobs_log_names_the_job_and_its_request() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let dispatch = tracing::Dispatch::new(subscriber);
    let _default = tracing::dispatcher::set_default(&dispatch);
    let fixture = fixture();
    let work = move |_: &TaskContext| {
        // Threads that may block have the default subscriber of the process, and a test has none there.
        tracing::dispatcher::with_default(&dispatch, || tracing::info!("the crops are cut out"));
        Ok::<_, WorkError>(())
    };
    let request = error_span!("request", id = "abc");
    fixture.runner.run(JobSpec::new("train", "m.pth"), work).instrument(request).await.unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("the crops are cut out")).unwrap();
    assert!(line.contains("request{id=\"abc\"}:job{id=1 kind=\"train\" subject=\"m.pth\"}: "), "{line}");
}
