//! Accepts connections and serves them until told to stop.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

/// How many connections are served at a time; more wait in the kernel's queue. It keeps descriptors for
/// ZooKeeper, Mesos and files free under the usual limit of 1024.
const MAX_CONNECTIONS: usize = 512;

/// How long a client may take for the head of a request, the time between two requests included.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// How long requests may go on after the server was told to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Serves `router` on `listener` until `stop` is cancelled; requests under way are finished first, within 5 s.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let accepting = async {
        // The semaphore is never closed, so there is always a place to come.
        while let Ok(place) = places.clone().acquire_owned().await {
            let stream = accept(&listener).await;
            connections.spawn(converse(stream, router.clone(), stop.clone(), place));
        }
    };
    stop.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    if timeout(DRAIN_DEADLINE, connections.wait()).await.is_err() {
        warn!(
            connections = connections.len(),
            "http connections cut at the end"
        );
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // What fails is the one connection, or there are no descriptors left: then others must end first.
            Err(error) => {
                warn!(%error, "accept an http connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "http connection ended early");
    }
}
