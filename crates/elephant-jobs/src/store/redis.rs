//! The state in Redis, for a server that shares one with others: the original server's keys with the original's values
//! (docs/protocol.md, "Redis"), and the job records under a prefix of the workspace's own.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Client, Connection, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind, cmd, pipe};

use super::{ElephantState, JobStore, KEPT_CURVES, KEPT_JOBS, losses_from_text, losses_to_text};
use crate::{
    Activity, JobFilter, JobRecord, JobStatus, JobsError, Lease, LossPoint, Owner, ProcessState, TrainingParameters,
    record::unix_now,
};

/// How long a connection may take to come about, and a reply to arrive.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long after a failed connection no other is tried, so that callers who wait in line do not wait that long each.
const PAUSE: Duration = Duration::from_millis(200);
/// Records fetched at once while looking for those of one kind.
const PAGE: i64 = 200;

/// Raises the counter `KEYS[1]` to `ARGV[1]`, which a Redis without persistence has forgotten when it was restarted.
const NOT_BELOW: &str = "if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then
                             redis.call('SET', KEYS[1], ARGV[1])
                         end";

/// Forgets those of the jobs ARGV in `KEYS[1]` that are not among the running ones in `KEYS[2]`. A job that ends long
/// after its turn to be forgotten leaves a record behind; there are not many of them.
const FORGET: &str = "for _, id in ipairs(ARGV) do
                          if redis.call('SISMEMBER', KEYS[2], id) == 0 then redis.call('HDEL', KEYS[1], id) end
                      end";

/// Sets the lease of the job `ARGV[1]` in `KEYS[2]` to `ARGV[2]`, if the job is among the running ones in `KEYS[1]`.
const RENEW: &str = "if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then
                         redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
                     end";

/// Marks the job `ARGV[1]` as interrupted by writing the record `ARGV[3]`, if there is one, to `KEYS[3]`, unless the
/// job has ended (it is not in `KEYS[1]`) or its lease in `KEYS[2]` is no longer `ARGV[2]` (empty for none). Returns
/// whether it did.
const INTERRUPT: &str = "if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0
                             or (redis.call('HGET', KEYS[2], ARGV[1]) or '') ~= ARGV[2] then return 0 end
                         redis.call('SREM', KEYS[1], ARGV[1])
                         redis.call('HDEL', KEYS[2], ARGV[1])
                         if ARGV[3] ~= '' then redis.call('HSET', KEYS[3], ARGV[1], ARGV[3]) end
                         return 1";

/// A database of a Redis server.
#[derive(Debug)]
pub struct RedisStore {
    client: Client,
    place: String,
    prefix: String,
    link: Mutex<Link>,
    connections: AtomicU64,
    /// The largest number given out here.
    last_job: AtomicI64,
}

