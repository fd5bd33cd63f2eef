//! A tenant beside one that floods.

use tokio::task::AbortHandle;

use crate::load::{self, Ask};
use crate::process::{Proxy, setting};

/// What another's flood may make of a tenant's slowest requests.
const BUDGET: f64 = 2.0;
/// Connections of the tenant that floods.
const FLOOD: usize = 200;

/// Prints how long the quiet tenant's requests take, alone and beside the flood.
pub(crate) async fn beside(proxy: &Proxy) {
    let requests = setting("QUERY_REQUESTS", 20_000) / 4;
    let quiet = Ask { first: 1, tenants: 1, connections: 2, ..Ask::of("/orders") };
    let alone = load::drive(proxy.address, quiet, requests).await;
    let flood = flood(proxy);
    let beside = load::drive(proxy.address, quiet, requests).await;
    assert!(!flood.is_finished(), "the flood lasted");
    flood.abort();
    let (before, after) = (alone.quantile(0.99), beside.quantile(0.99));
    println!("{:<24} p99 {before:.1?}, p50 {:.1?}", "a tenant alone", alone.quantile(0.5));
    println!("{:<24} p99 {after:.1?}, p50 {:.1?}", "beside a flood", beside.quantile(0.5));
    println!("{:<24} {:>6.2} (budget {BUDGET})", "ratio", after.as_secs_f64() / before.as_secs_f64());
}

/// One tenant that asks over many connections, for as long as it is not aborted. Those that are
/// refused ask again.
fn flood(proxy: &Proxy) -> AbortHandle {
    let address = proxy.address;
    tokio::spawn(async move {
        let ask =
            Ask { first: 0, tenants: 1, connections: FLOOD, may_be_refused: true, ..Ask::of("/orders") };
        load::drive(address, ask, usize::MAX).await;
    })
    .abort_handle()
}
