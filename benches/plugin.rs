//! What a plugin call costs: fresh and reused, its parts, and a lazy request against an eager one.
//! `docs/plugins.md` has the figures.
//!
//! It takes wall time: run it on a quiet machine.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use innkeeper::decision::{FindTenant, Lookup, RequestHead};
use innkeeper::plugin::{HostSettings, LoadedPlugin, PluginHost};
use innkeeper::policy::{Instances, Plugin, PluginLimits};
use innkeeper::tenant::TenantId;
use tokio::runtime::Runtime;

mod styles;

const CONFIG: &str =
    r#"{"keys":{"k-123":"acme"},"hosts":{"old.example.com":"acme"},"retired":{"acme-old":"acme"}}"#;

struct NoDirectory;

impl FindTenant for NoDirectory {
    fn find<'a>(&'a self, _: &'a TenantId) -> Lookup<'a> {
        Box::pin(async { Ok(None) })
    }
}

/// Twelve headers, as a browser sends them, the key among them.
fn request() -> Arc<RequestHead> {
    let headers = [
        ("host", "app.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("x-api-key", "k-123"),
        ("cookie", "session=5f2b1c6e8d3a4b7f9e0c1d2a3b4c5d6e; theme=dark"),
        ("dnt", "1"),
        ("sec-fetch-dest", "document"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-site", "none"),
        ("cache-control", "no-cache"),
    ];
    let headers: HeaderMap = headers
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .collect();
    Arc::new(RequestHead {
        method: http::Method::GET,
        scheme: "http",
        authority: "app.example.com".into(),
        host: "app.example.com".into(),
        uri: "/api/buildings?q=tower&limit=50".parse().unwrap(),
        headers,
        peer: innkeeper::address::Peer::Ip(([192, 0, 2, 1], 40_000).into()),
        ..RequestHead::default()
    })
}

/// As many keys as a grown application has customers.
fn thousand_keys() -> String {
    let keys: Vec<String> = (0..1000).map(|n| format!(r#""k-{n:04}": "acme""#)).collect();
    format!(r#"{{ "keys": {{ {}, "k-123": "acme" }} }}"#, keys.join(", "))
}

fn load(runtime: &Runtime, settings: HostSettings, instances: Instances, config: &str) -> LoadedPlugin {
    let plugin = Plugin {
        config: config.into(),
        limits: PluginLimits { time: Duration::from_secs(10), memory: 16 << 20 },
        instances,
        ..Plugin::new("legacy-keys", "plugins/legacy-keys.wasm")
    };
    let wasm = std::fs::read(&plugin.path).unwrap();
    let host = PluginHost::new(settings).unwrap();
    runtime.block_on(host.load(Arc::new(plugin), &wasm)).unwrap()
}

fn plugin_calls(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let head = request();
    let directory: Arc<dyn FindTenant> = Arc::new(NoDirectory);
    let mut group = criterion.benchmark_group("legacy-keys");
    let defaults = HostSettings::default;
    let cases = [
        ("fresh, made as new", defaults(), Instances::PerRequest),
        (
            "fresh, configured memory copied",
            HostSettings { renew: false, ..defaults() },
            Instances::PerRequest,
        ),
        ("fresh, configured again", HostSettings { snapshot: false, ..defaults() }, Instances::PerRequest),
        (
            "fresh, nothing kept resident",
            HostSettings { renew: false, keep_resident: 0, ..defaults() },
            Instances::PerRequest,
        ),
        (
            "fresh, 64 KiB kept resident",
            HostSettings { renew: false, keep_resident: 64 << 10, ..defaults() },
            Instances::PerRequest,
        ),
        ("reused", defaults(), Instances::Reused),
        ("fresh, as a component", HostSettings { flatten: false, ..defaults() }, Instances::PerRequest),
        ("reused, as a component", HostSettings { flatten: false, ..defaults() }, Instances::Reused),
    ];
    let large = thousand_keys();
    let few = cases.map(|(name, settings, instances)| (name, settings, instances, CONFIG));
    let many = [
        ("fresh, 1,000 keys", defaults(), Instances::PerRequest, large.as_str()),
        ("reused, 1,000 keys", defaults(), Instances::Reused, large.as_str()),
    ];
    for (name, settings, instances, config) in few.into_iter().chain(many) {
        let plugin = load(&runtime, settings, instances, config);
        group.bench_function(name, |bencher| {
            bencher
                .to_async(&runtime)
                .iter(|| async { black_box(plugin.resolve(&head, Arc::clone(&directory)).await.unwrap()) });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default();
    targets = plugin_calls, styles::request_styles
}
criterion_main!(benches);
