//! From a component of the usual shape to one core module: main, with its imports replaced by
//! adapters that are written here.
//!
//! An adapter asks the host for an answer, has the guest's own `realloc` make room for it, and lets
//! the host copy it there. So the host never calls back into the guest, and one call of a plugin is
//! one call of WebAssembly. While `realloc` and `post-return` run, a global says so, and no adapter
//! can be entered: the canonical ABI's `may_leave`.

use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, GlobalSection, GlobalType, ImportSection, InstructionSink,
    MemArg, MemorySection, Module, StartSection, TableSection, TagSection, TypeSection, ValType,
};
use wasmparser::{Parser, Payload};

use super::contract::{Answer, HostFunction};
use super::shape::{Import, Lifted, Shape, Unusual};

/// The name under which the flat module imports everything.
pub(super) const HOST: &str = "host";
/// Copies what the host holds ready to a place, and says how long the next text is, -1 after the
/// last.
pub(super) const TAKE: &str = "take";
/// Hands the place of the pairs to the host, and says how long the first text is.
pub(super) const PLACE_PAIRS: &str = "place-pairs";
/// Gives the host the place of what `configure` answered.
pub(super) const CONFIGURED: &str = "configured";
/// Gives the host the place of what `resolve` answered.
pub(super) const RESOLVED: &str = "resolved";

/// The guest's memory.
pub(super) const MEMORY: &str = "memory";
/// Calls `configure` with a text of this length that the host holds ready.
pub(super) const CONFIGURE: &str = "configure";
/// Calls `resolve`.
pub(super) const RESOLVE: &str = "resolve";

/// The handle that `resolve` is given. An instance has one request at a time, and the first handle
/// of a component is 1.
pub(super) const HANDLE: u32 = 1;

/// What the flat module imports beside the functions of the contract.
const OWN_IMPORTS: [&str; 4] = [TAKE, PLACE_PAIRS, CONFIGURED, RESOLVED];

/// Writes the flat module.
pub(super) fn rewrite(shape: &Shape<'_>) -> Result<Vec<u8>, Unusual> {
    let mut flat = Flat::new(shape);
    for payload in Parser::new(0).parse_all(shape.main) {
        flat.copy(payload?).map_err(|error| Unusual::Rewrite(error.to_string()))?;
    }
    flat.add_imports();
    flat.add_adapters()?;
    flat.add_exports()?;
    Ok(flat.finish())
}

/// The sections of the flat module, as they grow.
struct Flat<'a> {
    shape: &'a Shape<'a>,
    indices: Indices,
    types: TypeSection,
    /// Types so far; a section counts groups of them.
    type_count: u32,
    imports: ImportSection,
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    tags: TagSection,
    globals: GlobalSection,
    elements: ElementSection,
    data_count: Option<DataCountSection>,
    code: CodeSection,
    data: DataSection,
}

/// Where main's functions go: the host's functions come first, then those that main defines, then
/// an adapter for each function that main imports.
struct Indices {
    functions: Vec<HostFunction>,
    imported_by_main: u32,
    defined_by_main: u32,
}

impl Indices {
    fn host(&self) -> u32 {
        count(self.functions.len() + OWN_IMPORTS.len())
    }

    fn of_main(&self, index: u32) -> u32 {
        match index.checked_sub(self.imported_by_main) {
            Some(defined) => self.host() + defined,
            None => self.host() + self.defined_by_main + index,
        }
    }

    fn of_host(&self, function: HostFunction) -> u32 {
        let at = self.functions.iter().position(|known| *known == function);
        count(at.expect("every function that main imports is listed"))
    }

    fn own(&self, name: &str) -> u32 {
        let at = OWN_IMPORTS.iter().position(|known| *known == name);
        count(self.functions.len() + at.expect("only listed names are asked for"))
    }
}

/// Copies main's items with their new indices.
struct Copy<'a>(&'a Indices);

impl Reencode for Copy<'_> {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        Ok(self.0.of_main(function))
    }
}

impl<'a> Flat<'a> {
    fn new(shape: &'a Shape<'a>) -> Self {
        let mut functions: Vec<HostFunction> = Vec::new();
        for import in &shape.imports {
            if !functions.contains(&import.function) {
                functions.push(import.function);
            }
        }
        let indices = Indices { functions, imported_by_main: count(shape.imports.len()), defined_by_main: 0 };
        Self {
            shape,
            indices,
            types: TypeSection::new(),
            type_count: 0,
            imports: ImportSection::new(),
            functions: FunctionSection::new(),
            tables: TableSection::new(),
            memories: MemorySection::new(),
            tags: TagSection::new(),
            globals: GlobalSection::new(),
            elements: ElementSection::new(),
            data_count: None,
            code: CodeSection::new(),
            data: DataSection::new(),
        }
    }

