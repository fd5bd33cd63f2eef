//! A gRPC service without generated code: one message, each kind of call.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Buf as _;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{ClientStreamingService, Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};

/// The one message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Note {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(uint32, tag = "2")]
    pub(crate) number: u32,
}

pub(crate) fn note(text: &str, number: u32) -> Note {
    Note { text: text.to_owned(), number }
}

/// Reads and writes notes.
#[derive(Default)]
pub(crate) struct Notes(PhantomData<Note>);

impl Codec for Notes {
    type Encode = Note;
    type Decode = Note;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl Encoder for Notes {
    type Item = Note;
    type Error = Status;

    fn encode(&mut self, note: Note, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        note.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Notes {
    type Item = Note;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Note>, Status> {
        let whole = buffer.copy_to_bytes(buffer.remaining());
        Note::decode(whole).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// The path of a call.
pub(crate) fn call(name: &str) -> PathAndQuery {
    format!("/test.Talk/{name}").parse().unwrap()
}

/// A backend that offers the service over HTTP/2. It answers with the tenant that it was told.
pub(crate) struct TalkBackend {
    pub(crate) address: SocketAddr,
    /// Calls of `Say` that were given up, and of `Count` that are over.
    pub(crate) abandoned: mpsc::UnboundedReceiver<()>,
    accepting: AbortHandle,
}

impl TalkBackend {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, abandoned) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let talk = Talk { abandoned: sender.clone() };
                let service = service_fn(move |request| answer(talk.clone(), request));
                let connection =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, abandoned, accepting: accepting.abort_handle() }
    }
}

impl Drop for TalkBackend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Clone)]
struct Talk {
    abandoned: mpsc::UnboundedSender<()>,
}

/// Tells when it is dropped, unless it was told not to.
struct Witness(Option<mpsc::UnboundedSender<()>>);

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(());
        }
    }
}

async fn answer(
    talk: Talk,
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    let mut grpc = Grpc::new(Notes::default());
    Ok(match request.uri().path() {
        "/test.Talk/Say" => grpc.unary(talk, request).await,
        "/test.Talk/Collect" => grpc.client_streaming(talk, request).await,
        "/test.Talk/Count" => grpc.server_streaming(talk, request).await,
        _ => grpc.streaming(talk, request).await,
    })
}

fn tenant<T>(request: &Request<T>) -> String {
    request.metadata().get("x-tenant-id").map_or("nobody", |value| value.to_str().unwrap()).to_owned()
}

type Answering<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

impl UnaryService<Note> for Talk {
    type Response = Note;
    type Future = Answering<Note>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        let witness = Witness(Some(self.abandoned.clone()));
        Box::pin(async move {
            let mut witness = witness;
            match request.get_ref().text.as_str() {
                "fail" => {
                    witness.0 = None;
                    let mut status = Status::failed_precondition("as you asked: 100 %, ä");
                    status.metadata_mut().insert("x-why", "asked".parse().unwrap());
                    return Err(status);
                }
                "hang" => std::future::pending().await,
                _ => {}
            }
            witness.0 = None;
            let text = format!("{} {}", tenant(&request), request.get_ref().text);
            let mut response = Response::new(note(&text, request.get_ref().number));
            response.metadata_mut().insert("x-kept", "1".parse().unwrap());
            Ok(response)
        })
    }
}

impl ClientStreamingService<Note> for Talk {
    type Response = Note;
    type Future = Answering<Note>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        Box::pin(async move {
            let tenant = tenant(&request);
            let notes: Vec<Note> = request.into_inner().try_collect().await?;
            let sum = notes.iter().map(|note| note.number).sum();
            Ok(Response::new(note(&format!("{tenant} sent {}", notes.len()), sum)))
        })
    }
}

impl ServerStreamingService<Note> for Talk {
    type Response = Note;
    type ResponseStream = BoxStream<'static, Result<Note, Status>>;
    type Future = Answering<Self::ResponseStream>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        let (tenant, count) = (tenant(&request), request.get_ref().number);
        let end = (request.get_ref().text == "break").then(|| Err(Status::data_loss("lost the rest")));
        let witness = Witness(Some(self.abandoned.clone()));
        let counted = stream::iter(0..count).map(move |number| {
            let _alive = &witness;
            Ok(note(&tenant, number))
        });
        let answer = counted.chain(stream::iter(end)).boxed();
        Box::pin(std::future::ready(Ok(Response::new(answer))))
    }
}

impl StreamingService<Note> for Talk {
    type Response = Note;
    type ResponseStream = BoxStream<'static, Result<Note, Status>>;
    type Future = Answering<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<Note>>) -> Self::Future {
        let tenant = tenant(&request);
        let echo =
            request.into_inner().map_ok(move |one| note(&format!("{tenant} {}", one.text), one.number));
        Box::pin(std::future::ready(Ok(Response::new(echo.boxed()))))
    }
}
