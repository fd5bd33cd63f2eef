//! A lazy request against an eager one: the same guest, the same engine, nothing around them.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::Criterion;
use innkeeper::decision::RequestHead;
use tokio::runtime::Runtime;
use wasmtime::component::{Component, HasSelf, Linker, Resource};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

mod lazy {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "policy",
        imports: { default: trappable },
        exports: { default: async },
        with: { "innkeeper:policy/types.request": crate::styles::Handle },
    });
}

mod eager {
    wasmtime::component::bindgen!({
        path: "benches/guests/eager.wit",
        world: "policy",
        exports: { default: async },
    });
}

/// Stands for the request in the store.
#[expect(unreachable_pub, reason = "the generated bindings name it in public items")]
pub struct Handle;

struct State(Arc<RequestHead>);

fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

impl State {
    fn all_headers(&self) -> Vec<(String, String)> {
        self.0.headers.iter().map(|(name, value)| (name.as_str().into(), text(value))).collect()
    }
}

impl lazy::innkeeper::policy::types::Host for State {}

impl lazy::innkeeper::policy::types::HostRequest for State {
    fn method(&mut self, _: Resource<Handle>) -> wasmtime::Result<String> {
        Ok(self.0.method.as_str().into())
    }
    fn scheme(&mut self, _: Resource<Handle>) -> wasmtime::Result<String> {
        Ok(self.0.scheme.into())
    }
    fn authority(&mut self, _: Resource<Handle>) -> wasmtime::Result<String> {
        Ok(self.0.authority.clone())
    }
    fn path(&mut self, _: Resource<Handle>) -> wasmtime::Result<String> {
        Ok(self.0.uri.path().into())
    }
    fn query(&mut self, _: Resource<Handle>) -> wasmtime::Result<Option<String>> {
        Ok(self.0.uri.query().map(Into::into))
    }
    fn header(&mut self, _: Resource<Handle>, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.0.headers.get(name).map(text))
    }
    fn headers(&mut self, _: Resource<Handle>) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.all_headers())
    }
    fn peer(&mut self, _: Resource<Handle>) -> wasmtime::Result<String> {
        Ok(self.0.peer.to_string())
    }
    fn claims(&mut self, _: Resource<Handle>) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
    fn drop(&mut self, _: Resource<Handle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl lazy::innkeeper::policy::directory::Host for State {
    fn find(&mut self, _: String) -> wasmtime::Result<Option<(String, String)>> {
        Ok(None)
    }
}

impl lazy::innkeeper::policy::kv::Host for State {
    fn get(&mut self, _: String) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl lazy::innkeeper::policy::log::Host for State {
    fn write(&mut self, _: String, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
}

fn engine() -> Engine {
    let mut pool = PoolingAllocationConfig::new();
    pool.linear_memory_keep_resident(1 << 20).table_keep_resident(1 << 20).pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).unwrap()
}

fn store(engine: &Engine, head: &Arc<RequestHead>) -> Store<State> {
    let mut store = Store::new(engine, State(Arc::clone(head)));
    // Nothing ticks here: this deadline is never reached.
    store.set_epoch_deadline(1);
    store
}

fn component(engine: &Engine, style: &str) -> Component {
    let file = Path::new("benches/guests").join(style).with_extension("wasm");
    Component::from_binary(engine, &std::fs::read(file).unwrap()).unwrap()
}

fn eager_request(head: &RequestHead) -> eager::innkeeper::eager::types::Request {
    eager::innkeeper::eager::types::Request {
        method: head.method.as_str().into(),
        scheme: head.scheme.into(),
        authority: head.authority.clone(),
        path: head.uri.path().into(),
        query: head.uri.query().map(Into::into),
        headers: State(Arc::new(head.clone())).all_headers(),
        peer: head.peer.to_string(),
        claims: None,
    }
}

/// Two headers read and all read, each with a fresh instance and with one that is kept.
pub(crate) fn request_styles(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let head = super::request();
    let engine = engine();
    let mut linker = Linker::new(&engine);
    lazy::Policy::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state).unwrap();
    let lazy = lazy::PolicyPre::new(linker.instantiate_pre(&component(&engine, "lazy")).unwrap()).unwrap();
    let eager =
        eager::PolicyPre::new(Linker::new(&engine).instantiate_pre(&component(&engine, "eager")).unwrap())
            .unwrap();
    let mut group = criterion.benchmark_group("request style");

    group.bench_function("instantiate only", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let mut store = store(&engine, &head);
            black_box(lazy.instantiate_async(&mut store).await.unwrap());
        });
    });
    for config in ["two", "all"] {
        group.bench_function(format!("lazy, fresh, reads {config}"), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let mut store = store(&engine, &head);
                let plugin = lazy.instantiate_async(&mut store).await.unwrap();
                if config == "all" {
                    plugin.call_configure(&mut store, config).await.unwrap().unwrap();
                }
                black_box(plugin.call_resolve(&mut store, Resource::new_borrow(0)).await.unwrap().unwrap());
            });
        });
        group.bench_function(format!("eager, fresh, reads {config}"), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let mut store = store(&engine, &head);
                let plugin = eager.instantiate_async(&mut store).await.unwrap();
                if config == "all" {
                    plugin.call_configure(&mut store, config).await.unwrap().unwrap();
                }
                let request = eager_request(&head);
                black_box(plugin.call_resolve(&mut store, &request).await.unwrap().unwrap());
            });
        });

        let mut kept = store(&engine, &head);
        let plugin = runtime.block_on(lazy.instantiate_async(&mut kept)).unwrap();
        runtime.block_on(plugin.call_configure(&mut kept, config)).unwrap().unwrap();
        group.bench_function(format!("lazy, reused, reads {config}"), |bencher| {
            bencher.iter(|| {
                let resolve = plugin.call_resolve(&mut kept, Resource::new_borrow(0));
                black_box(runtime.block_on(resolve).unwrap().unwrap())
            });
        });
        let mut kept = store(&engine, &head);
        let plugin = runtime.block_on(eager.instantiate_async(&mut kept)).unwrap();
        runtime.block_on(plugin.call_configure(&mut kept, config)).unwrap().unwrap();
        group.bench_function(format!("eager, reused, reads {config}"), |bencher| {
            bencher.iter(|| {
                let request = eager_request(&head);
                let resolve = plugin.call_resolve(&mut kept, &request);
                black_box(runtime.block_on(resolve).unwrap().unwrap())
            });
        });
    }
    group.finish();
}