#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    failed: Option<(Instant, String)>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Link").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// The database at `url` (`redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, or `redis+unix:///SOCKET?db=DB`). The records
    /// of `workspace`, any word that no other workspace has, are kept apart from those of others. Nothing is sent yet.
    ///
    /// # Errors
    /// When `url` is not an address of a Redis.
    pub fn open(url: &str, workspace: &str) -> Result<Self, JobsError> {
        let address = |error: RedisError| JobsError::RedisAddress { reason: error.to_string() };
        let info = url.into_connection_info().map_err(address)?;
        let place = format!("{}/{}", info.addr(), info.redis_settings().db());
        let client = Client::open(info).map_err(address)?;
        Ok(Self {
            client,
            place,
            prefix: format!("elephant:{workspace}:"),
            link: Mutex::default(),
            connections: AtomicU64::new(0),
            last_job: AtomicI64::new(0),
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A connection on which a panic has happened is dropped by the next failure.
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one request, which may be repeated without harm.
    fn ask<T>(
        &self,
        operation: &'static str,
        request: impl Fn(&mut Connection) -> Result<T, RedisError>,
    ) -> Result<T, JobsError> {
        let mut link = self.link();
        // A connection that idled may have been closed by a restart of Redis; then a new one is worth a try.
        if let Some(connection) = &mut link.connection {
            match request(connection) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    link.connection = None;
                    if error.is_timeout() || !error.is_io_error() {
                        return Err(self.error(operation, &error));
                    }
                }
            }
        }
        let connection = self.connect(operation, &mut link)?;
        request(connection).map_err(|error| {
            link.connection = None;
            self.error(operation, &error)
        })
    }

    fn connect<'a>(&self, operation: &'static str, link: &'a mut Link) -> Result<&'a mut Connection, JobsError> {
        if let Some((_, reason)) = link.failed.as_ref().filter(|(when, _)| when.elapsed() < PAUSE) {
            let (place, reason) = (self.place.clone(), reason.clone());
            return Err(JobsError::RedisUnreachable { operation, place, reason });
        }
        let connect = || {
            let connection = self.client.get_connection_with_timeout(TIMEOUT)?;
            connection.set_read_timeout(Some(TIMEOUT))?;
            connection.set_write_timeout(Some(TIMEOUT))?;
            Ok(connection)
        };
        let connection = connect().map_err(|error: RedisError| {
            let error = self.error(operation, &error);
            if let JobsError::RedisUnreachable { reason, .. } = &error {
                link.failed = Some((Instant::now(), reason.clone()));
            }
            error
        })?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(link.connection.insert(connection))
    }

    fn error(&self, operation: &'static str, error: &RedisError) -> JobsError {
        let place = self.place.clone();
        if error.is_timeout() {
            let reason = format!("no reply within {TIMEOUT:?}");
            return JobsError::RedisUnreachable { operation, place, reason };
        }
        let reason = error.to_string();
        // While it reads its file after a start, it answers with an error.
        if error.is_io_error() || error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading) {
            JobsError::RedisUnreachable { operation, place, reason }
        } else {
            JobsError::RedisRefused { operation, place, reason }
        }
    }

    /// A number that this or another program wrote as text; none when it is something else.
    fn number<T: std::str::FromStr>(&self, operation: &'static str, key: &str) -> Result<Option<T>, JobsError> {
        let text: Option<Vec<u8>> = self.ask(operation, |link| cmd("GET").arg(key).query(link))?;
        Ok(text.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok()))
    }

    /// The records with these numbers, in their order; a record that cannot be read is left out.
    fn records(&self, operation: &'static str, ids: &[i64]) -> Result<Vec<JobRecord>, JobsError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.key("jobs");
        let texts: Vec<Option<String>> = self.ask(operation, |link| cmd("HMGET").arg(&key).arg(ids).query(link))?;
        Ok(texts.into_iter().flatten().filter_map(|text| serde_json::from_str(&text).ok()).collect())
    }
}

impl JobStore for RedisStore {
    fn description(&self) -> String {
        format!("Redis at {}", self.place)
    }

    fn check(&self) -> Result<(), JobsError> {
        self.ask("reach the state", |link| cmd("PING").exec(link))
    }

