//! Plugins that are good, and plugins that do their worst: each ends in a classified outcome.

use std::future::pending;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use innkeeper::decision::{Decision, DirectoryUnavailable, FindTenant, Lookup, RequestHead};
use innkeeper::plugin::{
    FailureClass, HostSettings, LoadError, LoadErrorClass, LoadedPlugin, PluginFailure, PluginHost,
};
use innkeeper::policy::{Instances, Plugin, PluginLimits, Reuse};
use innkeeper::tenant::{Tenant, TenantId, TenantState};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Longer than any honest call takes on any machine: only for calls that are to succeed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The directory of this checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A component from `tests/guests`. Most are core modules that are given our world here.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let path = root().join("tests/guests").join(name).with_extension("wat");
    let text = std::fs::read_to_string(&path).unwrap();
    let wasm = wat::parse_str(&text).unwrap();
    if wasm[4] == 0x0d || name == "core-module" {
        return wasm;
    }
    componentize(wasm, if text.contains("\"wasi:") { "guest" } else { "policy" }, StringEncoding::UTF8)
}

/// Gives a core module our world `policy`, or the larger one for tests, `guest`.
pub(crate) fn componentize(mut wasm: Vec<u8>, world: &str, encoding: StringEncoding) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root().join("wit")).unwrap();
    let package = match world {
        "guest" => resolve.push_file(root().join("tests/guests/wasi.wit")).unwrap(),
        _ => package,
    };
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut wasm, &resolve, world, encoding, false).unwrap();
    ComponentEncoder::default().module(&wasm).unwrap().encode().unwrap()
}

/// A host with room for a few instances and all the time in the world.
pub(crate) fn host() -> Arc<PluginHost> {
    host_with(|_| {})
}

pub(crate) fn host_with(change: impl FnOnce(&mut HostSettings)) -> Arc<PluginHost> {
    let mut settings = HostSettings { instances: 40, configure_time: PATIENCE, ..HostSettings::default() };
    change(&mut settings);
    PluginHost::new(settings).unwrap()
}

/// A plugin's part of a policy: patient, with a fresh instance for each request.
pub(crate) fn plugin(name: &str) -> Plugin {
    Plugin { limits: PluginLimits { time: PATIENCE, memory: 16 << 20 }, ..Plugin::new(name, "plugin.wasm") }
}

pub(crate) fn hasty(name: &str) -> Plugin {
    let limits = PluginLimits { time: Duration::from_millis(100), memory: 16 << 20 };
    Plugin { limits, ..plugin(name) }
}

pub(crate) fn reused(name: &str) -> Plugin {
    Plugin { instances: Instances::Reused, ..plugin(name) }
}

pub(crate) async fn load(host: &Arc<PluginHost>, settings: Plugin) -> Result<LoadedPlugin, LoadError> {
    let wasm = guest(&settings.name);
    host.load(Arc::new(settings), &wasm).await
}

/// A request with these headers.
pub(crate) fn request(host: &str, headers: &[(&str, &str)]) -> Arc<RequestHead> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    Arc::new(RequestHead {
        method: http::Method::GET,
        scheme: "http",
        authority: host.into(),
        host: host.split(':').next().unwrap_or_default().to_ascii_lowercase(),
        uri: "/orders?q=1".parse().unwrap(),
        headers: map,
        peer: innkeeper::address::Peer::Ip(([192, 0, 2, 1], 40_000).into()),
        ..RequestHead::default()
    })
}

pub(crate) async fn ask(plugin: &LoadedPlugin) -> Result<Decision, PluginFailure> {
    plugin.resolve(&request("localhost", &[]), Arc::new(Directory::Known)).await
}

pub(crate) fn tenant(decision: Result<Decision, PluginFailure>) -> String {
    match decision {
        Ok(Decision::Place(placement)) => placement.tenant.to_string(),
        other => panic!("not placed: {other:?}"),
    }
}

/// A directory in each of its moods.
pub(crate) enum Directory {
    Known,
    Empty,
    Down,
    Silent,
}

impl FindTenant for Directory {
    fn find<'a>(&'a self, id: &'a TenantId) -> Lookup<'a> {
        Box::pin(async move {
            match self {
                Self::Known => Ok(Some(Arc::new(Tenant {
                    id: id.clone(),
                    schema: "s1".parse().unwrap(),
                    role: None,
                    database: None,
                    state: TenantState::Active,
                    isolation: None,
                    limits: None,
                }))),
                Self::Empty => Ok(None),
                Self::Down => Err(DirectoryUnavailable("connection refused".into())),
                Self::Silent => pending().await,
            }
        })
    }
}

