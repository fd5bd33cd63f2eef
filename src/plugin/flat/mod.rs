//! A component of the usual shape, run as one core module.
//!
//! `wit-component` makes three core modules and a component of one: instantiating all of them, and
//! dropping them, was nine tenths of what a fresh instance cost. Here the three become one again,
//! and we speak the canonical ABI ourselves, for the one world that we serve. Whatever has another
//! shape runs as a component; both ways lead to the same decisions and the same classes of failure.

mod abi;
mod contract;
mod host;
mod noting;
mod rewrite;
mod shape;
mod stubs;

use std::sync::{Arc, OnceLock};

use wasmtime::{
    Engine, Extern, ExternType, Global, Instance, InstancePre, Linker, Memory, Module, ModuleExport, Store,
    TypedFunc, Val,
};

use super::bindings::innkeeper::policy::types;
use super::state::State;
use noting::{Division, WRITTEN};
use rewrite::{CONFIGURE, MEMORY, RESOLVE};
use shape::Unusual;

pub(super) use abi::Breach;
pub(super) use host::{Exchange, linker};

fn flatten(wasm: &[u8]) -> Result<Vec<u8>, Unusual> {
    rewrite::rewrite(&shape::recognise(wasm)?)
}

/// A flat module, compiled and linked.
#[derive(Clone)]
pub(super) struct FlatPre {
    pre: InstancePre<State>,
    memory: ModuleExport,
    resolve: ModuleExport,
    renewal: Option<Renewal>,
}

/// What it takes to make an instance as new again.
#[derive(Clone)]
struct Renewal {
    division: Division,
    written: ModuleExport,
    globals: Arc<[ModuleExport]>,
    /// How every instance begins.
    image: Arc<OnceLock<Image>>,
}

struct Image {
    memory: Box<[u8]>,
    globals: Box<[Val]>,
}

impl FlatPre {
    /// Makes a core module of a component that has been validated.
    pub(super) fn new(linker: &Linker<State>, engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Self> {
        Self::link(linker, &Module::new(engine, flatten(wasm)?)?, None)
    }

    /// The same of a component that starts configured. An instance can be made as new again, where it is
    /// known what it can change.
    pub(super) fn renewable(linker: &Linker<State>, engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Self> {
        let flat = flatten(wasm)?;
        let noting = noting::noting(&flat).map_err(wasmtime::Error::from);
        let noting = noting
            .and_then(|(wasm, division)| Self::link(linker, &Module::new(engine, wasm)?, Some(division)));
        noting.or_else(|why| {
            tracing::debug!(target: "innkeeper::plugin", "each request gets another instance: {why:#}");
            Self::link(linker, &Module::new(engine, flat)?, None)
        })
    }

    fn link(linker: &Linker<State>, module: &Module, division: Option<Division>) -> wasmtime::Result<Self> {
        let export = |name| module.get_export_index(name).expect("a flat module has all its exports");
        let (memory, resolve) = (export(MEMORY), export(RESOLVE));
        let renewal = division.map(|division| {
            let globals = module.exports().filter(|export| matches!(export.ty(), ExternType::Global(_)));
            let globals = globals.map(|global| export(global.name())).collect();
            Renewal { division, written: export(WRITTEN), globals, image: Arc::default() }
        });
        Ok(Self { pre: linker.instantiate_pre(module)?, memory, resolve, renewal })
    }

    pub(super) fn engine(&self) -> &Engine {
        self.pre.module().engine()
    }

    pub(super) fn module(&self) -> &Module {
        self.pre.module()
    }

    /// Whether its instances can be made as new again.
    pub(super) fn is_renewable(&self) -> bool {
        self.renewal.is_some()
    }

    pub(super) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<FlatInstance> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let export = |store: &mut Store<State>, export| instance.get_module_export(store, export);
        let memory = export(store, &self.memory).and_then(Extern::into_memory);
        let memory = memory.expect("a flat module exports it");
        store.data_mut().exchange.memory = Some(memory);
        let resolve = export(store, &self.resolve).and_then(Extern::into_func);
        let resolve = resolve.expect("a flat module exports it").typed(&*store)?;
        let renewable = self.renewal.as_ref().map(|renewal| {
            let global = |store: &mut Store<State>, global| {
                let found = instance.get_module_export(store, global).and_then(Extern::into_global);
                found.expect("a module that notes what it writes exports it")
            };
            let globals: Box<[Global]> =
                renewal.globals.iter().map(|exported| global(&mut *store, exported)).collect();
            store.data_mut().exchange.division = renewal.division;
            renewal.image.get_or_init(|| Image {
                memory: memory.data(&*store).into(),
                globals: globals.iter().map(|global| global.get(&mut *store)).collect(),
            });
            Renewable {
                written: global(&mut *store, &renewal.written),
                globals,
                division: renewal.division,
                image: Arc::clone(&renewal.image),
            }
        });
        Ok(FlatInstance { instance, resolve, memory, renewable })
    }
}

/// An instance of a flat module.
pub(super) struct FlatInstance {
    instance: Instance,
    resolve: TypedFunc<(), ()>,
    memory: Memory,
    renewable: Option<Renewable>,
}

/// An instance that notes what it writes.
struct Renewable {
    written: Global,
    /// All that can change, the one with the notes among them.
    globals: Box<[Global]>,
    division: Division,
    image: Arc<OnceLock<Image>>,
}

impl FlatInstance {
    pub(super) async fn configure(
        &self,
        store: &mut Store<State>,
        config: &str,
    ) -> wasmtime::Result<Result<(), String>> {
        let configure = self.instance.get_typed_func::<i32, ()>(&mut *store, CONFIGURE)?;
        let length = store.data_mut().exchange.ready.hold(config.to_owned())?;
        configure.call_async(&mut *store, length).await?;
        Ok(store.data_mut().exchange.configured.take().expect("the flat module hands its answer over"))
    }