    fn check_writable(&self) -> Result<(), JobsError> {
        let key = self.key("checked");
        self.ask("write the state", |link| cmd("SET").arg(&key).arg(unix_now()).exec(link))
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    fn new_job_id(&self) -> Result<i64, JobsError> {
        let (key, last) = (self.key("last_job"), self.last_job.load(Ordering::Relaxed));
        let mut request = pipe();
        request.atomic().cmd("EVAL").arg(NOT_BELOW).arg(1).arg(&key).arg(last).ignore();
        request.cmd("INCR").arg(&key);
        let (id,): (i64,) = self.ask("number a job", |link| request.query(link))?;
        self.last_job.fetch_max(id, Ordering::Relaxed);
        Ok(id)
    }

    fn save_job(&self, job: &JobRecord, lease: Option<&Lease>) -> Result<(), JobsError> {
        // Numbers of jobs that could not be recorded leave gaps, so more than one may have to go.
        const FORGOTTEN_AT_ONCE: i64 = 16;
        let (jobs, running, leases) = (self.key("jobs"), self.key("running"), self.key("leases"));
        let text = record_to_text(job);
        let running_command = if job.status == JobStatus::Running { "SADD" } else { "SREM" };
        let oldest = job.id - KEPT_JOBS;
        let mut request = pipe();
        request.atomic();
        request.cmd("EVAL").arg(NOT_BELOW).arg(1).arg(self.key("last_job")).arg(job.id);
        request.cmd("HSET").arg(&jobs).arg(job.id).arg(text);
        request.cmd(running_command).arg(&running).arg(job.id);
        match lease {
            Some(lease) => request.cmd("HSET").arg(&leases).arg(job.id).arg(lease_to_text(lease)),
            None => request.cmd("HDEL").arg(&leases).arg(job.id),
        };
        if oldest > 0 {
            let forgotten: Vec<i64> = (oldest - FORGOTTEN_AT_ONCE + 1..=oldest).collect();
            request.cmd("EVAL").arg(FORGET).arg(2).arg(&jobs).arg(&running).arg(forgotten);
        }
        self.ask("record a job", |link| request.exec(link))
    }

    fn renew(&self, jobs: &[i64], lease: &Lease) -> Result<(), JobsError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let text = lease_to_text(lease);
        let mut request = pipe();
        request.atomic();
        for job in jobs {
            let keys = [self.key("running"), self.key("leases")];
            request.cmd("EVAL").arg(RENEW).arg(2).arg(&keys).arg(job).arg(&text);
        }
        self.ask("renew the leases of jobs", |link| request.exec(link))
    }

    fn interrupt_abandoned(&self, owner: &Owner, now: f64) -> Result<Vec<JobRecord>, JobsError> {
        let operation = "find interrupted jobs";
        let (running, leases) = (self.key("running"), self.key("leases"));
        let mut ids: Vec<i64> = self.ask(operation, |link| cmd("SMEMBERS").arg(&running).query(link))?;
        ids.sort_unstable();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let texts: Vec<Option<String>> = self.ask(operation, |link| cmd("HMGET").arg(&leases).arg(&ids).query(link))?;
        let is_held = |text: &str| {
            let lease: Option<Lease> = serde_json::from_str(text).ok();
            lease.is_some_and(|lease| !lease.has_ended(owner, now))
        };
        let texts = texts.into_iter().map(Option::unwrap_or_default);
        let (ids, leases_seen): (Vec<i64>, Vec<String>) =
            ids.into_iter().zip(texts).filter(|(_, text)| !is_held(text)).unzip();
        let records = self.records(operation, &ids)?;
        let keys = [running, leases, self.key("jobs")];
        let mut jobs = Vec::new();
        for (id, lease) in ids.into_iter().zip(leases_seen) {
            let record = records.iter().find(|record| record.id == id).cloned();
            let interrupted =
                record.map(|record| JobRecord { status: JobStatus::Interrupted, ended_at: Some(now), ..record });
            let text = interrupted.as_ref().map(record_to_text).unwrap_or_default();
            // The process that ran the job may have ended it, or renewed its lease, in the meantime.
            let is_done: bool = self.ask(operation, |link| {
                cmd("EVAL").arg(INTERRUPT).arg(keys.len()).arg(&keys).arg(id).arg(&lease).arg(&text).query(link)
            })?;
            if is_done {
                jobs.extend(interrupted);
            }
        }
        Ok(jobs)
    }

    fn job(&self, id: i64) -> Result<Option<JobRecord>, JobsError> {
        Ok(self.records("read a job", &[id])?.pop())
    }

    fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRecord>, JobsError> {
        let operation = "list the jobs";
        let newest: i64 = self.number(operation, &self.key("last_job"))?.unwrap_or(0);
        let oldest = (newest - KEPT_JOBS).max(0);
        let mut jobs = Vec::new();
        let mut end = newest;
        while end > oldest && jobs.len() < filter.limit as usize {
            let begin = (end - PAGE).max(oldest);
            let ids: Vec<i64> = (begin + 1..=end).rev().collect();
            jobs.extend(self.records(operation, &ids)?.into_iter().filter(|job| filter.matches(job)));
            end = begin;
        }
        if jobs.len() < filter.limit as usize {
            // Jobs that have been running for so long that all others of their age are forgotten.
            let running = self.key("running");
            let mut ids: Vec<i64> = self.ask(operation, |link| cmd("SMEMBERS").arg(&running).query(link))?;
            ids.retain(|&id| id <= oldest);
            ids.sort_unstable_by(|a, b| b.cmp(a));
            jobs.extend(self.records(operation, &ids)?.into_iter().filter(|job| filter.matches(job)));
        }
        jobs.truncate(filter.limit as usize);
        Ok(jobs)
    }