    fn copy(&mut self, payload: Payload<'_>) -> Result<(), Error> {
        let mut copy = Copy(&self.indices);
        match payload {
            Payload::TypeSection(section) => {
                for group in section.clone() {
                    self.type_count += count(group?.types().len());
                }
                copy.parse_type_section(&mut self.types, section)?;
            }
            Payload::FunctionSection(section) => {
                copy.parse_function_section(&mut self.functions, section)?;
                self.indices.defined_by_main = self.functions.len();
            }
            Payload::TableSection(section) => copy.parse_table_section(&mut self.tables, section)?,
            Payload::MemorySection(section) => copy.parse_memory_section(&mut self.memories, section)?,
            Payload::TagSection(section) => copy.parse_tag_section(&mut self.tags, section)?,
            Payload::GlobalSection(section) => copy.parse_global_section(&mut self.globals, section)?,
            Payload::ElementSection(section) => copy.parse_element_section(&mut self.elements, section)?,
            Payload::DataCountSection { count, .. } => self.data_count = Some(DataCountSection { count }),
            Payload::CodeSectionEntry(body) => copy.parse_function_body(&mut self.code, body)?,
            Payload::DataSection(section) => copy.parse_data_section(&mut self.data, section)?,
            // Imports and exports are not copied but replaced; `recognise` saw no start function, and
            // names and notes do nothing.
            Payload::ImportSection(_)
            | Payload::ExportSection(_)
            | Payload::CustomSection(_)
            | Payload::Version { .. }
            | Payload::CodeSectionStart { .. }
            | Payload::End(_) => {}
            _ => return Err(Error::UnexpectedNonCoreModuleSection),
        }
        Ok(())
    }

    /// The type of a function that takes and answers only `i32`.
    fn function_type(&mut self, parameters: u32, results: usize) -> u32 {
        let i32s = |count: usize| std::iter::repeat_n(ValType::I32, count);
        let (parameters, results): (Vec<_>, Vec<_>) =
            (i32s(parameters as usize).collect(), i32s(results).collect());
        self.types.ty().function(parameters, results);
        self.type_count += 1;
        self.type_count - 1
    }

    fn add_imports(&mut self) {
        for function in self.indices.functions.clone() {
            let results = usize::from(function.answer() != Answer::Nothing);
            let kind = self.function_type(function.parameters(), results);
            self.imports.import(HOST, function.name(), EntityType::Function(kind));
        }
        for name in OWN_IMPORTS {
            let results = usize::from([TAKE, PLACE_PAIRS].contains(&name));
            let kind = self.function_type(1, results);
            self.imports.import(HOST, name, EntityType::Function(kind));
        }
    }

    fn add_adapters(&mut self) -> Result<(), Unusual> {
        let busy = self.globals.len();
        let may_leave = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
        self.globals.global(may_leave, &ConstExpr::i32_const(0));
        for import in &self.shape.imports {
            let kind = self.function_type(import.function.parameters(), 0);
            self.functions.function(kind);
            self.code.function(&Adapter::new(&self.indices, busy, *import)?.write());
        }
        Ok(())
    }

    fn add_exports(&mut self) -> Result<(), Unusual> {
        let busy = self.globals.len() - 1;
        let Lifted { function, realloc, post_return } = self.shape.configure;
        let realloc = realloc.ok_or(Unusual::Shape("`configure` has no `realloc`"))?;
        let kind = self.function_type(1, 0);
        let mut body = Function::new([(1, ValType::I32)]);
        let (length, place) = (0, 1);
        let mut code = body.instructions();
        allocate(&mut code, busy, self.indices.of_main(realloc), 1, length, place);
        code.local_get(place).call(self.indices.own(TAKE)).drop();
        code.local_get(place).local_get(length).call(self.indices.of_main(function)).local_set(place);
        code.local_get(place).call(self.indices.own(CONFIGURED));
        clean_up(&mut code, busy, post_return.map(|index| self.indices.of_main(index)), place);
        code.end();
        self.functions.function(kind);
        self.code.function(&body);

        let Lifted { function, post_return, .. } = self.shape.resolve;
        let kind = self.function_type(0, 0);
        let mut body = Function::new([(1, ValType::I32)]);
        let place = 0;
        let mut code = body.instructions();
        code.i32_const(HANDLE.cast_signed()).call(self.indices.of_main(function)).local_set(place);
        code.local_get(place).call(self.indices.own(RESOLVED));
        clean_up(&mut code, busy, post_return.map(|index| self.indices.of_main(index)), place);
        code.end();
        self.functions.function(kind);
        self.code.function(&body);
        Ok(())
    }

    fn finish(self) -> Vec<u8> {
        let last = self.indices.host() + self.functions.len() - 1;
        let mut exports = ExportSection::new();
        exports.export(MEMORY, ExportKind::Memory, 0);
        exports.export(CONFIGURE, ExportKind::Func, last - 1);
        exports.export(RESOLVE, ExportKind::Func, last);
        let mut module = Module::new();
        module.section(&self.types).section(&self.imports).section(&self.functions);
        if !self.tables.is_empty() {
            module.section(&self.tables);
        }
        module.section(&self.memories);
        if !self.tags.is_empty() {
            module.section(&self.tags);
        }
        module.section(&self.globals).section(&exports);
        if let Some(start) = self.shape.start {
            module.section(&StartSection { function_index: self.indices.of_main(start) });
        }
        if !self.elements.is_empty() {
            module.section(&self.elements);
        }
        if let Some(count) = self.data_count {
            module.section(&count);
        }
        module.section(&self.code);
        if !self.data.is_empty() {
            module.section(&self.data);
        }
        module.finish()
    }
}

