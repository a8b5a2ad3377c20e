//! Keeping libtorch's threads from busy waiting.
//!
//! Between two operations the threads of GNU OpenMP spin for milliseconds before they sleep, and take the processors from
//! everything else that this server does; with other programs on the machine a prediction becomes twenty times slower.
//! `OMP_WAIT_POLICY=passive` would prevent it, but the library reads it before `main` begins.

use std::{
    sync::{Once, mpsc},
    thread,
};

use tch::{Device, Kind, Tensor};

/// Elements of a tensor that libtorch fills with more than one thread.
const PARALLEL_LENGTH: i64 = 1 << 20;

/// Makes the OpenMP threads sleep soon after they run out of work, from now on and in the whole process.
///
/// OpenMP hardly spins when it knows of more threads than processors (libgomp, `config/linux/wait.h`), so this gives it
/// two more that only sleep. The calling thread must set its number of threads after this.
pub(crate) fn wait_without_spinning() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (ready, is_ready) = mpsc::sync_channel(1);
        let sleeper = move || {
            tch::set_num_threads(2);
            drop(
                Tensor::f_zeros([PARALLEL_LENGTH], (Kind::Float, Device::Cpu)).and_then(|mut zeros| zeros.f_fill_(1.0)),
            );
            // The caller may be gone; there is nothing to tell it then.
            let _ = ready.send(());
            loop {
                thread::park();
            }
        };
        match thread::Builder::new().name("openmp-sleeper".into()).spawn(sleeper) {
            Ok(_) => drop(is_ready.recv()),
            Err(error) => tracing::warn!(%error, "cannot start a thread; OpenMP's threads will busy wait"),
        }
    });
}
