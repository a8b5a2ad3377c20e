//! Available memory, also in a container.
//!
//! Linux kills a process that uses more, instead of failing an allocation. The kernel's own estimate for the whole
//! machine is `MemAvailable`; a control group (Docker, Kubernetes, Slurm, systemd) may allow less. The usage of a group
//! includes cached files, which the kernel drops before it kills a process, so these are subtracted.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Memory figures at one moment; `None` if the system does not report them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observed {
    /// Bytes that can be allocated without swapping, within the limits of all control groups.
    pub available: Option<u64>,
    /// Resident bytes of this process that are not backed by files.
    pub own: Option<u64>,
}

impl Observed {
    /// The present figures.
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").ok();
        let own = status.and_then(|text| kib_line(&text, "RssAnon:"));
        Self { available: available_below(Path::new("/")), own }
    }
}

/// [`Observed::available`], read from the system's files below `root`.
fn available_below(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok();
    let machine = machine.and_then(|text| kib_line(&text, "MemAvailable:"));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = groups.lines().filter_map(|line| group_bytes(root, line)).min();
    machine.into_iter().chain(groups).min()
}

/// The value of a line like `MemAvailable:   1024 kB`, in bytes.
fn kib_line(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().trim_end_matches("kB").trim_end().parse::<u64>().ok()? * 1024)
}

/// Names of a control group's files.
struct GroupFiles {
    limit: &'static str,
    usage: &'static str,
    inactive: &'static str,
    active: &'static str,
}

const VERSION_1: GroupFiles = GroupFiles {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
    active: "total_active_file",
};
const VERSION_2: GroupFiles =
    GroupFiles { limit: "memory.max", usage: "memory.current", inactive: "inactive_file", active: "active_file" };

/// Bytes that the group in a line of `/proc/self/cgroup` (`NUMBER:CONTROLLERS:PATH`) and its parent groups still allow.
fn group_bytes(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (mount, files) = match controllers {
        "" => ("sys/fs/cgroup", VERSION_2),
        list if list.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", VERSION_1),
        _ => return None,
    };
    let mount = root.join(mount);
    // In a container the path may be that of the host, while the container's own group is mounted.
    let inner: PathBuf = Path::new(path).components().skip(1).collect();
    let folders = inner.ancestors().map(|below| mount.join(below));
    folders.filter_map(|folder| free_in(&folder, &files)).min()
}

fn free_in(folder: &Path, files: &GroupFiles) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max" means no limit.
    let (limit, usage) = (number(files.limit)?, number(files.usage)?);
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let statistic = |key: &str| {
        let mut lines = statistics.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let droppable = statistic(files.inactive) + statistic(files.active) / 2;
    Some(limit.saturating_sub(usage.saturating_sub(droppable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn system(files: &[(&str, String)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn machine(gib: u64) -> (&'static str, String) {
        ("proc/meminfo", format!("MemTotal: 1 kB\nMemAvailable:   {} kB\n", gib << 20))
    }

    #[test]
    fn without_limits_the_kernels_estimate_is_used() {
        let root = system(&[
            machine(8),
            ("proc/self/cgroup", "0::/user.slice\n".into()),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n".into()),
            ("sys/fs/cgroup/user.slice/memory.current", format!("{}\n", 3 * GIB)),
        ]);
        assert_eq!(available_below(root.path()), Some(8 * GIB));
        assert_eq!(available_below(Path::new("/nonexistent")), None);
    }

    #[test]
    fn the_tightest_group_is_used_without_its_cached_files() {
        let root = system(&[
            machine(8),
            ("proc/self/cgroup", "0::/slurm/job\n".into()),
            ("sys/fs/cgroup/slurm/job/memory.max", "max\n".into()),
            ("sys/fs/cgroup/slurm/job/memory.current", "0\n".into()),
            ("sys/fs/cgroup/slurm/memory.max", format!("{}\n", 4 * GIB)),
            ("sys/fs/cgroup/slurm/memory.current", format!("{}\n", 3 * GIB)),
            ("sys/fs/cgroup/slurm/memory.stat", format!("anon 5\ninactive_file {GIB}\nactive_file {GIB}\n")),
        ]);
        assert_eq!(available_below(root.path()), Some(2 * GIB + GIB / 2));
    }

    #[test]
    fn a_cgroup_v1_container_finds_its_group_at_the_mount() {
        let root = system(&[
            machine(8),
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n".into()),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", format!("{GIB}\n")),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", format!("{}\n", 2 * GIB)),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 0\n".into()),
        ]);
        assert_eq!(available_below(root.path()), Some(0));
    }

    #[test]
    fn this_machine_reports_both_figures() {
        let observed = Observed::now();
        assert!(observed.available.is_some_and(|bytes| bytes > 0));
        assert!(observed.own.is_some_and(|bytes| bytes > 0));
    }
}
