//! A component that runs as one core module decides what it would decide as a component, and fails
//! as it would fail.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use innkeeper::decision::{Decision, RequestHead};
use innkeeper::plugin::{FailureClass, LoadError, LoadedPlugin, PluginHost};
use innkeeper::policy::{Instances, Plugin};
use proptest::prelude::*;
use wit_component::StringEncoding;

use crate::guests::{CASES, CONFIG};
use crate::plugins::{Directory, componentize, guest, hasty, host_with, plugin, request, reused, root};

/// What a call came to, where messages may differ in wording.
type Outcome = Result<Decision, FailureClass>;

/// Two hosts: one that flattens and one that does not.
struct Hosts {
    flat: Arc<PluginHost>,
    component: Arc<PluginHost>,
}

impl Hosts {
    fn new(configure_time: Duration) -> Self {
        let host = |flatten| {
            host_with(|settings| {
                settings.flatten = flatten;
                settings.configure_time = configure_time;
            })
        };
        Self { flat: host(true), component: host(false) }
    }

    fn patient() -> Self {
        Self::new(Duration::from_secs(60))
    }

    async fn load(&self, settings: &Plugin, wasm: &[u8]) -> Result<Pair, LoadError> {
        let settings = Arc::new(settings.clone());
        let flat = self.flat.load(Arc::clone(&settings), wasm).await;
        let component = self.component.load(settings, wasm).await;
        match (flat, component) {
            (Ok(flat), Ok(component)) => {
                assert!(!component.is_flat());
                assert_eq!(flat.starts_configured(), component.starts_configured());
                Ok(Pair { flat, component })
            }
            (Err(flat), Err(component)) => {
                assert_eq!(flat, component);
                Err(flat)
            }
            (flat, component) => panic!("one loads and one does not: {flat:?}, {component:?}"),
        }
    }
}

/// A plugin loaded in both ways.
struct Pair {
    flat: LoadedPlugin,
    component: LoadedPlugin,
}

impl Pair {
    /// Asks both, and compares what they say.
    async fn ask(&self, head: &Arc<RequestHead>) -> Outcome {
        let flat = outcome(&self.flat, head).await;
        let component = outcome(&self.component, head).await;
        assert_eq!(flat, component, "{}: {head:?}", self.flat.name());
        flat
    }
}

async fn outcome(plugin: &LoadedPlugin, head: &Arc<RequestHead>) -> Outcome {
    plugin.resolve(head, Arc::new(Directory::Known)).await.map_err(|failure| failure.class)
}

