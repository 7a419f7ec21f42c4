//! Reading only what has changed, and waiting until it has.

use std::time::Duration;

use bytes::Bytes;
use cotton::{cluster::view::ClusterState, http::port::MAX_PATIENT_READERS};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use tokio::time::{Instant, timeout};

use super::{
    double::{Answer, Server},
    pages::view,
};

/// Longer than any of these tests takes, shorter than what is waited for in vain.
const PROMPT: Duration = Duration::from_secs(10);

fn request(server: &Server, known: Option<&HeaderValue>, wait: &str) -> Request<Full<Bytes>> {
    let mut request = Request::get(format!("{}/clusters/a", server.url())).header("prefer", wait);
    if let Some(known) = known {
        request = request.header(header::IF_NONE_MATCH, known);
    }
    request.body(Full::default()).unwrap()
}

async fn look(server: &Server, known: Option<&HeaderValue>, wait: &str) -> Answer {
    let answer = server.exchange(request(server, known, wait));
    timeout(PROMPT, answer).await.unwrap()
}

/// A server that shows the cluster `a`, and the tag of that.
async fn shown() -> (Server, HeaderValue) {
    let server = Server::start().await;
    server.show(true, vec![view("a")]);
    let answer = look(&server, None, "wait=30").await;
    assert_eq!(answer.status, StatusCode::OK);
    (server, answer.headers["etag"].clone())
}

fn changed(epoch: u64) -> cotton::cluster::view::ClusterView {
    let mut view = view("a");
    view.epoch = epoch;
    view
}

#[tokio::test]
async fn what_is_known_is_not_told_again() {
    let (server, tag) = shown().await;
    let answer = look(&server, Some(&tag), "wait=0").await;
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
    assert_eq!((answer.text(), &answer.headers["etag"]), ("", &tag));
    server.show(true, vec![changed(4)]);
    let answer = look(&server, Some(&tag), "wait=30").await;
    assert_eq!(
        (answer.status, &answer.json()["epoch"]),
        (StatusCode::OK, &4.into())
    );
    assert_ne!(answer.headers["etag"], tag);
}

#[tokio::test]
async fn a_change_ends_the_wait_and_that_of_another_cluster_does_not() {
    let (server, tag) = shown().await;
    let waits = look(&server, Some(&tag), "wait=30");
    let changes = async {
        for epoch in 0..20 {
            let mut other = view("b");
            other.epoch = epoch;
            server.show(true, vec![view("a"), other]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.show(true, vec![changed(4)]);
    };
    let (answer, ()) = tokio::join!(waits, changes);
    assert_eq!(
        (answer.status, &answer.json()["epoch"]),
        (StatusCode::OK, &4.into())
    );
}

#[tokio::test]
async fn the_end_of_a_cluster_ends_the_wait() {
    let (server, tag) = shown().await;
    let waits = look(&server, Some(&tag), "wait=30");
    let ends = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.show(true, vec![]);
    };
    let (answer, ()) = tokio::join!(waits, ends);
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_wait_is_as_long_as_wished() {
    let (server, tag) = shown().await;
    let asked = Instant::now();
    let answer = look(&server, Some(&tag), "wait=1").await;
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
    assert_eq!(answer.headers["preference-applied"], "wait=1");
    assert!(asked.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn the_end_of_the_core_ends_the_wait() {
    let (server, tag) = shown().await;
    let request = request(&server, Some(&tag), "wait=30");
    let Server { views, .. } = server;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let waits = client.build_http().request(request);
    let ends = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(views);
    };
    let (answer, ()) = timeout(PROMPT, async { tokio::join!(waits, ends) })
        .await
        .unwrap();
    assert_eq!(answer.unwrap().status(), StatusCode::NOT_MODIFIED);
}

/// Goal: those who wait never keep the others out. Method: as many as there are places wait, one more is
/// answered at once, and so is whoever wants to know something else.
#[tokio::test]
async fn who_finds_no_place_is_answered_at_once() {
    let (server, tag) = shown().await;
    // Whoever finds that the prober below has the last place comes again.
    let wait =
        async || while look(&server, Some(&tag), "wait=30").await.status != StatusCode::OK {};
    let waiting = futures::future::join_all((0..MAX_PATIENT_READERS).map(|_| wait()));
    let others = async {
        let late = async || {
            let answer = look(&server, Some(&tag), "wait=30").await;
            assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
            assert_eq!(answer.headers.get("preference-applied"), None);
        };
        // While others are on their way, there is a place, and waiting in it is given up soon.
        while timeout(Duration::from_millis(200), late()).await.is_err() {}
        assert_eq!(server.get("/clusters").await.status, StatusCode::OK);
        let mut gone = view("a");
        gone.state = ClusterState::Deleting;
        server.show(true, vec![gone]);
    };
    tokio::join!(waiting, others);
}