#[tokio::test]
async fn every_hostile_answer_ends_in_its_class() {
    use FailureClass as F;
    let host = host();
    let good = load(&host, plugin("good")).await.unwrap();
    let cases = [
        ("loop-in-resolve", F::Deadline),
        ("memory-bomb", F::Memory),
        ("table-bomb", F::Memory),
        ("trap", F::Trap),
        ("divide-by-zero", F::Trap),
        ("stack-overflow", F::StackOverflow),
        ("invalid-utf8", F::BadResult),
        ("bad-tenant", F::BadResult),
        ("empty-tenant", F::BadResult),
        ("forged-header", F::BadResult),
        ("split-header", F::BadResult),
        ("status-200", F::BadResult),
        ("bad-case", F::BadResult),
        ("wild-pointer", F::BadResult),
        ("wild-result", F::BadResult),
        ("huge-result", F::BadResult),
        ("huge-list", F::BadResult),
        ("keeps-request", F::BadResult),
        ("double-drop", F::BadResult),
        ("error-text", F::Guest),
    ];
    for (name, class) in cases {
        // Only the endless loop is to run into its deadline.
        let fresh = if class == F::Deadline { hasty(name) } else { plugin(name) };
        for settings in [fresh.clone(), Plugin { instances: Instances::Reused, ..fresh }] {
            let hostile = load(&host, settings).await.unwrap();
            for _ in 0..2 {
                let (failed, answered) = tokio::join!(ask(&hostile), ask(&good));
                let failure = failed.expect_err(name);
                assert_eq!(failure.class, class, "{name}: {failure}");
                if class == F::Deadline {
                    assert_eq!(failure.message, "it ran longer than 100ms");
                }
                assert!(!failure.message.is_empty() && failure.message.len() <= 512, "{name}");
                assert!(!failure.message.contains(char::is_control), "{name}: {:?}", failure.message);
                assert_eq!(tenant(answered), "acme", "others do not notice {name}");
            }
        }
    }
    drop(good);
    assert_eq!(host.free_instances(), 40, "nothing is left of them");
}

#[tokio::test]
async fn every_unfit_file_is_refused_with_its_class() {
    use LoadErrorClass as L;
    let host = host();
    let cases = [
        ("core-module", L::NotAComponent, "innkeeper plugin build"),
        ("empty", L::WrongWorld, "`configure` and `resolve`"),
        ("missing-export", L::WrongWorld, "`resolve`"),
        ("wrong-types", L::WrongWorld, "configure"),
        ("other-version", L::WrongWorld, "innkeeper:policy/log@0.2.0"),
        ("wants-sockets", L::ImportNotGranted, "wasi:sockets/instance-network@0.2.0"),
        ("wants-unknown", L::ImportNotGranted, "do-anything"),
        ("memory-at-start", L::ConfigureFailed, "its limit is 16777216"),
        ("trap-in-configure", L::ConfigureFailed, "unreachable"),
        ("configure-error", L::ConfigureFailed, "`keys`"),
        ("directory-in-configure", L::ConfigureFailed, "directory.find cannot be called in configure"),
    ];
    for (name, class, words) in cases {
        let error = load(&host, plugin(name)).await.expect_err(name);
        assert_eq!(error.class, class, "{name}: {error}");
        assert!(error.message.contains(words), "{name}: {error}");
    }
    for (bytes, class) in [
        (&b""[..], L::NotAComponent),
        (b"#!/bin/sh\n", L::NotAComponent),
        (b"\0asm\x0e\0\x01\0", L::NotAComponent),
        (b"\0asm\x0d\0\x01\0\xff\xff\xff", L::CompileFailed),
    ] {
        let error = host.load(Arc::new(plugin("bytes")), bytes).await.unwrap_err();
        assert_eq!(error.class, class, "{bytes:?}: {error}");
    }
    assert_eq!(host.free_instances(), 40, "nothing is left of them");
}

#[tokio::test]
async fn a_file_cut_anywhere_is_refused() {
    let host = host();
    let whole = guest("good");
    for length in (0..whole.len()).step_by(whole.len() / 23) {
        let error = host.load(Arc::new(plugin("cut")), &whole[..length]).await.unwrap_err();
        use LoadErrorClass as L;
        assert!(
            matches!(error.class, L::NotAComponent | L::CompileFailed | L::WrongWorld),
            "{length}: {error}"
        );
    }
}

