//! Opens the store of the state: in the workspace, or in Redis.

use std::{
    hash::{BuildHasher, RandomState},
    io::{ErrorKind, Write},
    os::unix::fs::MetadataExt,
};

use anyhow::{Context, Result};
use elephant_jobs::{Jobs, Owner, RedisStore, SqliteStore};
use elephant_pipeline::Workspace;

use crate::config::EngineArgs;

/// Opens the state according to the command line.
pub fn open(args: &EngineArgs, workspace: &Workspace) -> Result<Jobs> {
    let owner = Owner::new(&role(workspace)?);
    let Some(url) = args.redis_url() else {
        let path = workspace.state_file();
        let context = || {
            format!(
                "cannot use the state database {} (it has the records of jobs, and nothing of datasets, models and projects; \
                 if it is damaged, move it away and start again)",
                path.display()
            )
        };
        return Jobs::open(SqliteStore::open(&path).with_context(context)?, owner).with_context(context);
    };
    let store = RedisStore::open(&url, &identity(workspace)?).context("cannot use --redis-url")?;
    Jobs::open(store, owner).context("cannot keep the state in Redis")
}

/// The role of the process that holds the workspace's lock: it names the machine since its start and the folder there.
/// A copy of the workspace, which has the same records in Redis, has another role, so that its server leaves jobs alone
/// whose leases have not run out.
fn role(workspace: &Workspace) -> Result<String> {
    let path = workspace.path();
    let folder = std::fs::metadata(path).with_context(|| format!("cannot use {}", path.display()))?;
    // On a system without it, the leases alone decide.
    let machine = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_else(|_| random_word());
    Ok(format!("workspace {}:{}:{}", machine.trim(), folder.dev(), folder.ino()))
}

/// A random identifier of the workspace, stored in its folder: the job records in Redis belong to this folder, whatever
/// machine or container serves it.
fn identity(workspace: &Workspace) -> Result<String> {
    let path = workspace.path().join(".elephant-id");
    let context = || format!("cannot use {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(word) if is_word(word.trim()) => return Ok(word.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(context),
        _ => {}
    }
    let word = random_word();
    elephant_fs::write_atomic(&path, |file| file.write_all(word.as_bytes())).with_context(context)?;
    Ok(word)
}

/// Random numbers from two hashers, which have random keys.
fn random_word() -> String {
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
