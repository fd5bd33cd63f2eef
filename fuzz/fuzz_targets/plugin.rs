//! Any bytes as a plugin: refused with a class, or asked with a valid outcome; nothing may panic, and
//! no instance may be left behind.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use innkeeper::decision::{DirectoryUnavailable, FindTenant, Lookup, RequestHead};
use innkeeper::plugin::{HostSettings, PluginHost};
use innkeeper::policy::{Plugin, PluginLimits};
use innkeeper::tenant::TenantId;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

/// Long enough for an honest guest, short enough to try many that loop.
const TIME: Duration = Duration::from_millis(50);

const INSTANCES: u32 = 70;

static HOST: LazyLock<Arc<PluginHost>> = LazyLock::new(|| {
    let settings = HostSettings {
        instances: INSTANCES,
        memory_max: 4 << 20,
        configure_time: TIME,
        ..HostSettings::default()
    };
    PluginHost::new(settings).expect("this machine has the address space")
});

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("it has threads")
});

struct NoDirectory;

impl FindTenant for NoDirectory {
    fn find<'a>(&'a self, _: &'a TenantId) -> Lookup<'a> {
        Box::pin(async { Err(DirectoryUnavailable("there is none".into())) })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = PluginLimits { time: TIME, memory: 2 << 20 };
    let settings = Plugin { limits, ..Plugin::new("fuzzed", "fuzzed.wasm") };
    RUNTIME.block_on(async {
        if let Ok(plugin) = HOST.load(Arc::new(settings), bytes).await {
            let uri = http::Uri::from_static("/orders?q=1");
            let head = RequestHead { uri, ..RequestHead::default() };
            let _ = plugin.resolve(&Arc::new(head), Arc::new(NoDirectory)).await;
        }
    });
    // A call that ran out of time ends on its own thread, a moment later.
    let patience = Instant::now() + Duration::from_secs(30);
    while HOST.free_instances() != INSTANCES as usize {
        assert!(Instant::now() < patience, "an instance was left behind");
        std::thread::yield_now();
    }
});
