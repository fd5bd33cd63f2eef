//! A tenant beside one that floods.

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::load::{self, Ask, Served};
use crate::process::{Proxy, runtime, setting};
use crate::scene::LIMITED;

/// What another's flood may make of a tenant's slowest requests.
const BUDGET: f64 = 2.0;
/// Connections of the tenant that floods.
const FLOOD: usize = 200;

/// Prints how long the quiet tenant's requests take: alone, beside a flood that only the pool holds
/// back, and beside one of a tenant that its operator has given a rate.
pub(crate) async fn beside(proxy: &Proxy) {
    let quiet = Ask { first: 1, tenants: 1, connections: 2, ..Ask::of("/orders") };
    let requests = setting("QUERY_REQUESTS", 20_000) / 4;
    let alone = load::drive(proxy.address, quiet, requests).await;
    tell("a tenant alone", &alone);
    for (name, flooding) in [("beside a flood", 0), ("beside a limited flood", LIMITED)] {
        let flood = Flood::begin(proxy, flooding);
        let beside = load::drive(proxy.address, quiet, requests).await;
        flood.end();
        tell(name, &beside);
        let ratio = beside.quantile(0.99).as_secs_f64() / alone.quantile(0.99).as_secs_f64();
        println!("{:<24} {ratio:>6.2} (budget {BUDGET})", "ratio of p99");
    }
}

fn tell(name: &str, served: &Served) {
    println!("{name:<24} p99 {:.1?}, p50 {:.1?}", served.quantile(0.99), served.quantile(0.5));
}

/// One tenant that asks over many connections until it is told to end. Those that are refused ask
/// again.
struct Flood {
    runtime: Runtime,
    asking: JoinHandle<()>,
}

impl Flood {
    /// Begins on a thread of its own: whoever takes times must not wait behind the flood's clients.
    fn begin(proxy: &Proxy, flooding: usize) -> Self {
        let (runtime, address) = (runtime(1), proxy.address);
        let ask = Ask {
            first: flooding,
            tenants: 1,
            connections: FLOOD,
            may_be_refused: true,
            ..Ask::of("/orders")
        };
        let asking = runtime.spawn(async move {
            load::drive(address, ask, usize::MAX).await;
        });
        Self { runtime, asking }
    }

    fn end(self) {
        assert!(!self.asking.is_finished(), "the flood lasted");
        self.runtime.shutdown_background();
    }
}