    fn save_losses(&self, job: i64, losses: &[LossPoint]) -> Result<(), JobsError> {
        let operation = "write a loss curve";
        let key = self.key("losses");
        let text = losses_to_text(losses);
        self.ask(operation, |link| cmd("HSET").arg(&key).arg(job).arg(&text).exec(link))?;
        let mut kept: Vec<i64> = self.ask(operation, |link| cmd("HKEYS").arg(&key).query(link))?;
        if kept.len() <= KEPT_CURVES {
            return Ok(());
        }
        kept.sort_unstable();
        kept.truncate(kept.len() - KEPT_CURVES);
        self.ask(operation, |link| cmd("HDEL").arg(&key).arg(&kept).exec(link))
    }

    fn losses(&self, job: i64) -> Result<Vec<LossPoint>, JobsError> {
        let key = self.key("losses");
        let text: Option<String> = self.ask("read a loss curve", |link| cmd("HGET").arg(&key).arg(job).query(link))?;
        Ok(losses_from_text(text.as_deref()))
    }
}

impl ElephantState for RedisStore {
    fn process_state(&self) -> Result<ProcessState, JobsError> {
        let state = self.number("read the process state", "state")?;
        Ok(state.and_then(ProcessState::from_number).unwrap_or(ProcessState::Idle))
    }

    fn set_activity(&self, activity: Activity) -> Result<(), JobsError> {
        let mut request = pipe();
        request.atomic().cmd("SET").arg("state").arg(activity.state as i64);
        let updates =
            [("update_ongoing_seg", activity.updating_labels), ("update_ongoing_flow", activity.updating_flow_labels)];
        for (key, is_updating) in updates {
            if is_updating {
                request.cmd("SET").arg(key).arg(1);
            } else {
                request.cmd("DEL").arg(key);
            }
        }
        self.ask("write the process state", |link| request.exec(link))
    }

    fn training_parameters(&self) -> Result<TrainingParameters, JobsError> {
        let operation = "read the training parameters";
        let rate: Option<f64> = self.number(operation, "lr")?;
        let learning_rate = rate.filter(|rate| rate.is_finite());
        Ok(TrainingParameters { learning_rate, crop_count: self.number(operation, "n_crops")? })
    }

    fn set_training_parameters(&self, parameters: TrainingParameters) -> Result<(), JobsError> {
        let mut request = pipe();
        request.atomic();
        if let Some(rate) = parameters.learning_rate {
            // As Python prints it: always with a point or an exponent.
            request.cmd("SET").arg("lr").arg(format!("{rate:?}"));
        }
        if let Some(count) = parameters.crop_count {
            request.cmd("SET").arg("n_crops").arg(count);
        }
        if request.is_empty() {
            return Ok(());
        }
        self.ask("write the training parameters", |link| request.exec(link))
    }

    fn live_timepoint(&self) -> Result<Option<u64>, JobsError> {
        self.number("read the live timepoint", "timepoint")
    }

    fn set_live_timepoint(&self, timepoint: Option<u64>) -> Result<(), JobsError> {
        let operation = "write the live timepoint";
        match timepoint {
            Some(timepoint) => self.ask(operation, |link| cmd("SET").arg("timepoint").arg(timepoint).exec(link)),
            None => self.ask(operation, |link| cmd("DEL").arg("timepoint").exec(link)),
        }
    }
}

fn record_to_text(job: &JobRecord) -> String {
    // Texts and finite numbers always have a JSON form.
    serde_json::to_string(job).unwrap_or_default()
}

fn lease_to_text(lease: &Lease) -> String {
    // Texts and a finite number always have a JSON form.
    serde_json::to_string(lease).unwrap_or_default()
}
