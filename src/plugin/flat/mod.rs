//! A component of the usual shape, run as one core module.
//!
//! `wit-component` makes three core modules and a component of one: instantiating all of them, and
//! dropping them, was nine tenths of what a fresh instance cost. Here the three become one again,
//! and we speak the canonical ABI ourselves, for the one world that we serve. Whatever has another
//! shape runs as a component; both ways lead to the same decisions and the same classes of failure.

mod abi;
mod contract;
mod host;
mod rewrite;
mod shape;
mod stubs;

use wasmtime::{Engine, Instance, InstancePre, Linker, Module, ModuleExport, Store, TypedFunc};

use super::bindings::innkeeper::policy::types;
use super::state::State;
use rewrite::{CONFIGURE, MEMORY, RESOLVE};
use shape::Unusual;

pub(super) use abi::Breach;
pub(super) use host::{Exchange, linker};

/// Makes a core module of a component that has been validated.
pub(super) fn flatten(wasm: &[u8]) -> Result<Vec<u8>, Unusual> {
    rewrite::rewrite(&shape::recognise(wasm)?)
}

/// A flat module, compiled and linked.
#[derive(Clone)]
pub(super) struct FlatPre {
    pre: InstancePre<State>,
    memory: ModuleExport,
    resolve: ModuleExport,
}

impl FlatPre {
    /// Links a compiled module that [`flatten`] wrote.
    pub(super) fn new(linker: &Linker<State>, module: &Module) -> wasmtime::Result<Self> {
        let export = |name| module.get_export_index(name).expect("a flat module has all its exports");
        let (memory, resolve) = (export(MEMORY), export(RESOLVE));
        Ok(Self { pre: linker.instantiate_pre(module)?, memory, resolve })
    }

    pub(super) fn engine(&self) -> &Engine {
        self.pre.module().engine()
    }

    pub(super) fn module(&self) -> &Module {
        self.pre.module()
    }

    pub(super) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<FlatInstance> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let memory = instance.get_module_export(&mut *store, &self.memory);
        store.data_mut().exchange.memory = memory.and_then(wasmtime::Extern::into_memory);
        let resolve = instance.get_module_export(&mut *store, &self.resolve);
        let resolve = resolve.and_then(wasmtime::Extern::into_func).expect("a flat module exports it");
        Ok(FlatInstance { instance, resolve: resolve.typed(&*store)? })
    }
}

/// An instance of a flat module.
pub(super) struct FlatInstance {
    instance: Instance,
    resolve: TypedFunc<(), ()>,
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
