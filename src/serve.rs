//! `elephant-server serve`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use elephant_amqp::Publisher;
use elephant_api_core::{Access, EventFeed, Family, LargeBodies, MetricsHandle, Operations};
use elephant_api_elephant::ElephantApi;
use elephant_api_v1::V1Api;
use elephant_pipeline::{KINDS, PREDICTIONS};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Secret, ServeArgs},
    demo, signals, telemetry,
    wiring::{self, Engine},
    workspace,
};

/// Longest time for which running requests may continue after a signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until SIGINT or SIGTERM.
pub fn serve(args: &ServeArgs) -> Result<()> {
    let broker = args.broker.address().context("cannot use --amqp-url")?.map(Publisher::new);
    telemetry::init(args.log_format, telemetry::DEFAULT_FILTER, broker.as_ref());
    wiring::start_threads(&args.engine.compute)?;
    let purpose = format!("the server on {}", args.bind);
    let _lock = workspace::hold(&args.engine, &purpose).context("cannot serve this workspace")?;
    let listener = listen(args.bind)?;
    let workspace = workspace::open(&args.engine)?;
    let demo = if args.demo { demo::prepare(&workspace)? } else { None };
    let access = access(args)?;
    let metrics = MetricsHandle::install().context("cannot collect metrics")?;
    let closing = CancellationToken::new();
    let engine = wiring::engine(&args.engine, &workspace)?;
    let runner = engine.runner.clone();
    let status = broker.as_ref().map(Publisher::status);
    let broker_state = move || status.as_ref().map_or_else(|| "off".into(), |status| status.now().to_string());
    let operations = Operations {
        runner: engine.runner.clone(),
        workspace: workspace.path().to_owned(),
        devices: engine.devices.clone(),
        broker: Arc::new(broker_state),
        closing: closing.clone(),
        kinds: &KINDS,
        queues: &[PREDICTIONS.name],
    };
    let families = families(engine, &closing);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let signal = signals::stop_signal().context("cannot wait for signals")?;
        println!("elephant-server listens on http://{address} (documentation: http://{address}/docs)");
        if let Some(demo) = demo {
            println!("{}", demo.instructions(address));
        }
        let publisher = broker.map(|broker| broker.start(runner.jobs()));
        tokio::spawn(metrics.clone().keep_up());
        let router = elephant_api_core::router(families, operations, access, metrics);
        let stop = async {
            signal.await;
            tracing::info!("stopping; a second signal ends the server at once");
            // First, so that requests whose jobs end because of the stop get 503 and not the reply of a cancelled job.
            runner.close();
            closing.cancel();
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
        };
        tokio::select! {
            () = elephant_api_core::serve(listener, router, closing.clone()) => {}
            () = stop => tracing::warn!("requests are still running; they are abandoned"),
        }
        if let Some(publisher) = publisher {
            publisher.close().await;
        }
        anyhow::Ok(())
    })?;
    // Jobs whose clients have disconnected may still be cleaning up.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    Ok(())
}

/// All that is served.
fn families(engine: Engine, closing: &CancellationToken) -> Vec<Family> {
    let Engine { use_cases, runner, devices } = engine;
    let events = EventFeed::new(runner.jobs(), closing.clone());
    let large_bodies = LargeBodies::default();
    let v1 = V1Api::new(use_cases.clone(), runner.clone(), events, large_bodies.clone());
    vec![ElephantApi::new(use_cases, runner, devices, large_bodies).family(), v1.family()]
}

fn access(args: &ServeArgs) -> Result<Access> {
    let token = args.token.as_ref().and_then(Secret::get);
    if !args.bind.ip().is_loopback() && token.is_none() {
        tracing::warn!("anyone who can reach {} can use this server; set a token, or listen on 127.0.0.1", args.bind);
    }
    Access::new(args.bind.ip(), token, &args.cors_origins, &args.allowed_hosts)
        .context("cannot use --token, --cors-origin or --allowed-host")
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address}; stop the program that uses it, or choose another address with --bind")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
