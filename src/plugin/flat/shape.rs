//! The usual shape of a component: what `wit-component` makes of one core module, and nothing else.
//!
//! Such a component has a main module; a shim, whose functions stand in for imports that cannot be
//! lowered before main's memory exists; a fixup, which puts the lowered imports into the shim's
//! table; and perhaps a starter, which calls main's `_initialize` (newer tools have the fixup do
//! it). All index spaces are followed as
//! the binary format has them, so that each of main's imports is known by what it calls in the end.

use std::collections::HashMap;

use wasmparser::{
    BinaryReaderError, CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternalKind,
    ComponentTypeRef, ExternalKind, Instance, Parser, Payload, TypeBounds, TypeRef,
};

use super::contract::{HostFunction, REQUEST, TYPES};
use super::stubs::{Fixup, Shim, Starter};

/// Why a component is not flattened. It runs as it is.
#[derive(Debug, thiserror::Error)]
pub(in crate::plugin) enum Unusual {
    #[error("{0}")]
    Shape(&'static str),
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] BinaryReaderError),
    #[error("it cannot be rewritten: {0}")]
    Rewrite(String),
}

/// A component of the usual shape.
pub(super) struct Shape<'a> {
    /// The main module.
    pub(super) main: &'a [u8],
    /// What main's imported functions do, in their order.
    pub(super) imports: Vec<Import>,
    pub(super) configure: Lifted,
    pub(super) resolve: Lifted,
    /// The function of main that runs when it is instantiated.
    pub(super) start: Option<u32>,
}

/// A function that main imports. Indices are of main's functions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Import {
    pub(super) function: HostFunction,
    pub(super) realloc: Option<u32>,
}

/// A function that the component exports. Indices are of main's functions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifted {
    pub(super) function: u32,
    pub(super) realloc: Option<u32>,
    pub(super) post_return: Option<u32>,
}

/// Finds the usual shape in a component, which must have been validated.
pub(super) fn recognise(wasm: &[u8]) -> Result<Shape<'_>, Unusual> {
    Component::read(wasm)?.shape()
}

/// Where a core function, memory or table of the component comes from.
#[derive(Clone, Copy)]
enum Core<'a> {
    /// An export of a core instance.
    Exported { instance: u32, name: &'a str },
    /// `canon lower`, by its index in [`Component::canonical`].
    Lower(usize),
    /// `resource.drop` of a type.
    Drop(u32),
}

/// Where a function of the component comes from.
#[derive(Clone, Copy)]
enum Func<'a> {
    Imported {
        interface: &'a str,
        name: &'a str,
    },
    /// `canon lift`, by its index in [`Component::canonical`].
    Lift(usize),
}

/// The index spaces of a component.
#[derive(Default)]
struct Component<'a> {
    modules: Vec<&'a [u8]>,
    core_instances: Vec<Instance<'a>>,
    core_funcs: Vec<Core<'a>>,
    core_memories: Vec<Core<'a>>,
    core_tables: Vec<Core<'a>>,
    /// Whether a type is the resource of a request.
    types: Vec<bool>,
    /// Imported instances by their interface, without its version.
    instances: Vec<&'a str>,
    funcs: Vec<Func<'a>>,
    canonical: Vec<CanonicalFunction>,
    exports: HashMap<&'a str, u32>,
}