#[tokio::test]
async fn a_configure_that_hangs_is_given_up() {
    let host = host_with(|settings| settings.configure_time = Duration::from_millis(100));
    for name in ["loop-in-configure", "loop-in-realloc"] {
        let error = load(&host, plugin(name)).await.expect_err(name);
        assert_eq!(error.class, LoadErrorClass::ConfigureFailed, "{error}");
        assert!(error.message.contains("did not return within 100ms"), "{error}");
    }
}

#[tokio::test]
async fn size_and_pin_are_checked_before_anything_runs() {
    let host = host_with(|settings| settings.file_max = 4096);
    let wasm = guest("good");
    let error = host.load(Arc::new(plugin("large")), &[0; 4097]).await.unwrap_err();
    assert_eq!(error.class, LoadErrorClass::TooLarge);

    let greedy =
        Plugin { limits: PluginLimits { memory: 1 << 40, ..plugin("x").limits }, ..plugin("greedy") };
    let error = host.load(Arc::new(greedy), &wasm).await.unwrap_err();
    assert_eq!(error.class, LoadErrorClass::TooLarge);

    let pinned = Plugin { sha256: Some([7; 32]), ..plugin("pinned") };
    let error = host.load(Arc::new(pinned), &wasm).await.unwrap_err();
    assert_eq!(error.class, LoadErrorClass::PinMismatch);

    let loaded = host.load(Arc::new(plugin("free")), &wasm).await.unwrap();
    let mut sha256 = [0; 32];
    for (byte, hex) in sha256.iter_mut().zip(loaded.version().as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
    }
    let pinned = Plugin { sha256: Some(sha256), ..plugin("pinned") };
    assert!(host.load(Arc::new(pinned), &wasm).await.is_ok(), "the right pin is accepted");
}

#[tokio::test]
async fn what_a_request_wrote_the_next_one_cannot_see() {
    for snapshot in [true, false] {
        let host = host_with(|settings| settings.snapshot = snapshot);
        let counter = load(&host, plugin("counter")).await.unwrap();
        assert_eq!(counter.starts_configured(), snapshot);
        for _ in 0..5 {
            assert_eq!(tenant(ask(&counter).await), "t1");
        }
    }
}

#[tokio::test]
async fn an_instance_that_is_made_as_new_is_as_new_in_every_place() {
    let host = host();
    let scribbles = Arc::new(load(&host, plugin("scribbles")).await.unwrap());
    assert!(scribbles.is_renewed());
    for _ in 0..3 {
        let calls = (0..32).map(|_| {
            let scribbles = Arc::clone(&scribbles);
            tokio::spawn(async move { tenant(ask(&scribbles).await) })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap(), "t0");
        }
    }
    let waiting = 40 - host.free_instances();
    assert!((1..=16).contains(&waiting), "{waiting} wait for the next request");
    drop(scribbles);
    assert_eq!(host.free_instances(), 40, "nothing is left of them");
}

#[tokio::test]
async fn an_instance_that_failed_or_grew_serves_nobody_again() {
    let host = host();
    let grows = load(&host, plugin("grows")).await.unwrap();
    let traps = load(&host, plugin("trap")).await.unwrap();
    assert!(grows.is_renewed() && traps.is_renewed());
    for _ in 0..3 {
        assert_eq!(tenant(ask(&grows).await), "t1");
        assert_eq!(ask(&traps).await.unwrap_err().class, FailureClass::Trap);
        assert_eq!(host.free_instances(), 40);
    }
}

#[tokio::test]
async fn an_instance_that_only_waits_takes_no_room_from_another_plugin() {
    for instances in [1, 2, 3] {
        let host = host_with(|settings| settings.instances = instances);
        let (one, other) =
            (load(&host, plugin("good")).await.unwrap(), load(&host, plugin("counter")).await.unwrap());
        for _ in 0..3 {
            assert_eq!(tenant(ask(&one).await), "acme");
            assert!(host.free_instances() > 0, "of {instances}");
            assert_eq!(tenant(ask(&other).await), "t1");
            assert!(host.free_instances() > 0, "of {instances}");
        }
    }
}

