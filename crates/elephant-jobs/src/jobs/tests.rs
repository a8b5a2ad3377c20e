//! The same behaviour over an SQLite file and over a Redis that goes and comes.

use elephant_testkit::{RedisServer, eventually};
use elephant_types::{TaskEvent, TrainingStep};

use super::*;
use crate::{
    JobStatus::{Cancelled, Completed, Failed, Interrupted, Running},
    Outcome, RedisStore, SqliteStore,
};

struct Embedded(tempfile::TempDir);

impl Embedded {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn jobs(&self) -> Jobs {
        Jobs::open(SqliteStore::open(&self.0.path().join("state.db")).unwrap(), Owner::new("server")).unwrap()
    }
}

fn train(model: &str) -> JobSpec {
    let activity = Activity::showing(ProcessState::Run);
    JobSpec { exclusive: Some("models".into()), activity, ..JobSpec::new("train", model) }
}

fn reset(model: &str) -> JobSpec {
    JobSpec { kind: "reset", noun: "reset of a model", ..train(model) }
}

fn predict(dataset: &str) -> JobSpec {
    JobSpec { activity: Activity::showing(ProcessState::Wait), ..JobSpec::new("predict", dataset) }
}

fn generate(dataset: &str) -> JobSpec {
    JobSpec::new("generate", dataset)
}

fn on_redis(server: &RedisServer) -> Jobs {
    Jobs::open(RedisStore::open(&server.url(), "test").unwrap(), Owner::new("server")).unwrap()
}

fn statuses(jobs: &Jobs) -> Vec<JobStatus> {
    jobs.list(&JobFilter::newest(100)).unwrap().into_iter().map(|job| job.status).collect()
}

#[test]
fn the_state_follows_the_jobs() {
    let embedded = Embedded::new();
    follow(&embedded.jobs());
    let Some(server) = RedisServer::start() else { return };
    follow(&on_redis(&server));
}

fn follow(jobs: &Jobs) {
    let state = || jobs.elephant().process_state().unwrap();
    assert_eq!(state(), ProcessState::Idle);
    let resetting = jobs.begin(&reset("detection.pth")).unwrap();
    assert_eq!(state(), ProcessState::Run);
    let predicting = jobs.begin(&predict("fly")).unwrap();
    assert_eq!(state(), ProcessState::Wait);
    predicting.finish(Outcome::Completed);
    assert_eq!(state(), ProcessState::Run);
    assert!(matches!(jobs.begin(&train("flow.pth")), Err(JobsError::Busy("reset of a model"))));
    assert_eq!(state(), ProcessState::Run, "who is refused touches nothing");
    assert!(resetting.context().check().is_ok());
    drop(resetting);
    eventually("the state is idle", || state() == ProcessState::Idle);
    assert_eq!(statuses(jobs), [Completed, Cancelled]);
    let panicked = jobs.begin(&train("detection.pth")).unwrap();
    std::thread::spawn(move || {
        let _job = panicked;
        panic!("as a defect of a task does");
    })
    .join()
    .unwrap_err();
    eventually("the crash is recorded", || statuses(jobs)[0] == Failed);
}

#[test]
fn one_of_fifty_trainings_runs() {
    let embedded = Embedded::new();
    race(&embedded.jobs());
    let Some(server) = RedisServer::start() else { return };
    race(&on_redis(&server));
}

fn race(jobs: &Jobs) {
    for _ in 0..5 {
        let start = std::sync::Barrier::new(50);
        let results: Vec<_> = std::thread::scope(|scope| {
            let begin = |index| {
                start.wait();
                jobs.begin(&if index % 2 == 0 { train("detection.pth") } else { reset("detection.pth") })
            };
            let threads: Vec<_> = (0..50).map(|index| scope.spawn(move || begin(index))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(JobsError::Busy(_)))));
        results.into_iter().flatten().for_each(|job| job.finish(Outcome::Completed));
    }
    assert_eq!(statuses(jobs), [Completed; 5], "the refused ones leave no trace");
}

