//! The hostile guests that the first tests left out: each ends in its class, alone and between honest
//! calls, and leaves nothing behind.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use innkeeper::plugin::{FailureClass, LoadErrorClass};
use innkeeper::policy::{Instances, Plugin, PluginLimits};

use crate::plugins::{Directory, ask, guest, hasty, host, host_with, load, plugin, request, root, tenant};
use crate::support::gateway::until;

#[tokio::test]
async fn every_sneaky_answer_ends_in_its_class() {
    use FailureClass as F;
    let host = host();
    let good = load(&host, plugin("good")).await.unwrap();
    let cases = [
        ("log-for-ever", F::Deadline, "longer than 100ms"),
        ("loop-in-post-return", F::Deadline, "longer than 100ms"),
        ("sleeps", F::Deadline, "longer than 100ms"),
        ("hoards-paths", F::Memory, "its limit is"),
        ("trap-in-post-return", F::Trap, "unreachable"),
        ("wrong-indirect-call", F::Trap, "indirect call"),
        ("not-a-number", F::Trap, "conversion to integer"),
        ("asks-directory-for-ever", F::Trap, "more than 16 times"),
        ("stack-overflow-in-realloc", F::StackOverflow, "recursed"),
        ("wild-realloc", F::BadResult, "realloc"),
        ("crooked-realloc", F::BadResult, "aligned"),
        ("log-not-text", F::BadResult, "UTF-8"),
        ("log-giant", F::BadResult, "1 MiB"),
        ("endless-list", F::BadResult, "list"),
        ("reads-dropped-request", F::BadResult, "handle"),
        ("reads-forged-request", F::BadResult, "handle"),
        ("opens-files", F::BadResult, "handle"),
        ("takes-handles", F::BadResult, "resource table"),
        ("takes-randomness", F::BadResult, "exceeds limit 65536"),
        ("shouting-denial", F::BadResult, "control characters"),
        ("long-error-text", F::Guest, ""),
    ];
    for (name, class, words) in cases {
        let fresh = if class == F::Deadline { hasty(name) } else { plugin(name) };
        for settings in [fresh.clone(), Plugin { instances: Instances::Reused, ..fresh }] {
            let hostile = load(&host, settings).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            for _ in 0..2 {
                let (failed, answered) = tokio::join!(ask(&hostile), ask(&good));
                let failure = failed.expect_err(name);
                assert_eq!(failure.class, class, "{name}: {failure}");
                assert!(failure.message.contains(words), "{name}: {failure}");
                assert!(failure.message.len() <= 512, "{name}: {failure}");
                assert_eq!(tenant(answered), "acme", "others do not notice {name}");
            }
        }
    }
    drop(good);
    until(|| host.free_instances() == 40).await;
}

#[tokio::test]
async fn every_sneaky_file_is_refused_with_its_class() {
    use LoadErrorClass as L;
    let host = host();
    let cases = [
        ("memory-of-4-gib", L::TooLarge, "exceeds the limit"),
        ("memory-of-64-bits", L::TooLarge, "exceeds the limit"),
        ("giant-table", L::TooLarge, "exceeds the limit"),
        ("shared-memory", L::CompileFailed, "shared"),
        ("garbage-collected", L::CompileFailed, "gc"),
        ("throws", L::CompileFailed, "exceptions"),
        ("async-exports", L::CompileFailed, "async"),
        ("wants-http", L::ImportNotGranted, "wasi:http/outgoing-handler@0.2.0"),
        ("exports-an-instance", L::WrongWorld, "`configure` and `resolve`"),
        ("imports-wrong-types", L::WrongWorld, "log"),
        ("trap-in-start", L::ConfigureFailed, "unreachable"),
        ("wild-data", L::ConfigureFailed, "out of bounds"),
        ("stack-overflow-in-configure", L::ConfigureFailed, "recursed"),
        ("memory-bomb-in-configure", L::ConfigureFailed, "its limit is"),
    ];
    for (name, class, words) in cases {
        let error = load(&host, plugin(name)).await.expect_err(name);
        assert_eq!(error.class, class, "{name}: {error}");
        assert!(error.message.contains(words), "{name}: {error}");
    }
    until(|| host.free_instances() == 40).await;
}

#[tokio::test]
async fn more_parts_than_the_pool_has_are_refused() {
    let host = host();
    let many = |part: &str, count: usize| {
        let text = format!(
            "(component (core module $m {part}) {})",
            "(core instance (instantiate $m))".repeat(count)
        );
        wat::parse_str(text).unwrap()
    };
    for part in ["", "(memory 1)", "(table 1 funcref)"] {
        let error = host.load(plugin("many").into(), &many(part, 65)).await.unwrap_err();
        assert_eq!(error.class, LoadErrorClass::TooLarge, "{part}: {error}");
        // One fewer would have room, and lacks only our world.
        let error = host.load(plugin("many").into(), &many(part, 64)).await.unwrap_err();
        assert_eq!(error.class, LoadErrorClass::WrongWorld, "{part}: {error}");
    }
}