#[tokio::test]
async fn a_reused_instance_remembers_until_it_is_replaced() {
    let host = host();
    let reuse = Reuse { uses: NonZeroU32::new(3).unwrap(), ..Reuse::default() };
    let counter = load(&host, Plugin { reuse, ..reused("counter") }).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..7 {
        seen.push(tenant(ask(&counter).await));
    }
    assert_eq!(seen, ["t1", "t2", "t3", "t1", "t2", "t3", "t1"]);
}

#[tokio::test]
async fn each_instance_is_configured_exactly_once() {
    for snapshot in [true, false] {
        let host = host_with(|settings| settings.snapshot = snapshot);
        for settings in [plugin("configured-once"), reused("configured-once")] {
            let plugin = load(&host, settings).await.unwrap();
            for _ in 0..3 {
                assert_eq!(tenant(ask(&plugin).await), "t1");
            }
        }
    }
}

#[tokio::test]
async fn the_directory_answers_fails_and_keeps_silent() {
    let host = host();
    let asks = load(&host, plugin("asks-directory")).await.unwrap();
    let head = request("localhost", &[]);
    assert_eq!(tenant(asks.resolve(&head, Arc::new(Directory::Known)).await), "acme");
    let unknown = asks.resolve(&head, Arc::new(Directory::Empty)).await;
    assert_eq!(unknown, Ok(Decision::Next));
    let failure = asks.resolve(&head, Arc::new(Directory::Down)).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::DirectoryUnavailable);
    assert!(failure.message.contains("connection refused"), "{failure}");

    let hasty = load(&host, hasty("asks-directory")).await.unwrap();
    let failure = hasty.resolve(&head, Arc::new(Directory::Silent)).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Deadline, "the deadline holds while the host is asked");
    assert_eq!(tenant(hasty.resolve(&head, Arc::new(Directory::Known)).await), "acme");
}

#[tokio::test]
async fn calls_beyond_the_pool_wait_their_turn() {
    let host = host_with(|settings| settings.instances = 8);
    let good = Arc::new(load(&host, plugin("good")).await.unwrap());
    let calls = (0..1000).map(|_| {
        let good = Arc::clone(&good);
        tokio::spawn(async move { tenant(ask(&good).await) })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), "acme");
    }
    assert!(host.free_instances() >= 4, "half of the pool is free for others");
    drop(good);
    assert_eq!(host.free_instances(), 8);
}

#[tokio::test]
async fn a_call_waits_no_longer_than_its_deadline_for_a_turn() {
    let host = host_with(|settings| settings.instances = 1);
    let slow = Arc::new(load(&host, plugin("asks-directory")).await.unwrap());
    let hasty = load(&host, hasty("asks-directory")).await.unwrap();
    let blocked = Arc::clone(&slow);
    let head = request("localhost", &[]);
    let holder = tokio::spawn(async move { blocked.resolve(&head, Arc::new(Directory::Silent)).await });
    while host.free_instances() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&hasty).await.unwrap_err().class, FailureClass::Capacity);
    // A dropped call throws its instance away.
    holder.abort();
    assert!(holder.await.unwrap_err().is_cancelled());
    assert_eq!(host.free_instances(), 1);
    assert_eq!(tenant(ask(&slow).await), "acme");
}

