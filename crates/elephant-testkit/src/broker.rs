//! RabbitMQ for tests: a new virtual host on the broker that `make services` starts, or a separate broker that can be
//! killed and restarted.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

/// Environment variable that `make test` sets; tests are skipped without it.
const ADDRESS: &str = "ELEPHANT_TEST_AMQP_URL";

/// A broker for one test; stopped when dropped.
pub struct Broker {
    folder: TempDir,
    port: u16,
}

impl Broker {
    /// The address of a new virtual host on the shared broker; `None`, and the test is [skipped](crate::skip()), without
    /// one.
    ///
    /// # Panics
    /// When the virtual host cannot be created.
    pub fn new_vhost() -> Option<String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let address = shared_address()?;
        let (broker, _) = address.rsplit_once('/').expect("the address has a virtual host");
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        check(&script().args(["vhost", &name]).output().expect("bash is everywhere"));
        Some(format!("{broker}/{name}"))
    }

    /// Starts a broker; `None`, and the test is [skipped](crate::skip()), if the tests were not started by `make test`.
    ///
    /// # Panics
    /// When the broker does not start.
    pub fn start() -> Option<Self> {
        shared_address()?;
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let broker = Self { folder, port: four_free_ports() };
        broker.restart();
        Some(broker)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("amqp://user:user@127.0.0.1:{}/%2f", self.port + 1)
    }

    fn script(&self) -> Command {
        let mut script = script();
        script.env("ELEPHANT_SERVICES", self.folder.path()).env("ELEPHANT_SERVICES_PORT", self.port.to_string());
        script
    }

    /// Whether the broker was there to get it.
    fn signal(&self, signal: &str) -> bool {
        let number = std::fs::read_to_string(self.folder.path().join("rabbitmq.pid")).expect("it was started");
        // The whole process group, because the broker has child processes.
        let sent = Command::new("kill").args([signal, "--", &format!("-{}", number.trim())]).output();
        sent.expect("kill is everywhere").status.success()
    }

    /// `kill -9`; all data is lost.
    pub fn kill(&self) {
        assert!(self.signal("-KILL"), "the broker runs");
    }

    /// Lets it hang: connections stay open, but there is no reply.
    pub fn pause(&self) {
        assert!(self.signal("-STOP"), "the broker runs");
    }

    /// Ends [`pause`](Self::pause).
    pub fn resume(&self) {
        assert!(self.signal("-CONT"), "the broker is there");
    }

    /// Starts it again after [`kill`](Self::kill), on the same port.
    ///
    /// # Panics
    /// When the broker does not start.
    pub fn restart(&self) {
        check(&self.script().arg("start").output().expect("bash is everywhere"));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It hears nothing while it is paused, and is gone after a kill.
        self.signal("-CONT");
        // Errors do not matter here.
        let _ = self.script().arg("stop").output();
    }
}

fn shared_address() -> Option<String> {
    let address = std::env::var(ADDRESS).ok();
    if address.is_none() {
        crate::skip("ELEPHANT_TEST_AMQP_URL is not set; `make test` starts RabbitMQ and sets it");
    }
    address
}

fn script() -> Command {
    let path: PathBuf = crate::project_root().join("scripts/services.sh");
    let mut command = Command::new("bash");
    command.arg(path).stdin(Stdio::null());
    command
}

fn check(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The first of four consecutive ports that are free now.
fn four_free_ports() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(701));
        let first = 20_000 + (step % 2000) as u16 * 4;
        if (first..first + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}