    pub(super) async fn resolve(
        &self,
        store: &mut Store<State>,
    ) -> wasmtime::Result<Result<types::Decision, String>> {
        store.data_mut().exchange.lent = true;
        self.resolve.call_async(&mut *store, ()).await?;
        Ok(store.data_mut().exchange.resolved.take().expect("the flat module hands its answer over"))
    }

    /// Makes the instance as new again after a call that succeeded, where that can be done: its memory,
    /// its globals and what lies ready for it are as they were before any request.
    pub(super) fn renew(&self, store: &mut Store<State>) -> bool {
        let Some(Renewable { written, globals, division, image }) = &self.renewable else { return false };
        let image = image.get().expect("it is made with the first instance");
        let parts = written.get(&mut *store).i64().expect("a bit for each part").cast_unsigned();
        let (memory, state) = self.memory.data_and_store_mut(&mut *store);
        if memory.len() != image.memory.len() {
            return false;
        }
        let exchange = Exchange { memory: Some(self.memory), division: *division, ..Exchange::default() };
        let parts = parts | std::mem::replace(&mut state.exchange, exchange).written;
        division.put_back(parts, memory, &image.memory);
        debug_assert!(*memory == *image.memory, "whatever was written was noted");
        globals.iter().zip(&image.globals).all(|(global, value)| global.set(&mut *store, *value).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the toolchain made of a guest of ours.
    const GUEST: &[u8] = include_bytes!("../../../benches/guests/lazy.wasm");

    #[test]
    fn a_flat_module_is_valid_and_asks_only_the_host() {
        let flat = flatten(GUEST).unwrap();
        let module = Module::new(&Engine::default(), flat).unwrap();
        assert!(module.imports().all(|import| import.module() == "host"));
        let exports: Vec<_> = module.exports().map(|export| export.name()).collect();
        assert_eq!(exports, [MEMORY, CONFIGURE, RESOLVE]);
    }

    #[test]
    fn damage_is_refused_and_panics_nowhere() {
        for length in (0..GUEST.len()).step_by(7) {
            assert!(flatten(&GUEST[..length]).is_err(), "{length} bytes");
        }
        let mut damaged = GUEST.to_vec();
        for place in (8..GUEST.len()).step_by(3) {
            damaged[place] ^= 0x15;
            let _ = flatten(&damaged);
            damaged[place] = GUEST[place];
        }
    }
}
