//! Good files made bad, by cuts and flipped bits at many places: whatever comes of it has a class.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::policy::{Plugin, PluginLimits};

use crate::plugins::{ask, guest, host_with, plugin, root};
use crate::support::gateway::until;

/// Pseudo-random numbers that are the same in every run (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_refused_or_fails_in_a_class_and_leaves_nothing() {
    // Many of them loop, and no answer depends on how long they may.
    let time = Duration::from_millis(50);
    let host = host_with(|settings| settings.configure_time = time);
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let (mut refused, mut failed, mut answered) = (0, 0, 0);
    let names = ["good", "configured-once", "counter", "prints", "reads-all-headers", "asks-directory"];
    let sources: Vec<Vec<u8>> = names.into_iter().map(guest).collect();
    for round in 0..600 {
        let mut wasm = sources[round % sources.len()].clone();
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(wasm.len() - 8) + 8;
            match numbers.below(4) {
                0 => wasm.truncate(at + 1),
                1 => wasm[at] = u8::try_from(numbers.below(256)).unwrap(),
                2 => drop(wasm.remove(at)),
                _ => wasm[at] ^= 1 << numbers.below(8),
            }
            if wasm.len() < 64 {
                break;
            }
        }
        let limits = PluginLimits { time, memory: 1 << 20 };
        let settings = Arc::new(Plugin { limits, ..plugin("damaged") });
        match host.load(settings, &wasm).await {
            Err(error) => {
                assert!(!error.message.is_empty() && error.message.len() <= 1024, "round {round}: {error}");
                refused += 1;
            }
            Ok(loaded) => match ask(&loaded).await {
                Ok(_) => answered += 1,
                Err(_) => failed += 1,
            },
        }
        // One that ran out of time ends on its own thread, a moment later.
        until(|| host.free_instances() == 40).await;
    }
    assert!(
        refused > 0 && failed > 0 && answered > 0,
        "{refused} refused, {failed} failed, {answered} answered"
    );
}

#[tokio::test]
async fn a_damaged_build_of_the_sdk_is_refused_or_fails_in_a_class() {
    let host = host_with(|settings| settings.configure_time = Duration::from_secs(1));
    let whole = std::fs::read(root().join("plugins/legacy-keys.wasm")).unwrap();
    for part in 1..40 {
        let cut = &whole[..whole.len() * part / 40];
        assert!(host.load(Arc::new(plugin("cut")), cut).await.is_err(), "{part} parts of 40");
    }
    let mut numbers = Numbers(0x0fed_cba9_8765_4321);
    for _ in 0..16 {
        let mut wasm = whole.clone();
        let at = numbers.below(wasm.len());
        wasm[at] ^= 1 << numbers.below(8);
        let limits = PluginLimits { time: Duration::from_millis(100), memory: 4 << 20 };
        if let Ok(loaded) = host.load(Arc::new(Plugin { limits, ..plugin("flipped") }), &wasm).await {
            // An answer, or a failure: a bit in a string is still a plugin.
            let _ = ask(&loaded).await;
        }
        until(|| host.free_instances() == 40).await;
    }
}
