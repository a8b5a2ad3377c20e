//! `elephant-server serve`.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use elephant_amqp::Publisher;
use elephant_api::{Access, MetricsHandle};
use elephant_fs::FolderLock;
use elephant_jobs::Jobs;
use elephant_pipeline::Workspace;
use tokio::{net::TcpListener, signal::unix};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Secret, ServeArgs},
    demo, telemetry, wiring,
};

/// How long running requests may take to end after a signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until SIGINT or SIGTERM.
pub fn serve(args: &ServeArgs) -> Result<()> {
    let broker = args.broker.address().context("cannot use --amqp-url")?.map(Publisher::new);
    telemetry::init(args.log_format, broker.as_ref());
    wiring::start_threads(&args.compute)?;
    // Before anything in the workspace is touched: another server may be using it.
    let _lock = hold(args)?;
    let workspace = Workspace::open(&args.workspace)
        .with_context(|| format!("cannot use the workspace {}", args.workspace.display()))?
        .with_data_roots(&args.data_roots)
        .context("cannot use --data-root")?;
    let demo = if args.demo { demo::prepare(&workspace)? } else { None };
    let access = access(args)?;
    let metrics = MetricsHandle::install().context("cannot collect metrics")?;
    let closing = CancellationToken::new();
    let (services, jobs) = wiring::services(args, &workspace, closing.clone())?;
    let services = match broker.as_ref().map(Publisher::status) {
        Some(status) => services.with_broker(move || status.now().to_string()),
        None => services,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(async {
        let listener = listen(args.bind).await?;
        let address = listener.local_addr()?;
        println!("elephant-server listens on http://{address} (documentation: http://{address}/docs)");
        if let Some(demo) = demo {
            println!("{}", demo.instructions(address));
        }
        let publisher = broker.map(|broker| broker.start(&jobs));
        let router = elephant_api::router(services, access, metrics);
        let server = axum::serve(listener, router).with_graceful_shutdown(stop_signal(jobs, closing.clone()));
        let forced = async {
            closing.cancelled().await;
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
        };
        let result = tokio::select! {
            result = async { server.await } => result.context("the server failed"),
            () = forced => {
                tracing::warn!("requests are still running; leaving them");
                Ok(())
            }
        };
        if let Some(publisher) = publisher {
            publisher.close().await;
        }
        result
    })?;
    // Jobs whose clients have left are still tidying up.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    Ok(())
}

/// Keeps other servers off the workspace.
fn hold(args: &ServeArgs) -> Result<FolderLock> {
    let purpose = format!("the server on {}", args.bind);
    FolderLock::try_acquire(&args.workspace, &purpose).context("cannot serve this workspace")
}

fn access(args: &ServeArgs) -> Result<Access> {
    let token = args.token.as_ref().and_then(Secret::get);
    if !args.bind.ip().is_loopback() && token.is_none() {
        tracing::warn!("everyone who reaches {} can use this server; set a token, or listen on 127.0.0.1", args.bind);
    }
    Access::new(args.bind.ip(), token, &args.cors_origins, &args.allowed_hosts)
        .context("cannot use --token, --cors-origin or --allowed-host")
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; stop what uses it or choose another one with --bind"))
}

/// Resolves at the first SIGINT or SIGTERM, and asks the jobs to stop.
async fn stop_signal(jobs: Jobs, closing: CancellationToken) {
    let terminate = async {
        match unix::signal(unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
    tracing::info!("stopping");
    // First, so that cancelled jobs are told from stopped ones.
    closing.cancel();
    jobs.cancel_all();
}