impl<'a> Component<'a> {
    fn read(wasm: &'a [u8]) -> Result<Self, Unusual> {
        let mut component = Self::default();
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            // What lies inside of a module is read when we know which module it is.
            match payload {
                Payload::End(_) => depth -= i32::from(depth > 0),
                _ if depth > 0 => {}
                Payload::ModuleSection { unchecked_range, .. } => {
                    let module = wasm.get(unchecked_range).ok_or(Unusual::Shape("a module is cut off"))?;
                    component.modules.push(module);
                    depth += 1;
                }
                payload => component.section(payload)?,
            }
        }
        Ok(component)
    }

    fn section(&mut self, payload: Payload<'a>) -> Result<(), Unusual> {
        match payload {
            Payload::Version { .. } | Payload::CustomSection(_) => {}
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.core_instances.push(instance?);
                }
            }
            Payload::ComponentTypeSection(section) => {
                self.types.extend((0..section.count()).map(|_| false));
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    match import.ty {
                        ComponentTypeRef::Instance(_) => self.instances.push(unversioned(import.name.name)),
                        ComponentTypeRef::Type(TypeBounds::Eq(index)) => {
                            let known = self.is_request(index);
                            self.types.push(known);
                        }
                        _ => {
                            return Err(Unusual::Shape("it imports what is neither an interface nor a type"));
                        }
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(&alias?)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    self.canonical(function?)?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    match export.kind {
                        ComponentExternalKind::Func => {
                            let exported = get(&self.funcs, export.index)?;
                            self.funcs.push(exported);
                            self.exports.insert(export.name.name, export.index);
                        }
                        ComponentExternalKind::Type => {
                            let known = self.is_request(export.index);
                            self.types.push(known);
                        }
                        _ => return Err(Unusual::Shape("it exports what is neither a function nor a type")),
                    }
                }
            }
            _ => return Err(Unusual::Shape("it has a section that the usual shape does not have")),
        }
        Ok(())
    }

    fn alias(&mut self, alias: &ComponentAlias<'a>) -> Result<(), Unusual> {
        match *alias {
            ComponentAlias::InstanceExport { kind, instance_index, name } => {
                let interface = get(&self.instances, instance_index)?;
                match kind {
                    ComponentExternalKind::Type => self.types.push((interface, name) == (TYPES, REQUEST)),
                    ComponentExternalKind::Func => self.funcs.push(Func::Imported { interface, name }),
                    _ => return Err(Unusual::Shape("it uses more of an interface than functions and types")),
                }
            }
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                let exported = Core::Exported { instance: instance_index, name };
                match kind {
                    ExternalKind::Func => self.core_funcs.push(exported),
                    ExternalKind::Memory => self.core_memories.push(exported),
                    ExternalKind::Table => self.core_tables.push(exported),
                    _ => return Err(Unusual::Shape("its modules share more than functions and tables")),
                }
            }
            ComponentAlias::Outer { .. } => return Err(Unusual::Shape("it refers to what lies around it")),
        }
        Ok(())
    }

    fn canonical(&mut self, function: CanonicalFunction) -> Result<(), Unusual> {
        let index = self.canonical.len();
        match function {
            CanonicalFunction::Lift { .. } => self.funcs.push(Func::Lift(index)),
            CanonicalFunction::Lower { .. } => self.core_funcs.push(Core::Lower(index)),
            CanonicalFunction::ResourceDrop { resource } => self.core_funcs.push(Core::Drop(resource)),
            _ => return Err(Unusual::Shape("it uses a built-in function of the component model")),
        }
        self.canonical.push(function);
        Ok(())
    }

    fn is_request(&self, index: u32) -> bool {
        self.types.get(index as usize).is_some_and(|known| *known)
    }

    fn shape(&self) -> Result<Shape<'a>, Unusual> {
        let instance = self.main_instance()?;
        let (module, args) = self.instantiated(instance)?;
        let main = Main::read(module, instance)?;
        let stubs = Stubs::find(self, &main)?;
        let imports = main
            .imports
            .iter()
            .map(|(module, name)| {
                self.import(&main, &stubs, self.argument(args, module, name, &self.core_funcs)?)
            })
            .collect::<Result<_, _>>()?;
        Ok(Shape {
            main: module,
            imports,
            configure: self.lifted(&main, "configure")?,
            resolve: self.lifted(&main, "resolve")?,
            start: stubs.start,
        })
    }

    /// The instance that offers `resolve`.
    fn main_instance(&self) -> Result<u32, Unusual> {
        let (core, _) = self.lift("resolve")?;
        match get(&self.core_funcs, core)? {
            Core::Exported { instance, .. } => Ok(instance),
            _ => Err(Unusual::Shape("`resolve` is not a function of a module")),
        }
    }

    fn lift(&self, name: &str) -> Result<(u32, &[CanonicalOption]), Unusual> {
        let index = *self.exports.get(name).ok_or(Unusual::Shape("it does not export our functions"))?;
        let Func::Lift(index) = get(&self.funcs, index)? else {
            return Err(Unusual::Shape("it exports what it imports"));
        };
        match &self.canonical[index] {
            CanonicalFunction::Lift { core_func_index, options, .. } => Ok((*core_func_index, options)),
            _ => unreachable!("only lifts are remembered as lifts"),
        }
    }

    fn lifted(&self, main: &Main<'_>, name: &str) -> Result<Lifted, Unusual> {
        let (core, options) = self.lift(name)?;
        let Options { realloc, post_return } = self.options(main, options)?;
        let function = Self::function_of(main, get(&self.core_funcs, core)?)?;
        Ok(Lifted { function, realloc, post_return })
    }

    /// What an imported function of main does in the end.
    fn import(&self, main: &Main<'_>, stubs: &Stubs<'_>, core: Core<'_>) -> Result<Import, Unusual> {
        let lowered = match core {
            Core::Exported { instance, name } => stubs.behind(instance, name)?,
            direct => direct,
        };
        match lowered {
            Core::Drop(resource) if self.is_request(resource) => {
                Ok(Import { function: HostFunction::DropRequest, realloc: None })
            }
            Core::Drop(_) => Err(Unusual::Shape("it drops a resource that is not a request")),
            Core::Exported { .. } => Err(Unusual::Shape("an import leads through more than one shim")),
            Core::Lower(index) => {
                let CanonicalFunction::Lower { func_index, options } = &self.canonical[index] else {
                    unreachable!("only lowerings are remembered as lowerings")
                };
                let Func::Imported { interface, name } = get(&self.funcs, *func_index)? else {
                    return Err(Unusual::Shape("it calls itself"));
                };
                let function = HostFunction::imported(interface, name)
                    .ok_or(Unusual::Shape("it imports a function that is not of our own interfaces"))?;
                Ok(Import { function, realloc: self.options(main, options)?.realloc })
            }
        }
    }

    fn options(&self, main: &Main<'_>, options: &[CanonicalOption]) -> Result<Options, Unusual> {
        let mut read = Options::default();
        for option in options {
            match *option {
                CanonicalOption::UTF8 => {}
                CanonicalOption::Memory(index) => match get(&self.core_memories, index)? {
                    // A module that is flattened has one memory.
                    Core::Exported { instance, .. } if instance == main.instance => {}
                    _ => return Err(Unusual::Shape("a memory is not that of the main module")),
                },
                CanonicalOption::Realloc(index) => {
                    read.realloc = Some(Self::function_of(main, get(&self.core_funcs, index)?)?);
                }
                CanonicalOption::PostReturn(index) => {
                    read.post_return = Some(Self::function_of(main, get(&self.core_funcs, index)?)?);
                }
                _ => return Err(Unusual::Shape("it uses an option of the component model that is rare")),
            }
        }
        Ok(read)
    }

    /// A core function as main's own index.
    fn function_of(main: &Main<'_>, core: Core<'_>) -> Result<u32, Unusual> {
        match core {
            Core::Exported { instance, name } if instance == main.instance => main.function(name),
            _ => Err(Unusual::Shape("an export is not a function of the main module")),
        }
    }

    /// A module that is instantiated, with its arguments.
    fn instantiated(
        &self,
        instance: u32,
    ) -> Result<(&'a [u8], &[wasmparser::InstantiationArg<'a>]), Unusual> {
        match self.core_instances.get(instance as usize) {
            Some(Instance::Instantiate { module_index, args }) => {
                Ok((get(&self.modules, *module_index)?, args))
            }
            _ => Err(Unusual::Shape("an instance is not one of a module")),
        }
    }

    /// What is handed over to a module as `module` `name`: out of `space` where it is picked one by
    /// one, else whatever the instance that is handed over whole exports under that name.
    fn argument(
        &self,
        args: &[wasmparser::InstantiationArg<'_>],
        module: &str,
        name: &'a str,
        space: &[Core<'a>],
    ) -> Result<Core<'a>, Unusual> {
        const MISSING: Unusual = Unusual::Shape("a module is not handed what it imports");
        let argument = args.iter().find(|argument| argument.name == module).ok_or(MISSING)?;
        match self.core_instances.get(argument.index as usize) {
            Some(Instance::FromExports(exports)) => {
                get(space, exports.iter().find(|export| export.name == name).ok_or(MISSING)?.index)
            }
            Some(Instance::Instantiate { .. }) => Ok(Core::Exported { instance: argument.index, name }),
            None => Err(MISSING),
        }
    }
}

