//! One suite for every store, on a real SQLite file and on a real Redis.

use elephant_testkit::{RedisServer, eventually};

use super::*;
use crate::{JobStatus, record::unix_now};

/// The kinds of the suite, in the order in which they are recorded.
const KINDS: [&str; 5] = ["generate", "predict", "reset", "update", "train"];

#[test]
fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    suite(&|| SqliteStore::open(&folder.path().join("elephant.db")).unwrap());
}

#[test]
fn redis() {
    let Some(server) = RedisServer::start() else { return };
    suite(&|| RedisStore::open(&server.url(), "test").unwrap());
}

#[test]
fn redis_that_was_restarted() {
    let Some(mut server) = RedisServer::start() else { return };
    let store = RedisStore::open(&server.url(), "test").unwrap();
    let first = store.new_job_id().unwrap();
    store.save_job(&record(first, "train", JobStatus::Running), Some(&Lease::new(&earlier()))).unwrap();
    server.kill();
    let error = store.check().unwrap_err();
    assert!(matches!(error, JobsError::RedisUnreachable { .. }), "{error}");
    server.restart();
    eventually("Redis is found again", || store.check().is_ok());
    assert!(store.connections() >= 2);
    assert_eq!(store.job(first).unwrap(), None, "it forgets, without a file");
    assert!(store.new_job_id().unwrap() > first, "and its numbers are not given out again");
    // A connection that was open when Redis was restarted is replaced unseen.
    server.kill();
    server.restart();
    store.check().unwrap();
}

#[test]
fn redis_that_hangs() {
    let Some(server) = RedisServer::start() else { return };
    let store = RedisStore::open(&server.url(), "test").unwrap();
    store.check().unwrap();
    server.pause();
    let begun = std::time::Instant::now();
    let error = store.check().unwrap_err().to_string();
    assert!(error.contains("no reply within 1s"), "{error}");
    assert!(store.check().is_err());
    assert!(begun.elapsed().as_secs() < 4);
    server.resume();
    eventually("Redis is found again", || store.check().is_ok());
}

#[test]
fn redis_has_the_originals_keys() {
    let Some(server) = RedisServer::start() else { return };
    let store = RedisStore::open(&server.url(), "test").unwrap();
    let both = Activity { state: ProcessState::Wait, updating_labels: true, updating_flow_labels: true };
    store.set_activity(both).unwrap();
    store.set_training_parameters(TrainingParameters { learning_rate: Some(1.0), crop_count: Some(5) }).unwrap();
    store.set_live_timepoint(Some(7)).unwrap();
    let get = |key| server.command(&["GET", key]);
    let keys = ["state", "update_ongoing_seg", "update_ongoing_flow", "lr", "n_crops", "timepoint"];
    assert_eq!(keys.map(get), ["2", "1", "1", "1.0", "5", "7"]);
    store.set_activity(Activity::default()).unwrap();
    assert_eq!(server.command(&["EXISTS", "update_ongoing_seg", "update_ongoing_flow"]), "0");
    for (key, value) in [("state", "x"), ("lr", "nan"), ("n_crops", "-1"), ("timepoint", "")] {
        server.command(&["SET", key, value]);
    }
    assert_eq!(store.process_state().unwrap(), ProcessState::Idle);
    assert_eq!(store.training_parameters().unwrap(), TrainingParameters::default());
    assert_eq!(store.live_timepoint().unwrap(), None);
    server.command(&["SET", "lr", "1e-05"]);
    assert_eq!(store.training_parameters().unwrap().learning_rate, Some(1e-5));
}

#[test]
fn addresses_of_redis() {
    for url in ["localhost:6379", "http://localhost", "redis://", "redis://host:99999", "redis://host/x", ""] {
        assert!(matches!(RedisStore::open(url, "test"), Err(JobsError::RedisAddress { .. })), "{url}");
    }
    let store = RedisStore::open("redis://:secret@127.0.0.1:1/3", "test").unwrap();
    assert_eq!(store.description(), "Redis at 127.0.0.1:1/3");
    assert!(!store.check().unwrap_err().to_string().contains("secret"));
    assert!(!format!("{store:?}").contains("secret"));
}