fn requests() -> Vec<Arc<RequestHead>> {
    let many: Vec<(String, String)> =
        (0..100).map(|index| (format!("x-header-{index}"), "v".repeat(300))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    vec![
        request("localhost", &[]),
        request("", &[("x-api-key", "k-acme"), ("x-empty", ""), ("x-tenant-id", "k-globex")]),
        request("ä.example", &[("x-api-key", "k-1"), ("x-api-key", "k-2"), ("cookie", "a"), ("cookie", "b")]),
        request("localhost:1", &many),
    ]
}

#[tokio::test]
async fn what_the_toolchain_makes_is_run_flat() {
    let hosts = Hosts::patient();
    for file in ["plugins/legacy-keys.wasm", "benches/guests/lazy.wasm"] {
        let wasm = std::fs::read(root().join(file)).unwrap();
        for settings in [plugin("by-a-toolchain"), reused("by-a-toolchain")] {
            let config = if file.contains("legacy") { CONFIG } else { "all" };
            let pair = hosts.load(&Plugin { config: config.into(), ..settings }, &wasm).await.unwrap();
            assert!(pair.flat.is_flat(), "{file}");
            for head in requests() {
                pair.ask(&head).await.unwrap();
            }
            for (host, headers, _) in CASES {
                pair.ask(&request(host, headers)).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn every_guest_comes_to_the_same() {
    let (hosts, impatient) = (Hosts::patient(), Hosts::new(Duration::from_millis(100)));
    for entry in std::fs::read_dir(root().join("tests/guests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_none_or(|extension| extension != "wat") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        // Runs as a component in any case, and may follow a clock or chance; one refuses every other
        // configuration.
        if text.contains("\"wasi:") || name == "fickle" {
            continue;
        }
        let hosts = if ["loop-in-configure", "loop-in-realloc", "loop-in-start"].contains(&name) {
            &impatient
        } else {
            &hosts
        };
        let endless = ["loop-in-resolve", "loop-in-post-return", "log-for-ever", "sleeps"].contains(&name);
        let fresh = if endless { hasty(name) } else { plugin(name) };
        for settings in [fresh.clone(), Plugin { instances: Instances::Reused, ..fresh }] {
            let Ok(pair) = hosts.load(&settings, &guest(name)).await else { continue };
            // A start function of its own is another shape, but where a copied memory has it behind.
            let starts = name == "slow-start" && settings.instances == Instances::Reused;
            assert_eq!(pair.flat.is_flat(), !starts, "{name}");
            for head in requests() {
                let _ = pair.ask(&head).await;
            }
        }
    }
}

/// Names the tenant by a byte that its `_initialize` left behind: `t1`.
const INITIALISES: &str = r#"(module
    (import "innkeeper:policy/types@0.1.0" "[resource-drop]request" (func $drop (param i32)))
    (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 16))
    (func $initialise (export "_initialize") (i32.store8 (i32.const 257) (i32.const 0x31)))
    (func (export "resolve") (param i32) (result i32) (call $drop (local.get 0)) (i32.const 64))
    (data (i32.const 72) "\00\01\00\00\02\00\00\00")
    (data (i32.const 256) "t0"))"#;

#[tokio::test]
async fn what_starts_by_itself_has_started() {
    let hosts = Hosts::patient();
    let wasm = componentize(wat::parse_str(INITIALISES).unwrap(), "policy", StringEncoding::UTF8);
    for settings in [plugin("starts"), reused("starts")] {
        let pair = hosts.load(&settings, &wasm).await.unwrap();
        assert!(pair.flat.is_flat());
        match pair.ask(&request("localhost", &[])).await {
            Ok(Decision::Place(placement)) => assert_eq!(placement.tenant.as_str(), "t1"),
            other => panic!("{other:?}"),
        }
    }
}

/// A component whose text is in one module and whose functions are in another.
const TWO_MODULES: &str = r#"(component
    (import "innkeeper:policy/types@0.1.0" (instance $types
      (export "request" (type (sub resource)))
      (type $pairs (list (tuple string string)))
      (type $p (record (field "tenant" string) (field "headers" $pairs) (field "upstream" (option string)) (field "reason" (option string))))
      (export "placement" (type $placement (eq $p)))
      (type $d (record (field "status" u16) (field "code" string) (field "message" string)))
      (export "denial" (type $denial (eq $d)))
      (type $v (variant (case "place" $placement) (case "next") (case "deny" $denial)))
      (export "decision" (type (eq $v)))))
    (alias export $types "request" (type $request))
    (import "request" (type $req (eq $request)))
    (alias export $types "decision" (type $decision))
    (import "decision" (type $dec (eq $decision)))
    (core module $holds
      (memory (export "memory") 1)
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
      (data (i32.const 64) "\00\00\00\00\00\00\00\00\00\01\00\00\04\00\00\00")
      (data (i32.const 256) "acme"))
    (core module $acts
      (import "types" "drop" (func $drop (param i32)))
      (func (export "configure") (param i32 i32) (result i32) (i32.const 16))
      (func (export "resolve") (param i32) (result i32) (call $drop (local.get 0)) (i32.const 64)))
    (core instance $memory (instantiate $holds))
    (core func $drop (canon resource.drop $request))
    (core instance $host (export "drop" (func $drop)))
    (core instance $main (instantiate $acts (with "types" (instance $host))))
    (func $configure (param "config" string) (result (result (error string)))
      (canon lift (core func $main "configure") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
    (export "configure" (func $configure))
    (func $resolve (param "request" (borrow $req)) (result (result $dec (error string)))
      (canon lift (core func $main "resolve") (memory (core memory $memory "memory"))))
    (export "resolve" (func $resolve)))"#;

#[tokio::test]
async fn what_has_another_shape_runs_as_a_component() {
    let hosts = Hosts::patient();
    let good = |from: &str, to: &str, encoding| {
        let text = std::fs::read_to_string(root().join("tests/guests/good.wat")).unwrap();
        componentize(wat::parse_str(text.replacen(from, to, 1)).unwrap(), "policy", encoding)
    };
    let cases = [
        ("texts in UTF-16", good("", "", StringEncoding::UTF16)),
        (
            "a start function",
            good("(memory", "(func $nothing) (start $nothing) (memory", StringEncoding::UTF8),
        ),
        ("two modules", wat::parse_str(TWO_MODULES).unwrap()),
    ];
    for (name, wasm) in cases {
        // The copy that fresh instances are made from has started already.
        let pair = hosts.load(&reused(name), &wasm).await.unwrap();
        assert!(!pair.flat.is_flat(), "{name}");
        let outcome = pair.ask(&request("localhost", &[])).await;
        assert_eq!(outcome.is_ok(), !name.contains("UTF-16"), "{name}: {outcome:?}");
    }
}

/// The first byte beyond the memory of [`abi_guest`].
const END: u32 = 40 << 16;

/// A guest that does `resolve` before it answers with what lies at 64. Once it is asked, its
/// `cabi_realloc` does `realloc`; `answer` is where the answer is said to be.
fn abi_guest(realloc: &str, resolve: &str, answer: &str, post_return: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
          (import "innkeeper:policy/types@0.1.0" "[resource-drop]request" (func $drop (param i32)))
          (import "innkeeper:policy/types@0.1.0" "[method]request.method" (func $method (param i32 i32)))
          (import "innkeeper:policy/types@0.1.0" "[method]request.scheme" (func $scheme (param i32 i32)))
          (import "innkeeper:policy/types@0.1.0" "[method]request.authority" (func $authority (param i32 i32)))
          (import "innkeeper:policy/types@0.1.0" "[method]request.path" (func $path (param i32 i32)))
          (import "innkeeper:policy/types@0.1.0" "[method]request.query" (func $query (param i32 i32)))
          (import "innkeeper:policy/types@0.1.0" "[method]request.header" (func $header (param i32 i32 i32 i32)))
          (import "innkeeper:policy/types@0.1.0" "[method]request.headers" (func $headers (param i32 i32)))
          (import "innkeeper:policy/types@0.1.0" "[method]request.peer" (func $peer (param i32 i32)))
          (import "innkeeper:policy/types@0.1.0" "[method]request.claims" (func $claims (param i32 i32)))
          (import "innkeeper:policy/directory@0.1.0" "find" (func $find (param i32 i32 i32)))
          (import "innkeeper:policy/kv@0.1.0" "get" (func $get (param i32 i32 i32)))
          (import "innkeeper:policy/log@0.1.0" "write" (func $write (param i32 i32 i32 i32)))
          (memory (export "memory") 40)
          (global $asked (mut i32) (i32.const 0))
          (global $free (mut i32) (i32.const 65536))
          (func (export "cabi_realloc") (param $old i32) (param i32) (param $align i32) (param $size i32) (result i32)
            (local $at i32)
            (if (global.get $asked) (then {realloc}))
            (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
            (global.set $free (i32.add (local.get $at) (local.get $size)))
            (local.get $at))
          (func (export "configure") (param i32 i32) (result i32) (i32.const 16))
          (func $deeper (param i32) (result i32)
            (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
          ;; Gives the text whose pointer and length are here as the reason.
          (func $tell (param i32)
            (i32.store8 (i32.const 100) (i32.const 1))
            (i32.store (i32.const 104) (i32.load (local.get 0)))
            (i32.store (i32.const 108) (i32.load offset=4 (local.get 0))))
          (func (export "cabi_post_resolve") (param i32) {post_return})
          (func (export "resolve") (param $request i32) (result i32)
            (local $text i32) (local $at i32)
            (global.set $free (i32.const 65536))
            (global.set $asked (i32.const 1))
            {resolve}
            {answer})
          (data (i32.const 72) "\00\01\00\00\04\00\00\00")
          (data (i32.const 256) "acme\ff\fewarn")
          (data (i32.const 300) "x-api-key x-empty x-answer"))"#
    );
    componentize(wat::parse_str(module).unwrap(), "policy", StringEncoding::UTF8)
}

const HERE: &str = "i32.const 64";
const DROP: &str = "(call $drop (local.get $request))";

/// A guest with all that it does, and what the first request comes to.
struct AbiCase {
    name: &'static str,
    realloc: String,
    resolve: String,
    answer: String,
    post_return: String,
    class: Option<FailureClass>,
}

fn case(name: &'static str, class: Option<FailureClass>) -> AbiCase {
    let (realloc, resolve, post_return) = (String::new(), DROP.to_owned(), String::new());
    AbiCase { name, realloc, resolve, answer: HERE.into(), post_return, class }
}

impl AbiCase {
    fn reads(self, what: &str) -> Self {
        Self { resolve: format!("{what} {DROP}"), ..self }
    }

    fn then(self, what: &str) -> Self {
        Self { resolve: format!("{} {what}", self.resolve), ..self }
    }

    fn realloc(self, realloc: &str) -> Self {
        Self { realloc: realloc.into(), ..self }
    }

    fn answers(self, place: i64) -> Self {
        Self { answer: format!("i32.const {place}"), ..self }
    }

    fn cleans_up(self, post_return: &str) -> Self {
        Self { post_return: post_return.into(), ..self }
    }

    fn stores(self, place: u32, value: i64) -> Self {
        self.then(&format!("(i32.store (i32.const {place}) (i32.const {value}))"))
    }
}

/// Reads of the request that are answered with a text, each told as the reason.
fn honest_cases() -> Vec<AbiCase> {
    let tells = |name, call: &str, at: u32| {
        case(name, None).reads(call).then(&format!("(call $tell (i32.const {at}))"))
    };
    let header = |place: u32, length: u32| {
        format!(
            "(call $header (local.get $request) (i32.const {place}) (i32.const {length}) (i32.const 600))"
        )
    };
    let list = "(call $headers (local.get $request) (i32.const 600))";
    vec![
        tells("method", "(call $method (local.get $request) (i32.const 600))", 600),
        tells("scheme", "(call $scheme (local.get $request) (i32.const 600))", 600),
        tells("authority", "(call $authority (local.get $request) (i32.const 600))", 600),
        tells("path", "(call $path (local.get $request) (i32.const 600))", 600),
        tells("query", "(call $query (local.get $request) (i32.const 600))", 604),
        tells("claims", "(call $claims (local.get $request) (i32.const 600))", 604),
        tells("peer", "(call $peer (local.get $request) (i32.const 600))", 600),
        tells("header", &header(300, 9), 604),
        tells("an empty header", &header(310, 7), 604),
        tells("a header without a name", &header(END, 0), 604),
        case("the first header", None).reads(list).then("(call $tell (i32.load (i32.const 600)))"),
        case("the last header", None).reads(list).then(
            "(if (i32.load (i32.const 604)) (then (call $tell (i32.sub (i32.add (i32.load (i32.const 600))
               (i32.mul (i32.load (i32.const 604)) (i32.const 16))) (i32.const 8)))))",
        ),
        tells("a tenant", "(call $find (i32.const 256) (i32.const 4) (i32.const 600))", 612),
        tells("no tenant's id", "(call $find (i32.const 256) (i32.const 0) (i32.const 600))", 604),
        tells("an entry", "(call $get (i32.const 256) (i32.const 4) (i32.const 600))", 604),
        tells("no entry", "(call $get (i32.const 256) (i32.const 3) (i32.const 600))", 604),
        case("a line", None)
            .reads("(call $write (i32.const 262) (i32.const 4) (i32.const 256) (i32.const 4))"),
        case("the last place that an answer fits", None)
            .reads(&format!("(call $path (local.get $request) (i32.const {}))", END - 8)),
        case("room at the very end for nothing", None)
            .realloc(&format!("(return (i32.const {END}))"))
            .reads("(call $header (local.get $request) (i32.const 310) (i32.const 7) (i32.const 600))"),
        case("room at the very start", None)
            .realloc("(return (i32.const 0))")
            .reads("(call $path (local.get $request) (i32.const 600))")
            .then("(call $tell (i32.const 600))"),
        case("room in memory that was just grown", None)
            .realloc("(return (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)))")
            .reads("(call $path (local.get $request) (i32.const 600))")
            .then("(call $tell (i32.const 600))"),
        case("room where the answer goes", None)
            .realloc("(return (i32.const 600))")
            .reads("(call $path (local.get $request) (i32.const 600))")
            .stores(612, 4)
            .then("(i32.store (i32.const 608) (i32.const 600)) (call $tell (i32.const 608))"),
        case("it cleans up", None).cleans_up("(i32.store (i32.const 72) (i32.const 1))"),
    ]
}

/// What breaks a rule of the canonical ABI.
fn hostile_cases() -> Vec<AbiCase> {
    use FailureClass::{BadResult, Memory, StackOverflow, Trap};
    let path = "(call $path (local.get $request) (i32.const 600))";
    let headers = "(call $headers (local.get $request) (i32.const 600))";
    let bad = |name| case(name, Some(BadResult));
    let room = |name, realloc: &str| bad(name).realloc(&format!("(return (i32.const {realloc}))"));
    let place =
        |name, place: i64| bad(name).reads(&format!("(call $path (local.get $request) (i32.const {place}))"));
    let named = |name, place: i64, length: i64| {
        bad(name).reads(&format!(
            "(call $header (local.get $request) (i32.const {place}) (i32.const {length}) (i32.const 600))"
        ))
    };
    let handle =
        |name, handle: i64| bad(name).reads(&format!("(call $path (i32.const {handle}) (i32.const 600))"));
    let end = i64::from(END);
    vec![
        room("room beyond the end", "-1").reads(path),
        room("room across the end", &(END - 3).to_string()).reads(path),
        room("room beyond the end for nothing", &(END + 1).to_string())
            .reads("(call $header (local.get $request) (i32.const 310) (i32.const 7) (i32.const 600))"),
        room("room for a list that is not aligned", "70001").reads(headers),
        room("room for a list across the end", &(END - 4).to_string()).reads(headers),
        case("realloc traps", Some(Trap)).realloc("unreachable").reads(path),
        case("realloc recurses", Some(StackOverflow))
            .realloc("(return (call $deeper (i32.const 0)))")
            .reads(path),
        case("realloc logs", Some(Trap))
            .realloc("(call $write (i32.const 262) (i32.const 4) (i32.const 256) (i32.const 4))")
            .reads(path),
        case("realloc drops the request", Some(Trap)).realloc("(call $drop (i32.const 1))").reads(path),
        case("realloc asks the directory", Some(Trap))
            .realloc("(call $find (i32.const 256) (i32.const 4) (i32.const 700))")
            .reads(path),
        case("realloc takes all memory", Some(Memory))
            .realloc("(drop (memory.grow (i32.const 1000))) unreachable")
            .reads(path),
        place("an answer's place is not aligned", 602),
        place("an answer's place is beyond the end", -4),
        place("an answer's place is across the end", end - 4),
        bad("a list's place is across the end")
            .reads(&format!("(call $headers (local.get $request) (i32.const {}))", end - 4)),
        bad("an option's place is across the end")
            .reads(&format!("(call $query (local.get $request) (i32.const {}))", end - 8)),
        bad("a tenant's place is across the end")
            .reads(&format!("(call $find (i32.const 256) (i32.const 4) (i32.const {}))", end - 16)),
        named("a name of 2^32-1 bytes", 0, -1),
        named("a name at 2^32-1", -1, 1),
        named("a name across the end", end - 1, 2),
        named("an empty name beyond the end", end + 1, 0),
        named("a name that is not text", 260, 2),
        named("a name of more than 1 MiB", 65_536, (1 << 20) + 1),
        bad("a key that is not text").reads("(call $find (i32.const 260) (i32.const 2) (i32.const 600))"),
        bad("an entry's key that is not text")
            .reads("(call $get (i32.const 260) (i32.const 2) (i32.const 600))"),
        bad("an entry's place is across the end")
            .reads(&format!("(call $get (i32.const 256) (i32.const 4) (i32.const {}))", end - 8)),
        bad("a line that is not text")
            .reads("(call $write (i32.const 262) (i32.const 4) (i32.const 260) (i32.const 2))"),
        bad("a level beyond the end").reads(&format!(
            "(call $write (i32.const {}) (i32.const 4) (i32.const 256) (i32.const 2))",
            end - 3
        )),
        bad("a line of more than 1 MiB").reads(&format!(
            "(call $write (i32.const 262) (i32.const 4) (i32.const 65536) (i32.const {}))",
            (1 << 20) - 3
        )),
        handle("the handle 0", 0),
        handle("a handle that was never given", 2),
        handle("the handle 2^32-1", -1),
        bad("a handle after it was dropped").then(path),
        bad("a handle that was never given is dropped").then("(call $drop (i32.const 7))"),
        bad("the request is dropped twice").then(DROP),
        AbiCase { resolve: String::new(), ..bad("the request is kept") },
        bad("an answer that is not aligned").answers(66),
        bad("an answer beyond the end").answers(-4),
        bad("an answer across the end").answers(end - 44),
        bad("a result's third case").stores(64, 2),
        bad("a decision's fourth case").stores(68, 3),
        bad("an option's third case").stores(100, 2),
        bad("a tenant of 2^32-1 bytes").stores(76, -1),
        bad("headers beyond the end").stores(80, -4).stores(84, 1),
        bad("2^28 headers").stores(84, 1 << 28),
        bad("more headers than may be copied").stores(80, 65_536).stores(84, 22_000),
        bad("headers that are not aligned").stores(80, 65_538).stores(84, 1),
        bad("no headers, not aligned").stores(80, 3),
        bad("an error text that is not text").stores(64, 1).stores(68, 260).stores(72, 2),
        case("cleaning up traps", Some(Trap)).cleans_up("unreachable"),
        case("cleaning up logs", Some(Trap))
            .cleans_up("(call $write (i32.const 262) (i32.const 4) (i32.const 256) (i32.const 4))"),
        case("cleaning up drops the request", Some(Trap)).cleans_up("(call $drop (local.get 0))"),
    ]
}

#[tokio::test]
async fn every_rule_of_the_canonical_abi_is_kept() {
    let hosts = Hosts::patient();
    let asked = request("shop.example", &[("x-api-key", "k-1"), ("x-empty", ""), ("x-api-key", "ä")]);
    for case in honest_cases().into_iter().chain(hostile_cases()) {
        let wasm = abi_guest(&case.realloc, &case.resolve, &case.answer, &case.post_return);
        for settings in [plugin(case.name), reused(case.name)] {
            let pair = hosts.load(&settings, &wasm).await.unwrap();
            assert!(pair.flat.is_flat(), "{}", case.name);
            assert_eq!(pair.flat.starts_configured(), settings.instances == Instances::PerRequest);
            assert_eq!(pair.ask(&asked).await.err(), case.class, "{}", case.name);
            for head in requests() {
                let _ = pair.ask(&head).await;
            }
        }
    }
}

/// A guest whose answer is in the header `x-answer`, half a byte a letter from `a` to `p`.
fn echo() -> Vec<u8> {
    abi_guest(
        "",
        "(call $header (local.get $request) (i32.const 318) (i32.const 8) (i32.const 600))
         (call $drop (local.get $request))
         (local.set $text (i32.load (i32.const 604)))
         (loop $again
           (i32.store8 (i32.add (i32.const 64) (local.get $at))
             (i32.add
               (i32.shl (i32.sub (i32.load8_u (local.get $text)) (i32.const 97)) (i32.const 4))
               (i32.sub (i32.load8_u offset=1 (local.get $text)) (i32.const 97))))
           (local.set $text (i32.add (local.get $text) (i32.const 2)))
           (local.set $at (i32.add (local.get $at) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $at) (i32.const 80))))",
        HERE,
        "",
    )
}