/// What stands in for one import of main.
struct Adapter {
    function: HostFunction,
    busy: u32,
    asks: u32,
    take: u32,
    place_pairs: u32,
    /// Zero where nothing is put into memory.
    realloc: u32,
    /// The last parameter: where the answer goes.
    answer: u32,
    // Locals.
    length: u32,
    place: u32,
    next: u32,
    count: u32,
    pairs: u32,
}

/// Locals of an adapter beside its parameters.
const LOCALS: u32 = 5;

impl Adapter {
    fn new(indices: &Indices, busy: u32, import: Import) -> Result<Self, Unusual> {
        let Import { function, realloc } = import;
        let realloc = match (realloc, function.answer()) {
            (Some(index), _) => indices.of_main(index),
            (None, Answer::Nothing) => 0,
            (None, _) => return Err(Unusual::Shape("an import that answers has no `realloc`")),
        };
        let first = function.parameters();
        Ok(Self {
            function,
            busy,
            asks: indices.of_host(function),
            take: indices.own(TAKE),
            place_pairs: indices.own(PLACE_PAIRS),
            realloc,
            answer: first - 1,
            length: first,
            place: first + 1,
            next: first + 2,
            count: first + 3,
            pairs: first + 4,
        })
    }

    fn write(&self) -> Function {
        let mut body = Function::new([(LOCALS, ValType::I32)]);
        let mut code = body.instructions();
        code.global_get(self.busy).if_(BlockType::Empty).unreachable().end();
        for parameter in 0..self.function.parameters() {
            code.local_get(parameter);
        }
        code.call(self.asks);
        match self.function.answer() {
            Answer::Nothing => {}
            Answer::Text => {
                code.local_set(self.length);
                self.put_text(&mut code, self.answer, 0);
            }
            Answer::MaybeTexts(texts) => {
                code.local_set(self.length);
                code.local_get(self.answer)
                    .local_get(self.length)
                    .i32_const(-1)
                    .i32_ne()
                    .i32_store8(bytes(0));
                code.local_get(self.length).i32_const(-1).i32_ne().if_(BlockType::Empty);
                for text in 0..texts {
                    self.put_text(&mut code, self.answer, 4 + 8 * text);
                }
                code.end();
            }
            Answer::Pairs => self.put_pairs(&mut code),
        }
        code.end();
        body
    }

    /// Puts the text that the host holds ready into memory, its pointer and length at `base` +
    /// `offset`, and the length of the next one into its local.
    fn put_text(&self, code: &mut InstructionSink<'_>, base: u32, offset: u32) {
        allocate(code, self.busy, self.realloc, 1, self.length, self.place);
        code.local_get(self.place).call(self.take).local_set(self.next);
        code.local_get(base).local_get(self.place).i32_store(word(offset));
        code.local_get(base).local_get(self.length).i32_store(word(offset + 4));
        code.local_get(self.next).local_set(self.length);
    }

    fn put_pairs(&self, code: &mut InstructionSink<'_>) {
        // A pair is two texts, 16 bytes.
        code.local_tee(self.count).i32_const(4).i32_shl().local_set(self.length);
        allocate(code, self.busy, self.realloc, 4, self.length, self.pairs);
        code.local_get(self.pairs).call(self.place_pairs).local_set(self.length);
        // The parameter of the handle is free to walk along the pairs.
        let walk = 0;
        code.local_get(self.pairs).local_set(walk);
        code.block(BlockType::Empty).loop_(BlockType::Empty);
        code.local_get(self.length).i32_const(-1).i32_eq().br_if(1);
        self.put_text(code, walk, 0);
        code.local_get(walk).i32_const(8).i32_add().local_set(walk);
        code.br(0).end().end();
        code.local_get(self.answer).local_get(self.pairs).i32_store(word(0));
        code.local_get(self.answer).local_get(self.count).i32_store(word(4));
    }
}

/// Has the guest make room for as many bytes as the local `size` says.
fn allocate(code: &mut InstructionSink<'_>, busy: u32, realloc: u32, align: i32, size: u32, place: u32) {
    code.i32_const(1).global_set(busy);
    code.i32_const(0).i32_const(0).i32_const(align).local_get(size).call(realloc).local_set(place);
    code.i32_const(0).global_set(busy);
}

/// Lets the guest free what it answered.
fn clean_up(code: &mut InstructionSink<'_>, busy: u32, post_return: Option<u32>, place: u32) {
    if let Some(post_return) = post_return {
        code.i32_const(1).global_set(busy);
        code.local_get(place).call(post_return);
        code.i32_const(0).global_set(busy);
    }
}

fn bytes(offset: u64) -> MemArg {
    MemArg { offset, align: 0, memory_index: 0 }
}

fn word(offset: u32) -> MemArg {
    MemArg { offset: offset.into(), align: 2, memory_index: 0 }
}

fn count(items: usize) -> u32 {
    u32::try_from(items).expect("a module has fewer items than 2^32")
}