#[tokio::test]
async fn a_version_is_swapped_under_calls_and_the_old_one_is_freed() {
    let host = host();
    let current = Arc::new(std::sync::Mutex::new(Arc::new(load(&host, plugin("good")).await.unwrap())));
    let first = Arc::downgrade(&*current.lock().unwrap());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (current, stop) = (Arc::clone(&current), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut calls = 0;
                while calls == 0 || !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let plugin = Arc::clone(&*current.lock().unwrap());
                    let wanted = if &**plugin.name() == "good" { "acme" } else { "t1" };
                    assert_eq!(tenant(ask(&plugin).await), wanted, "exactly one version answers");
                    calls += 1;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..10 {
        let next = load(&host, plugin(if round % 2 == 0 { "counter" } else { "good" })).await.unwrap();
        *current.lock().unwrap() = Arc::new(next);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(first.strong_count(), 0);
    assert_eq!(host.free_instances(), 40);
}

#[tokio::test]
async fn a_version_that_was_loaded_before_is_the_same_version_again() {
    let host = host();
    for settings in
        [plugin("configured-once"), reused("configured-once"), plugin("counter"), plugin("prints")]
    {
        let first = load(&host, settings.clone()).await.unwrap();
        let again = load(&host, settings.clone()).await.unwrap();
        assert_eq!(first.version(), again.version());
        assert_eq!(first.starts_configured(), again.starts_configured());
        assert_eq!(tenant(ask(&first).await), tenant(ask(&again).await), "they share no instance");
    }
    let refused = Plugin { config: "refused".into(), ..plugin("configured-once") };
    let wasm = guest("configure-error");
    assert!(host.load(Arc::new(refused.clone()), &wasm).await.is_err());
    assert!(host.load(Arc::new(refused), &wasm).await.is_err(), "a failure is not remembered");
}

#[tokio::test]
async fn a_flood_of_lines_is_cut_and_attributed_and_does_not_stop_the_answer() {
    let (lines, _guard) = capture_log();
    let host = host();
    let flood = load(&host, plugin("log-flood")).await.unwrap();
    assert_eq!(tenant(ask(&flood).await), "acme");
    let lines = lines.take();
    // A burst of a hundred, and a few more if the machine is slow.
    assert!((100..1000).contains(&lines.len()), "{} lines", lines.len());
    for line in &lines {
        assert_eq!(line["target"], "innkeeper::plugin");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["fields"]["plugin"], "log-flood");
        assert_eq!(line["fields"]["version"], **flood.version());
        let message = line["fields"]["message"].as_str().unwrap();
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

#[tokio::test]
async fn wasi_offers_clocks_and_randomness_and_nothing_else() {
    let (lines, _guard) = capture_log();
    let host = host();
    for settings in [plugin("prints"), reused("prints")] {
        let prints = load(&host, settings).await.unwrap();
        assert!(!prints.starts_configured(), "an open stream cannot be copied");
        assert_eq!(tenant(ask(&prints).await), "acme");
        drop(prints);
        let printed: Vec<_> =
            lines.take().into_iter().map(|line| line["fields"]["message"].clone()).collect();
        assert_eq!(printed, ["printed", "line\u{fffd}[2J and on"], "what is printed goes to the log");
    }
    let exits = load(&host, plugin("exits")).await.unwrap();
    let failure = ask(&exits).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Trap);
    assert!(failure.message.contains("called exit"), "{failure}");
}

#[tokio::test]
async fn a_component_with_the_imports_of_a_stock_wasip2_program_runs() {
    let (lines, _guard) = capture_log();
    let host = host();
    let wasm = guest("stock-wasi");
    let imported =
        |interface: &str| wasm.windows(interface.len()).any(|window| window == interface.as_bytes());
    for interface in ["environment", "exit", "stdin", "stdout", "stderr"].into_iter().chain([
        "terminal-input",
        "terminal-output",
        "terminal-stdin",
        "terminal-stdout",
        "terminal-stderr",
    ]) {
        assert!(imported(&format!("wasi:cli/{interface}@0.2.0")), "{interface}");
    }
    for interface in ["error", "poll", "streams"] {
        assert!(imported(&format!("wasi:io/{interface}@0.2.0")), "{interface}");
    }
    for settings in [plugin("stock-wasi"), reused("stock-wasi")] {
        let stock = load(&host, settings).await.unwrap();
        for _ in 0..2 {
            assert_eq!(tenant(ask(&stock).await), "acme");
            let printed = lines.take().into_iter().map(|line| line["fields"]["message"].clone());
            assert_eq!(printed.collect::<Vec<_>>(), ["hello", "hello"]);
        }
    }
}

#[tokio::test]
async fn the_largest_request_can_be_read_whole() {
    let host = host();
    let reads = load(&host, plugin("reads-all-headers")).await.unwrap();
    let value = "v".repeat(300);
    let names: Vec<String> = (0..100).map(|index| format!("x-header-{index}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let decision = reads.resolve(&request("localhost", &headers), Arc::new(Directory::Known)).await;
    assert_eq!(tenant(decision), "acme");
}

/// Lines that were logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn take(&self) -> Vec<serde_json::Value> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parse_line).collect()
    }
}

fn parse_line(line: &[u8]) -> serde_json::Value {
    serde_json::from_slice(line).unwrap()
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn capture_log() -> (Lines, tracing::subscriber::DefaultGuard) {
    capture_log_from(tracing::Level::INFO)
}

/// Keeps what this thread logs at `level` and above.
pub(crate) fn capture_log_from(level: tracing::Level) -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(level).with_writer(move || writer.clone()).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}
