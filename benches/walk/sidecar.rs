//! Our side: the program itself, serving a policy with one route and a list of tenants, its access
//! records written to nowhere.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::load::schema_of;
use crate::process::{Proxy, free_address};

/// Starts it with one worker thread.
pub(crate) async fn start(directory: &Path, upstream: &str, tenants: &[String]) -> Proxy {
    let policy = directory.join(format!("policy-{}.yaml", tenants.len()));
    let mut text = format!(
        "version: 1\nserver: {{ admin: 127.0.0.1:0 }}\nupstreams:\n  app: {{ endpoints: [ 'http://{upstream}' ] }}\n\
         routes:\n  - {{ name: app, match: {{ path: / }}, tenant: {{ header: X-Tenant-ID }}, forward: app }}\n\
         tenants:\n  list:\n"
    );
    for tenant in tenants {
        text.push_str(&format!("    - {{ id: {tenant}, schema: {} }}\n", schema_of(tenant)));
    }
    std::fs::write(&policy, text).expect("a file can be written");
    let address = free_address();
    let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    command.args(["serve", "--workers", "1", "--no-cache", "--log-format", "json", "--policy"]).arg(policy);
    command.args(["--listen", &address.to_string()]);
    command.env("TOKIO_WORKER_THREADS", "1").stdout(Stdio::null()).stderr(Stdio::null());
    let proxy = Proxy::spawn(command, address).expect("it can be run");
    assert!(proxy.listens().await, "the policy is sound");
    proxy
}