#[derive(Default)]
struct Options {
    realloc: Option<u32>,
    post_return: Option<u32>,
}

/// What the shape needs to know of the main module.
struct Main<'a> {
    instance: u32,
    imports: Vec<(&'a str, &'a str)>,
    exports: HashMap<&'a str, u32>,
}

impl<'a> Main<'a> {
    fn read(module: &'a [u8], instance: u32) -> Result<Self, Unusual> {
        let mut main = Self { instance, imports: Vec::new(), exports: HashMap::new() };
        let mut memories = 0;
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        let TypeRef::Func(_) = import.ty else {
                            return Err(Unusual::Shape("the main module imports more than functions"));
                        };
                        main.imports.push((import.module, import.name));
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory?;
                        memories += 1;
                        if memory.memory64 || memory.shared {
                            return Err(Unusual::Shape("its memory is of 64 bits, or shared"));
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if export.kind == ExternalKind::Func {
                            main.exports.insert(export.name, export.index);
                        }
                    }
                }
                // It would run before the shim's table is filled, and could tell.
                Payload::StartSection { .. } => {
                    return Err(Unusual::Shape("the main module has a start function of its own"));
                }
                _ => {}
            }
        }
        if memories == 1 {
            Ok(main)
        } else {
            Err(Unusual::Shape("the main module has not exactly one memory"))
        }
    }

    fn function(&self, name: &str) -> Result<u32, Unusual> {
        self.exports.get(name).copied().ok_or(Unusual::Shape("the main module lacks an export"))
    }
}