#[test]
fn a_killed_servers_jobs_are_found() {
    let embedded = Embedded::new();
    let first = embedded.jobs();
    std::mem::forget(first.begin(&predict("fly")).unwrap());
    first.elephant().set_live_timepoint(Some(3)).unwrap();
    let second = embedded.jobs();
    assert_eq!(second.elephant().live_timepoint().unwrap(), None);
    assert_eq!(statuses(&second), [Interrupted]);
    assert_eq!(second.elephant().process_state().unwrap(), ProcessState::Idle);
}

#[tokio::test]
async fn an_abort_reaches_the_task_and_the_waiter() {
    let embedded = Embedded::new();
    let jobs = embedded.jobs();
    let mut events = jobs.subscribe();
    let predicting = jobs.begin(&predict("fly")).unwrap();
    let generating = jobs.begin(&generate("fly")).unwrap();
    jobs.abort();
    predicting.cancelled().await;
    assert!(predicting.context().check().is_err());
    assert!(generating.context().check().is_ok());
    predicting.finish(Outcome::Cancelled);
    drop(events.recv().await.unwrap());
    drop(events.recv().await.unwrap());
    assert_eq!(events.recv().await.unwrap().stage, stage::CANCELLED);
}

#[test]
fn one_job_is_cancelled() {
    let embedded = Embedded::new();
    let jobs = embedded.jobs();
    let [first, second] = [(); 2].map(|()| jobs.begin(&predict("fly")).unwrap());
    let id = first.id();
    assert_eq!(jobs.cancel(id).unwrap().id, id);
    assert!(first.context().check().is_err());
    assert!(second.context().check().is_ok());
    first.finish(Outcome::Cancelled);
    assert!(matches!(jobs.cancel(id), Err(JobsError::AlreadyEnded { .. })));
    assert!(matches!(jobs.cancel(99), Err(JobsError::UnknownJob(99))));
    let other_process = embedded.jobs();
    other_process.store().save_job(&jobs.details(second.id()).unwrap().record, None).unwrap();
    assert!(matches!(other_process.cancel(second.id()), Err(JobsError::RunsElsewhere(_))));
}

#[test]
fn progress_is_thinned_to_percents() {
    let embedded = Embedded::new();
    let jobs = embedded.jobs();
    let job = jobs.begin(&generate("fly")).unwrap();
    let mut events = jobs.subscribe();
    (1..=5000).for_each(|done| job.context().report(done, 5000));
    let mut count = 0;
    while events.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, 101);
    let progress = jobs.details(job.id()).unwrap().progress.unwrap();
    assert_eq!((progress.step, progress.total, progress.seconds_left), (5000, Some(5000), Some(0.0)));
}

#[test]
fn a_training_tells_its_steps_and_keeps_its_curve() {
    let embedded = Embedded::new();
    let jobs = embedded.jobs();
    let job = jobs.begin(&train("detection.pth")).unwrap();
    let mut events = jobs.subscribe();
    for done in 1..=3 {
        let parts = vec![("nll", 0.25), ("dice", f64::INFINITY)];
        job.context().tell(TrainingStep { done, total: None, loss: 0.5, parts });
    }
    job.context().tell(TaskEvent::model_updated());
    let first = serde_json::to_value(events.try_recv().unwrap()).unwrap();
    let expected = serde_json::json!({"job": 1, "kind": "train", "subject": "detection.pth", "event": "training_step",
        "step": 1, "total": null, "seconds_left": null, "loss": 0.5, "parts": {"nll": 0.25, "dice": null}});
    assert_eq!(first, expected);
    assert_eq!(last_stage(&mut events), TaskEvent::MODEL_UPDATED);
    let running = jobs.details(1).unwrap();
    assert_eq!(running.losses.iter().map(|point| point.step).collect::<Vec<_>>(), [1, 2, 3]);
    job.finish(Outcome::Completed);
    let ended = jobs.details(1).unwrap();
    assert_eq!((ended.record.status, ended.losses), (Completed, running.losses));
    assert!(ended.record.ended_at >= ended.record.begun_at);
}