fn record(id: i64, kind: &str, status: JobStatus) -> JobRecord {
    JobRecord {
        id,
        kind: kind.into(),
        subject: "lab/fly \"1\"".into(),
        status,
        error: None,
        note: None,
        begun_at: Some(unix_now()),
        ended_at: None,
    }
}

/// The process that runs the jobs of the suite.
fn earlier() -> Owner {
    Owner { role: "server".into(), process: "earlier".into() }
}

fn lease(job: &JobRecord) -> Option<Lease> {
    (job.status == JobStatus::Running).then(|| Lease::new(&earlier()))
}

/// What each store has to do; `open` opens the same one again.
fn suite<S: JobStore + ElephantState>(open: &dyn Fn() -> S) {
    let store = open();
    store.check().unwrap();
    store.check_writable().unwrap();
    assert!(store.connections() >= 1);
    settings(&store);
    jobs(&store);
    losses(&store);
    leases(&store);
    forgetting(&store);
    drop(store);
    let again = open();
    assert_eq!(again.process_state().unwrap(), ProcessState::Run, "the store does not judge");
    assert_eq!(again.training_parameters().unwrap().crop_count, Some(9));
    after_opening_again(&again);
}

fn settings(store: &dyn ElephantState) {
    assert_eq!(store.process_state().unwrap(), ProcessState::Idle);
    for state in [ProcessState::Wait, ProcessState::Idle, ProcessState::Run] {
        let updating_labels = state == ProcessState::Wait;
        store.set_activity(Activity { updating_labels, ..Activity::showing(state) }).unwrap();
        assert_eq!(store.process_state().unwrap(), state);
    }
    assert_eq!(store.training_parameters().unwrap(), TrainingParameters::default());
    store.set_training_parameters(TrainingParameters::default()).unwrap();
    store.set_training_parameters(TrainingParameters { learning_rate: Some(1e-7), crop_count: None }).unwrap();
    store.set_training_parameters(TrainingParameters { learning_rate: None, crop_count: Some(9) }).unwrap();
    let both = TrainingParameters { learning_rate: Some(1e-7), crop_count: Some(9) };
    assert_eq!(store.training_parameters().unwrap(), both);
    assert_eq!(store.live_timepoint().unwrap(), None);
    store.set_live_timepoint(Some(12)).unwrap();
    assert_eq!(store.live_timepoint().unwrap(), Some(12));
    store.set_live_timepoint(None).unwrap();
    assert_eq!(store.live_timepoint().unwrap(), None);
}

fn jobs(store: &dyn JobStore) {
    assert_eq!(store.jobs(&JobFilter::newest(9)).unwrap(), []);
    assert_eq!(store.job(1).unwrap(), None);
    let mut records = Vec::new();
    for kind in KINDS {
        let mut job = record(store.new_job_id().unwrap(), kind, JobStatus::Running);
        store.save_job(&job, lease(&job).as_ref()).unwrap();
        assert_eq!(store.job(job.id).unwrap(), Some(job.clone()));
        if kind != "train" {
            job.status = JobStatus::Failed;
            job.error = Some("grün\n{}".into());
            job.ended_at = Some(unix_now());
            store.save_job(&job, lease(&job).as_ref()).unwrap();
            store.save_job(&job, lease(&job).as_ref()).unwrap();
        }
        records.insert(0, job);
    }
    assert!(records.windows(2).all(|pair| pair[0].id == pair[1].id + 1), "numbers count up");
    assert_eq!(store.jobs(&JobFilter::newest(9)).unwrap(), records);
    assert_eq!(store.jobs(&JobFilter::newest(2)).unwrap(), records[..2]);
    assert_eq!(store.jobs(&JobFilter::newest(0)).unwrap(), []);
    let resets = JobFilter { kind: Some("reset".into()), ..JobFilter::newest(9) };
    assert_eq!(store.jobs(&resets).unwrap(), records[2..3]);
    let failed = JobFilter { status: Some(JobStatus::Failed), ..JobFilter::newest(3) };
    assert_eq!(store.jobs(&failed).unwrap(), records[1..4]);
    assert_eq!(store.jobs(&JobFilter { status: Some(JobStatus::Running), ..resets.clone() }).unwrap(), []);
}

