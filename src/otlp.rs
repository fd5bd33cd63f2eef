//! Traces on their way out: spans wait in a bounded queue, go to an OpenTelemetry collector in
//! batches, and never hold a request up.

mod client;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor as _,
};
use tokio::runtime::Handle;

use self::client::CollectorClient;
use crate::policy::Tracing;
use crate::telemetry::{Metrics, ResultLabel};

/// Spans that wait to be sent. Past it they are dropped and counted: about 4 MiB.
const MOST_WAITING: usize = 4096;
/// Spans sent at once, as OpenTelemetry has it.
const BATCH: usize = 512;
/// How long spans gather, as OpenTelemetry has it for logs: a trace is looked at within seconds.
const GATHERING: Duration = Duration::from_secs(1);
/// How long a batch may take with its repetitions.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a drain waits for the last batch.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// A collector that is away is news once a minute.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The way to a collector. It costs nothing before its first span; what waits when it is dropped is
/// still sent.
pub struct Exporter {
    settings: Tracing,
    metrics: Arc<Metrics>,
    /// Where the collector is spoken to: the sender's own thread has no runtime.
    runtime: Handle,
    waiting: Arc<AtomicUsize>,
    scope: InstrumentationScope,
    sender: OnceLock<Option<Arc<BatchSpanProcessor>>>,
}

/// One finished span.
#[derive(Debug)]
pub struct Span {
    /// Its id, unique in its trace.
    pub id: u64,
    /// The span that it is a part of.
    pub parent: Option<u64>,
    /// Whether that one is somebody else's.
    pub parent_is_remote: bool,
    /// On which side of a call it stands.
    pub kind: SpanKind,
    /// What it did, of few different values.
    pub name: Cow<'static, str>,
    /// When it began.
    pub began: SystemTime,
    /// When it was over.
    pub ended: SystemTime,
    /// Everything else, by the names of OpenTelemetry's semantic conventions.
    pub attributes: Vec<KeyValue>,
    /// Whether it counts as an error.
    pub failed: bool,
}

impl Exporter {
    /// The way to the collector of these settings. Must be called within the runtime.
    pub fn new(settings: &Tracing, metrics: Arc<Metrics>) -> Self {
        Self {
            settings: settings.clone(),
            metrics,
            runtime: Handle::current(),
            waiting: Arc::default(),
            scope: InstrumentationScope::builder("innkeeper").with_version(env!("CARGO_PKG_VERSION")).build(),
            sender: OnceLock::new(),
        }
    }

    /// What the policy says of it.
    pub fn settings(&self) -> &Tracing {
        &self.settings
    }

    /// Queues the spans of a trace, or drops those that find no room.
    pub fn export(&self, trace: u128, spans: impl IntoIterator<Item = Span>) {
        let sender = self.sender.get_or_init(|| self.start());
        for span in spans {
            let Some(sender) = sender else {
                self.count("failed", 1);
                continue;
            };
            if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                self.count("dropped", 1);
                continue;
            }
            sender.on_end(self.data(trace, span));
        }
    }

    /// Sends what waits, and returns when that is done or has taken too long.
    pub async fn flush(&self) {
        let Some(Some(sender)) = self.sender.get() else { return };
        let (sender, (done, flushed)) = (Arc::clone(sender), tokio::sync::oneshot::channel());
        let flushing = std::thread::Builder::new().name("trace-flush".into()).spawn(move || {
            let _ = sender.force_flush();
            let _ = done.send(());
        });
        if flushing.is_ok() {
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, flushed).await;
        }
    }

    /// Nothing can be exported where the machine's certificates cannot be read: that is said once,
    /// and counted for each span.
    fn start(&self) -> Option<Arc<BatchSpanProcessor>> {
        let exporter = CollectorClient::new(&self.settings.endpoint, self.runtime.clone(), EXPORT_TIMEOUT)
            .map_err(|error| error.to_string())
            .and_then(|client| self.connect(client).map_err(|error| error.to_string()));
        let exporter = match exporter {
            Ok(exporter) => exporter,
            Err(error) => {
                tracing::error!(endpoint = %self.settings.endpoint, error, "traces cannot be sent");
                return None;
            }
        };
        let counted = Counted {
            exporter,
            waiting: Arc::clone(&self.waiting),
            metrics: Arc::clone(&self.metrics),
            warned: Mutex::new(None),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MOST_WAITING)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(GATHERING)
            .build();
        let mut sender = BatchSpanProcessor::builder(counted).with_batch_config(batches).build();
        sender.set_resource(
            &Resource::builder()
                .with_service_name(self.settings.service_name.clone())
                .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                .build(),
        );
        Some(Arc::new(sender))
    }

    fn connect(
        &self,
        client: CollectorClient,
    ) -> Result<opentelemetry_otlp::SpanExporter, opentelemetry_otlp::ExporterBuildError> {
        let headers = &self.settings.headers;
        let headers: HashMap<String, String> =
            headers.iter().map(|(name, value)| (name.to_string(), value.reveal().to_owned())).collect();
        opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_headers(headers)
            .with_endpoint(self.settings.endpoint.to_string())
            .with_timeout(EXPORT_TIMEOUT)
            .build()
    }

    fn data(&self, trace: u128, span: Span) -> SpanData {
        let id = SpanId::from(span.id);
        let flags = TraceFlags::SAMPLED;
        SpanData {
            span_context: SpanContext::new(TraceId::from(trace), id, flags, false, TraceState::default()),
            parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: span.parent_is_remote,
            span_kind: span.kind,
            name: span.name,
            start_time: span.began,
            end_time: span.ended,
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if span.failed { Status::error("") } else { Status::Unset },
            instrumentation_scope: self.scope.clone(),
        }
    }

    fn count(&self, result: &'static str, spans: u64) {
        self.metrics.spans.get_or_create(&ResultLabel { result }).inc_by(spans);
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let Some(Some(sender)) = self.sender.take() else { return };
        // Sending what waits may take its time; whoever dropped us has none. Where the system has no
        // thread for it, what waits is lost with the process.
        let _ = std::thread::Builder::new()
            .name("trace-flush".into())
            .spawn(move || sender.shutdown_with_timeout(FLUSH_TIMEOUT));
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// An exporter that counts what became of spans, and warns of failures now and then.
struct Counted<E> {
    exporter: E,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    warned: Mutex<Option<Instant>>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let result = match self.exporter.export(batch).await {
            Ok(()) => "exported",
            Err(error) => {
                self.warn(&error.to_string(), spans);
                "failed"
            }
        };
        self.metrics.spans.get_or_create(&ResultLabel { result }).inc_by(spans as u64);
        // It was told here; the library would tell it again for each batch.
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E> fmt::Debug for Counted<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").finish_non_exhaustive()
    }
}

impl<E> Counted<E> {
    fn warn(&self, error: &str, spans: usize) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            *warned = Some(Instant::now());
            tracing::warn!(error, spans, "the collector did not take a batch of spans");
        }
    }
}