fn last_stage(events: &mut broadcast::Receiver<Event>) -> String {
    std::iter::from_fn(|| events.try_recv().ok()).last().unwrap().stage.into_owned()
}

#[test]
fn parameters_reach_the_training_that_runs() {
    let embedded = Embedded::new();
    let jobs = embedded.jobs();
    let old = TrainingParameters { learning_rate: Some(1e-2), crop_count: Some(7) };
    jobs.set_training_parameters(old).unwrap();
    let live = jobs.live_parameters();
    assert_eq!(live.changes(), TrainingParameters::default());
    let change = TrainingParameters { learning_rate: Some(1e-3), crop_count: None };
    let all = jobs.set_training_parameters(change).unwrap();
    assert_eq!((live.changes(), all.crop_count), (change, Some(7)));
}

#[test]
fn a_state_that_cannot_be_written_is_noticed() {
    let embedded = Embedded::new();
    let jobs = embedded.jobs();
    let job = jobs.begin(&predict("fly")).unwrap();
    jobs.check().unwrap();
    let database = elephant_sqlite::rusqlite::Connection::open(embedded.0.path().join("state.db")).unwrap();
    let refuse = |table| format!("CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END");
    database.execute_batch(&refuse("settings")).unwrap();
    assert!(matches!(jobs.check(), Err(JobsError::Database(_))));
    database.execute_batch("DROP TRIGGER full").unwrap();
    jobs.check().unwrap();
    database.execute_batch(&refuse("jobs")).unwrap();
    job.finish(Outcome::Completed);
    assert!(matches!(jobs.check(), Err(JobsError::NotRecorded)));
    database.execute_batch("DROP TRIGGER full").unwrap();
    eventually("the end is recorded", || jobs.check().is_ok());
    assert_eq!(statuses(&jobs), [Completed]);
}

#[test]
fn jobs_outlive_an_outage_of_redis() {
    let Some(mut server) = RedisServer::start() else { return };
    let jobs = on_redis(&server);
    let [first, second] = [(); 2].map(|()| jobs.begin(&predict("fly")).unwrap());
    let training = jobs.begin(&train("detection.pth")).unwrap();
    let (id, training_id) = (first.id(), training.id());
    server.kill();
    let refused = jobs.begin(&predict("fly")).unwrap_err();
    assert!(matches!(refused, JobsError::RedisUnreachable { .. }), "{refused}");
    assert!(training.context().check().is_ok(), "running jobs go on");
    first.finish(Outcome::Failed("why".into()));
    drop(second);
    server.restart();
    // This Redis keeps nothing over its restart: all of it comes from the server's memory.
    eventually("the ends are recorded", || {
        let records = jobs.list(&JobFilter::newest(9));
        records.is_ok_and(|records| records.iter().filter(|job| job.ended_at.is_some()).count() == 2)
    });
    assert_eq!(jobs.details(id).unwrap().record.error.as_deref(), Some("why"));
    eventually("the state is that of the training", || jobs.elephant().process_state().ok() == Some(ProcessState::Run));
    let record = jobs.store().job(training_id).unwrap().unwrap();
    assert_eq!(record.status, Running);
    training.finish(Outcome::Completed);
    let next = jobs.begin(&train("detection.pth")).unwrap();
    assert!(next.id() > training_id);
    next.finish(Outcome::Completed);
}

#[test]
fn a_server_may_start_before_its_redis() {
    let Some(mut server) = RedisServer::start() else { return };
    let before = on_redis(&server);
    std::mem::forget(before.begin(&train("detection.pth")).unwrap());
    server.save();
    server.kill();
    let jobs = on_redis(&server);
    assert!(matches!(jobs.begin(&train("detection.pth")), Err(JobsError::RedisUnreachable { .. })));
    server.restart();
    eventually("a training begins", || jobs.begin(&train("detection.pth")).is_ok());
    let first = jobs.list(&JobFilter::newest(100)).unwrap().pop().unwrap();
    assert_eq!(first.status, Interrupted);
}
