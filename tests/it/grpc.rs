//! gRPC through a real client library, each kind of call, and what a client is told in refusals.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::support::gateway::{Harness, TestGateway};
use super::support::talk::{Note, Notes, TalkBackend, call, note};

async fn gateway(backend: std::net::SocketAddr) -> TestGateway {
    let policy = format!(
        "version: 1
tenants: {{ list: [ {{ id: acme, schema: acme }}, {{ id: globex, schema: globex, state: held, retry_after: 3s }} ] }}
upstreams: {{ app: {{ endpoints: [ http://{backend} ], protocol: http2 }} }}
routes:
  - {{ name: talk, match: {{ path: /test.Talk }}, tenant: {{ header: tenant }}, forward: app }}
"
    );
    Harness::new().policy(&policy).start().await
}

async fn client(gateway: &TestGateway) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address())).unwrap();
    let mut grpc = Grpc::new(endpoint.connect().await.unwrap());
    grpc.ready().await.unwrap();
    grpc
}

fn from<T>(tenant: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("tenant", tenant.parse().unwrap());
    request
}

async fn say(grpc: &mut Grpc<Channel>, request: Request<Note>) -> Result<tonic::Response<Note>, Status> {
    grpc.ready().await.unwrap();
    grpc.unary(request, call("Say"), Notes::default()).await
}

#[tokio::test]
async fn each_kind_of_call_goes_through() {
    let backend = TalkBackend::start().await;
    let gateway = gateway(backend.address).await;
    let mut grpc = client(&gateway).await;

    let response = say(&mut grpc, from("acme", note("hello", 1))).await.unwrap();
    assert_eq!(response.metadata().get("x-kept").unwrap(), "1");
    assert_eq!(response.into_inner(), note("acme hello", 1));

    let notes = stream::iter((0..1000).map(|number| note("one of many", number)));
    grpc.ready().await.unwrap();
    let response =
        grpc.client_streaming(from("acme", notes), call("Collect"), Notes::default()).await.unwrap();
    assert_eq!(response.into_inner(), note("acme sent 1000", 499_500));

    grpc.ready().await.unwrap();
    let asked = from("acme", note("", 1000));
    let counted = grpc.server_streaming(asked, call("Count"), Notes::default()).await.unwrap().into_inner();
    let counted: Vec<Note> = counted.try_collect().await.unwrap();
    assert!(counted.len() == 1000 && counted[999] == note("acme", 999), "{} notes", counted.len());
}

#[tokio::test]
async fn both_sides_can_talk_at_once() {
    let backend = TalkBackend::start().await;
    let gateway = gateway(backend.address).await;
    let mut grpc = client(&gateway).await;
    let (sender, mut notes) = mpsc::channel::<Note>(1);
    let notes = stream::poll_fn(move |cx| notes.poll_recv(cx));
    let response = grpc.streaming(from("acme", notes), call("Chat"), Notes::default()).await.unwrap();
    let mut answers = response.into_inner();
    for number in 0..10 {
        sender.send(note("and you?", number)).await.unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), note("acme and you?", number));
    }
    drop(sender);
    assert!(answers.next().await.is_none());
    assert!(answers.trailers().await.is_ok());
}

#[tokio::test]
async fn failures_are_statuses_wherever_they_come_from() {
    let backend = TalkBackend::start().await;
    let gateway = gateway(backend.address).await;
    let mut grpc = client(&gateway).await;

    // The backend's own, without a message and after some.
    let status = say(&mut grpc, from("acme", note("fail", 0))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "as you asked: 100 %, ä"));
    assert_eq!(status.metadata().get("x-why").unwrap(), "asked");
    grpc.ready().await.unwrap();
    let asked = from("acme", note("break", 3));
    let mut counted =
        grpc.server_streaming(asked, call("Count"), Notes::default()).await.unwrap().into_inner();
    for number in 0..3 {
        assert_eq!(counted.next().await.unwrap().unwrap(), note("acme", number));
    }
    assert_eq!(counted.next().await.unwrap().unwrap_err().code(), Code::DataLoss);

    // Ours.
    for (request, code, names) in [
        (Request::new(note("", 0)), Code::InvalidArgument, "tenant-missing"),
        (from("initech", note("", 0)), Code::NotFound, "tenant-unknown"),
        (from("globex", note("", 0)), Code::Unavailable, "tenant-held"),
    ] {
        let status = say(&mut grpc, request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().starts_with(names), "{status:?}");
        assert!(status.metadata().contains_key("x-request-id"), "{status:?}");
        if names == "tenant-held" {
            assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "3000");
        }
    }
    grpc.ready().await.unwrap();
    let elsewhere = "/other.Service/Call".parse().unwrap();
    let status = grpc.unary(from("acme", note("", 0)), elsewhere, Notes::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");

    let address = backend.address;
    drop(backend);
    let gateway = self::gateway(address).await;
    let mut grpc = client(&gateway).await;
    let status = say(&mut grpc, from("acme", note("", 0))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_client_that_stops_waiting_cancels_at_the_backend() {
    let mut backend = TalkBackend::start().await;
    let gateway = gateway(backend.address).await;
    let mut grpc = client(&gateway).await;

    let mut request = from("acme", note("hang", 0));
    request.set_timeout(Duration::from_millis(100));
    let status = say(&mut grpc, request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    backend.abandoned.recv().await.unwrap();

    let asked = from("acme", note("", u32::MAX));
    grpc.ready().await.unwrap();
    let mut counted =
        grpc.server_streaming(asked, call("Count"), Notes::default()).await.unwrap().into_inner();
    counted.next().await.unwrap().unwrap();
    drop(counted);
    backend.abandoned.recv().await.unwrap();
    // The connection's other calls do not notice.
    say(&mut grpc, from("acme", note("hello", 1))).await.unwrap();
}
