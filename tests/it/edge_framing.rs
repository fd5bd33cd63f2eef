//! What is refused for its framing, on real sockets.

use std::fmt::Write as _;

use super::framing_cases::CASES;
use super::support::edge::{Edge, measure};
use super::support::raw_client::RawClient;

#[tokio::test]
async fn every_case_gets_what_it_must() {
    let edge = Edge::start(measure).await;
    assert!(CASES.len() >= 60, "{} cases", CASES.len());
    let mut wrong = String::new();
    for case in CASES {
        for step in [usize::MAX, 1] {
            let mut client = RawClient::connect(edge.address).await;
            for piece in case.bytes.chunks(step.min(case.bytes.len())) {
                client.send(piece).await;
            }
            client.half_close().await;
            let mut statuses = Vec::new();
            while let Some(response) = client.response().await {
                statuses.push(response.status);
                if response.status >= 400 {
                    assert_eq!(
                        response.header("content-type"),
                        Some("application/problem+json"),
                        "{}",
                        case.name
                    );
                }
            }
            if statuses != case.statuses {
                let _ = writeln!(wrong, "{}: {statuses:?}, must be {:?}", case.name, case.statuses);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    let seen = edge.seen.lock().unwrap();
    assert!(!seen.iter().any(|line| line.contains("smuggled")), "{seen:?}");
}

#[tokio::test]
async fn a_head_over_the_limits_is_answered_with_what_is_too_large() {
    let edge = Edge::start(measure).await;
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let one_long = format!("X: {}\r\n", "x".repeat(70 << 10));
    let many: String = (0..100).map(|index| format!("X-{index}: y\r\n")).collect();
    let fits: String = (0..99).map(|index| format!("X-{index}: {}\r\n", "y".repeat(600))).collect();
    for (request, status) in [
        (get("/", &one_long), 431),
        (get("/", &many), 431),
        (get("/", &fits), 200),
        (get(&format!("/{}", "x".repeat(70 << 10)), ""), 414),
    ] {
        let mut client = RawClient::connect(edge.address).await;
        client.send(&request).await;
        let response = client.response().await.expect("an answer");
        assert_eq!(response.status, status);
        assert_eq!(response.header("content-type").is_some(), status >= 400);
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused_without_being_read_to_one() {
    let edge = Edge::start(measure).await;
    let mut client = RawClient::connect(edge.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
    for _ in 0..80 {
        client.send(vec![b'x'; 1024]).await;
    }
    assert_eq!(client.response().await.expect("an answer").status, 431);
    assert!(client.is_closed().await);
}