/// An answer of 48 bytes, and 32 behind it that it may point to: a pair that may be a header.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        8 => Just(0_u32),
        4 => 1_u32..4,
        4 => Just(256),
        2 => Just(112),
        2 => 256_u32..330,
        1 => (END - 8)..(END + 8),
        1 => any::<u32>(),
    ];
    let decision = prop_oneof![4 => Just(0_u32), 2 => Just(2), 1 => Just(1), 1 => any::<u32>()];
    let status = prop_oneof![3 => 390_u32..610, 1 => any::<u32>()];
    (prop_oneof![9 => Just(0_u32), 1 => any::<u32>()], decision, status, proptest::collection::vec(word, 17))
        .prop_map(|(result, decision, status, mut words)| {
            if decision == 2 {
                words[0] = status;
            }
            [result, decision].into_iter().chain(words).chain([4]).flat_map(u32::to_le_bytes).collect()
        })
}

#[test]
fn whatever_is_answered_is_read_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hosts = Hosts::patient();
    let pair = runtime.block_on(hosts.load(&plugin("echo"), &echo())).unwrap();
    assert!(pair.flat.is_flat());
    proptest!(ProptestConfig::with_cases(2000), |(answer in answer())| {
        let letters: String =
            answer.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|half| char::from(b'a' + half)).collect();
        let name = HeaderName::from_static("x-answer");
        let _ = runtime.block_on(pair.ask(&request("localhost", &[(name.as_str(), &letters)])));
    });
}
