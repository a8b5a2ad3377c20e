//! Where the state lies: in the workspace, or in Redis.

use std::{
    hash::{BuildHasher, RandomState},
    io::{ErrorKind, Write},
};

use anyhow::{Context, Result};
use elephant_jobs::{Jobs, Owner, RedisStore, SqliteStore};
use elephant_pipeline::Workspace;

use crate::config::EngineArgs;

/// The role of the process that holds the workspace's lock.
const ROLE: &str = "workspace";

/// Opens the state that the command line names.
pub fn open(args: &EngineArgs, workspace: &Workspace) -> Result<Jobs> {
    let Some(url) = args.redis_url() else {
        let path = workspace.state_file();
        let context = || format!("cannot use the state database {}", path.display());
        return Jobs::open(SqliteStore::open(&path).with_context(context)?, Owner::new(ROLE)).with_context(context);
    };
    let store = RedisStore::open(&url, &identity(workspace)?).context("cannot use --redis-url")?;
    Jobs::open(store, Owner::new(ROLE)).context("cannot keep the state in Redis")
}

/// A word that no other workspace has, and that stays with this one: its records in a Redis are those of its folder,
/// whatever machine or container serves it.
fn identity(workspace: &Workspace) -> Result<String> {
    let path = workspace.path().join(".elephant-id");
    let context = || format!("cannot use {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(word) if is_word(word.trim()) => return Ok(word.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(context),
        _ => {}
    }
    // Two hashers with the system's random keys.
    let word = format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1));
    elephant_fs::write_atomic(&path, |file| file.write_all(word.as_bytes())).with_context(context)?;
    Ok(word)
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