/// The modules beside the main one.
#[derive(Default)]
struct Stubs<'a> {
    shim: Option<(u32, Shim<'a>)>,
    /// Core functions of the component by the slot of the shim's table that they fill.
    filled: HashMap<u32, Core<'a>>,
    start: Option<u32>,
}

impl<'a> Stubs<'a> {
    fn find(component: &Component<'a>, main: &Main<'_>) -> Result<Self, Unusual> {
        let mut stubs = Self::default();
        let others = (0..).zip(&component.core_instances).filter(|(index, instance)| {
            *index != main.instance && matches!(instance, Instance::Instantiate { .. })
        });
        // The order is that of instantiation: a shim comes before main, a fixup and a starter after.
        for (index, _) in others {
            let (module, args) = component.instantiated(index)?;
            if index < main.instance {
                let shim = Shim::read(module)?;
                if stubs.shim.replace((index, shim)).is_some() {
                    return Err(Unusual::Shape("it has more than one shim"));
                }
            } else if let Some(starter) = Starter::read(module)? {
                stubs.start(component, main, args, starter.calls)?;
            } else {
                // A starter that ran before would have found the table empty.
                if !stubs.filled.is_empty() || stubs.start.is_some() {
                    return Err(Unusual::Shape("it fills its table twice, or too late"));
                }
                let fixup = Fixup::read(module)?;
                stubs.fill(component, args, &fixup)?;
                stubs.start(component, main, args, fixup.calls)?;
            }
        }
        Ok(stubs)
    }

    fn start(
        &mut self,
        component: &Component<'a>,
        main: &Main<'_>,
        args: &[wasmparser::InstantiationArg<'_>],
        calls: Option<(&'a str, &'a str)>,
    ) -> Result<(), Unusual> {
        let Some((module, name)) = calls else { return Ok(()) };
        let called = component.argument(args, module, name, &component.core_funcs)?;
        match self.start.replace(Component::function_of(main, called)?) {
            None => Ok(()),
            Some(_) => Err(Unusual::Shape("it starts twice")),
        }
    }

    fn fill(
        &mut self,
        component: &Component<'a>,
        args: &[wasmparser::InstantiationArg<'_>],
        fixup: &Fixup<'a>,
    ) -> Result<(), Unusual> {
        let (module, name) = fixup.table;
        let table = component.argument(args, module, name, &component.core_tables)?;
        match (&self.shim, table) {
            (Some((shim, exports)), Core::Exported { instance, name })
                if instance == *shim && exports.table == Some(name) => {}
            _ => return Err(Unusual::Shape("what is filled is not the table of the shim")),
        }
        for (slot, (module, name)) in &fixup.fills {
            let filled = component.argument(args, module, name, &component.core_funcs)?;
            self.filled.insert(*slot, filled);
        }
        Ok(())
    }

    /// What a function of the shim leads to.
    fn behind(&self, instance: u32, name: &str) -> Result<Core<'a>, Unusual> {
        let slot = match &self.shim {
            Some((shim, exports)) if *shim == instance => exports.slots.get(name),
            _ => None,
        };
        let core = slot.and_then(|slot| self.filled.get(slot).copied());
        core.ok_or(Unusual::Shape("an import leads to another module"))
    }
}

fn get<T: Copy>(items: &[T], index: u32) -> Result<T, Unusual> {
    items.get(index as usize).copied().ok_or(Unusual::Shape("an index leads nowhere"))
}

fn unversioned(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _)| interface)
}