#[tokio::test]
async fn types_that_nest_without_end_are_refused() {
    let host = host();
    for depth in [90, 1000, 20_000] {
        let text = format!("(component (type {}u8{}))", "(list ".repeat(depth), ")".repeat(depth));
        let Ok(wasm) = wat::parse_str(text) else { continue };
        let error = host.load(plugin("deep").into(), &wasm).await.unwrap_err();
        assert!(
            matches!(error.class, LoadErrorClass::CompileFailed | LoadErrorClass::WrongWorld),
            "{depth}: {error}"
        );
    }
}

#[tokio::test]
async fn a_start_that_hangs_is_given_up() {
    let host = host_with(|settings| settings.configure_time = Duration::from_millis(100));
    let error = load(&host, plugin("loop-in-start")).await.unwrap_err();
    assert_eq!(error.class, LoadErrorClass::ConfigureFailed, "{error}");
    assert!(error.message.contains("did not return within 100ms"), "{error}");
    until(|| host.free_instances() == 40).await;
}

#[tokio::test]
async fn memories_of_any_size_are_copied_or_configured_again() {
    let host = host();
    // Two and a half MiB, more than a call may move.
    assert!(load(&host, plugin("log-giant")).await.unwrap().starts_configured());
    // Not a byte of room for whoever reads it out.
    let full = load(&host, plugin("full-memory")).await.unwrap();
    assert_eq!(tenant(ask(&full).await), "acme");
}

#[tokio::test]
async fn a_fresh_instance_that_starts_slowly_costs_its_own_request() {
    // Where the memory is not copied, the start runs for each request.
    let host = host_with(|settings| settings.snapshot = false);
    let limits = PluginLimits { time: Duration::from_millis(20), ..PluginLimits::default() };
    let slow = load(&host, Plugin { limits, ..plugin("slow-start") }).await.unwrap();
    assert_eq!(ask(&slow).await.unwrap_err().class, FailureClass::Deadline);
    until(|| host.free_instances() == 40).await;
}

#[tokio::test]
async fn a_configure_that_changes_its_mind_is_a_failure_of_its_own_class() {
    let host = host_with(|settings| settings.snapshot = false);
    let fickle = loop {
        match load(&host, plugin("fickle")).await {
            Ok(loaded) => break loaded,
            Err(error) => assert_eq!(error.class, LoadErrorClass::ConfigureFailed),
        }
    };
    // It throws a coin for each instance, and will not see the same side for ever.
    let failure = loop {
        match ask(&fickle).await {
            Ok(_) => {}
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.class, FailureClass::Configure);
    assert_eq!(failure.message, "not today");
}

#[tokio::test]
async fn a_plugin_that_finds_no_instance_free_is_not_loaded() {
    let host = host_with(|settings| {
        settings.instances = 1;
        settings.configure_time = Duration::from_millis(200);
    });
    let slow = Arc::new(loop {
        // A busy machine may need more time than that to configure it.
        if let Ok(loaded) = load(&host, plugin("asks-directory")).await {
            break loaded;
        }
    });
    let head = request("localhost", &[]);
    let holder = tokio::spawn(async move { slow.resolve(&head, Arc::new(Directory::Silent)).await });
    until(|| host.free_instances() == 0).await;
    let error = load(&host, plugin("good")).await.unwrap_err();
    assert_eq!(error.class, LoadErrorClass::Capacity, "{error}");
    holder.abort();
}

#[test]
fn every_guest_says_what_it_does_and_can_be_built() {
    for (name, wasm) in guests() {
        let text = std::fs::read_to_string(root().join(format!("tests/guests/{name}.wat"))).unwrap();
        assert!(text.starts_with(";; "), "{name}");
        assert!(!wasm.is_empty(), "{name}");
    }
}

/// Writes what the fuzz target `plugin` starts from, where `INNKEEPER_FUZZ_SEEDS` says.
#[test]
fn seeds() {
    let Some(directory) = std::env::var_os("INNKEEPER_FUZZ_SEEDS") else { return };
    std::fs::create_dir_all(&directory).unwrap();
    for (name, wasm) in guests() {
        std::fs::write(Path::new(&directory).join(name), wasm).unwrap();
    }
}

fn guests() -> impl Iterator<Item = (String, Vec<u8>)> {
    let paths = std::fs::read_dir(root().join("tests/guests")).unwrap().map(|entry| entry.unwrap().path());
    let names =
        paths.filter_map(|path| Some(path.to_str()?.strip_suffix(".wat")?.rsplit('/').next()?.to_owned()));
    names.map(|name| (name.clone(), guest(&name)))
}
