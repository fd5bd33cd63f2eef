//! The hostile guests that the first tests left out: each ends in its class, alone and between honest
//! calls, and leaves nothing behind.

use std::time::Duration;

use innkeeper::plugin::{FailureClass, LoadErrorClass};
use innkeeper::policy::{Instances, Plugin};

use crate::plugins::{ask, guest, hasty, host, host_with, load, plugin, tenant};

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
        ("crooked-realloc", F::BadResult, "realloc"),
        ("log-not-text", F::BadResult, "utf-8"),
        ("log-giant", F::BadResult, "fuel"),
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
    assert_eq!(host.free_instances(), 40, "nothing is left of them");
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
    assert_eq!(host.free_instances(), 40, "nothing is left of them");
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
    assert_eq!(host.free_instances(), 40);
}

#[test]
fn every_guest_says_what_it_does() {
    for entry in std::fs::read_dir(crate::plugins::root().join("tests/guests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wat") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(std::fs::read_to_string(&path).unwrap().starts_with(";; "), "{name}");
            assert!(!guest(name).is_empty(), "{name}");
        }
    }
}