fn losses(store: &dyn JobStore) {
    assert_eq!(store.losses(1).unwrap(), []);
    let point = |step| LossPoint { step, loss: Some(0.1 + step as f64), parts: [("nll".into(), None)].into() };
    for count in [3, 5] {
        let points: Vec<_> = (1..=count).map(point).collect();
        store.save_losses(1, &points).unwrap();
        assert_eq!(store.losses(1).unwrap(), points);
    }
}

/// A job is interrupted when an earlier process of the same role ran it, or when its lease has run out.
fn leases(store: &dyn JobStore) {
    let worker = Owner { role: "worker".into(), process: "busy".into() };
    let id = store.new_job_id().unwrap();
    let job = record(id, "predict", JobStatus::Running);
    store.save_job(&job, Some(&Lease { owner: worker.clone(), until: 1000.0 })).unwrap();
    let other = Owner { role: "other".into(), process: "other".into() };
    assert_eq!(store.interrupt_abandoned(&other, 999.0).unwrap(), []);
    assert_eq!(store.interrupt_abandoned(&worker, 9999.0).unwrap().len(), 0, "its own jobs run");
    store.renew(&[id, id + 77], &Lease { owner: worker, until: 2000.0 }).unwrap();
    assert_eq!(store.interrupt_abandoned(&other, 1001.0).unwrap(), [], "the lease was renewed");
    let interrupted = store.interrupt_abandoned(&other, 2001.0).unwrap();
    let expected = JobRecord { status: JobStatus::Interrupted, ended_at: Some(2001.0), ..job };
    assert_eq!(interrupted, std::slice::from_ref(&expected));
    store.renew(&[id], &Lease::new(&other)).unwrap();
    assert_eq!(store.job(id).unwrap(), Some(expected), "what has ended has no lease");
    assert_eq!(store.interrupt_abandoned(&other, 2001.0).unwrap(), []);
}

fn forgetting(store: &dyn JobStore) {
    let running = store.jobs(&JobFilter { status: Some(JobStatus::Running), ..JobFilter::newest(9) }).unwrap();
    assert_eq!(running.len(), 1);
    let last = running[0].id + 300;
    assert!((0..=300).any(|_| store.new_job_id().unwrap() >= last), "numbers count up");
    store.save_job(&record(last, "predict", JobStatus::Completed), None).unwrap();
    let found = store.jobs(&JobFilter { kind: Some("train".into()), ..JobFilter::newest(1) }).unwrap();
    assert_eq!(found, running, "it is found behind a gap");
    // Whatever comes later, a job that is running is not forgotten; the one before it, which ended, is.
    let ended = running[0].id - 1;
    assert!(store.job(ended).unwrap().is_some());
    store.save_job(&record(running[0].id + KEPT_JOBS + 1, "predict", JobStatus::Completed), None).unwrap();
    assert_eq!(store.job(ended).unwrap(), None);
    assert_eq!(store.job(running[0].id).unwrap().as_ref(), Some(&running[0]));
    let found = store.jobs(&JobFilter { status: Some(JobStatus::Running), ..JobFilter::newest(9) }).unwrap();
    assert_eq!(found, running, "it is listed");
    for job in 0..KEPT_CURVES as i64 + 5 {
        store.save_losses(job + 10, &[]).unwrap();
    }
    assert_eq!(store.losses(1).unwrap(), [], "old curves go");
}

fn after_opening_again(store: &dyn JobStore) {
    let later = Owner::new("server");
    let interrupted = store.interrupt_abandoned(&later, 1.5).unwrap();
    assert_eq!(interrupted.len(), 1);
    let job = &interrupted[0];
    assert_eq!((job.kind.as_str(), job.status, job.ended_at), ("train", JobStatus::Interrupted, Some(1.5)));
    assert_eq!(store.job(job.id).unwrap().as_ref(), Some(job));
    assert_eq!(store.interrupt_abandoned(&later, 2.5).unwrap(), [], "reported once");
    assert!(store.new_job_id().unwrap() > job.id);
}
