//! A flat module that notes where it writes, so that its instance can be made as new again.
//!
//! A request leaves two or three places of the memory changed, and putting those back costs a fraction
//! of making another instance. It is as clean as another one because nothing else of it can change:
//! only modules are taken whose instructions write to memory and globals alone, and each instruction
//! that writes to memory notes the part that it writes to before it does.

use std::collections::VecDeque;

use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, ConstExpr, ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType,
    ImportSection, InstructionSink, MemorySection, Module, TypeSection, ValType,
};
use wasmparser::{
    CompositeInnerType, FunctionBody, FunctionSectionReader, Global, GlobalSectionReader,
    ImportSectionReader, MemArg, MemorySectionReader, Operator, Parser, TypeRef, TypeSectionReader,
};

use super::shape::Unusual;

/// The global in which a bit stands for each part of the memory.
pub(super) const WRITTEN: &str = "written";

/// The largest memory of which parts are put back, bytes: room for the stack of 1 MiB that Rust has by
/// itself. Parts of a larger one would be so large that copying a few costs as much as another instance.
const MAX_MEMORY: u64 = 2 << 20;
/// Bytes of a page of WebAssembly.
const PAGE: u64 = 1 << 16;
/// The smallest part, bytes: a page of the system, as a request touches whole ones anyway.
const SMALLEST_PART: u64 = 1 << 12;
/// Parameters and locals that a function may have (WebAssembly's limit for implementations). A function
/// with as many gets more here, and is refused by the compiler: the plugin then runs without notes.
const MOST_LOCALS: u32 = 50_000;
/// What the widest instruction writes, bytes; it may begin in one part and end in the next.
const WIDEST: usize = 8;

/// How a memory is divided, at most 64 parts: a part has two to the power of this many bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Division(u32);

impl Division {
    fn of(pages: u64) -> Option<Self> {
        let bytes = pages.checked_mul(PAGE).filter(|bytes| (1..=MAX_MEMORY).contains(bytes))?;
        let part = (bytes / u64::from(u64::BITS)).next_power_of_two().max(SMALLEST_PART);
        Some(Self(part.trailing_zeros()))
    }

    /// The parts in which these bytes are.
    pub(super) fn parts(self, place: usize, length: usize) -> u64 {
        let part = |place: usize| u32::try_from(place >> self.0).unwrap_or(u32::MAX).min(u64::BITS - 1);
        (u64::MAX << part(place)) & (u64::MAX >> (u64::BITS - 1 - part(place.saturating_add(length))))
    }

    /// Puts these parts of a memory back to what they were.
    pub(super) fn put_back(self, mut parts: u64, memory: &mut [u8], image: &[u8]) {
        while parts != 0 {
            let from = (parts.trailing_zeros() as usize) << self.0;
            // What began in the part may have ended in the next one.
            let to = (from + (1 << self.0) + WIDEST).min(memory.len());
            if from < to {
                memory[from..to].copy_from_slice(&image[from..to]);
            }
            parts &= parts - 1;
        }
    }
}

/// Has a flat module note what it writes. It exports every global that can change, the one with the
/// notes as [`WRITTEN`].
pub(super) fn noting(flat: &[u8]) -> Result<(Vec<u8>, Division), Unusual> {
    let mut notes = Notes::default();
    let mut module = Module::new();
    notes.parse_core_module(&mut module, Parser::new(0), flat).map_err(|error| match error {
        Error::UserError(unusual) => unusual,
        error => Unusual::Rewrite(error.to_string()),
    })?;
    Ok((module.finish(), notes.division))
}

#[derive(Default)]
struct Notes {
    division: Division,
    /// The index of the global with the notes.
    written: u32,
    /// The globals that can change.
    mutable: Vec<u32>,
    /// Parameters of the function types, and the types of the functions whose bodies are to come.
    parameters: Vec<usize>,
    functions: VecDeque<u32>,
}

type Outcome = Result<(), Error<Unusual>>;

fn unfit<T>(why: &'static str) -> Result<T, Error<Unusual>> {
    Err(Error::UserError(Unusual::Shape(why)))
}

impl Reencode for Notes {
    type Error = Unusual;

    fn parse_type_section(&mut self, types: &mut TypeSection, section: TypeSectionReader<'_>) -> Outcome {
        for group in section.clone() {
            for kind in group?.types() {
                let CompositeInnerType::Func(function) = &kind.composite_type.inner else {
                    return unfit("it has types that are not functions");
                };
                self.parameters.push(function.params().len());
            }
        }
        utils::parse_type_section(self, types, section)
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: ImportSectionReader<'_>,
    ) -> Outcome {
        for import in section.clone().into_imports() {
            if !matches!(import?.ty, TypeRef::Func(_)) {
                return unfit("it imports what is not a function");
            }
        }
        utils::parse_import_section(self, imports, section)
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Outcome {
        for kind in section.clone() {
            self.functions.push_back(kind?);
        }
        utils::parse_function_section(self, functions, section)
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: MemorySectionReader<'_>,
    ) -> Outcome {
        for (index, memory) in section.clone().into_iter().enumerate() {
            let memory = memory?;
            let plain = index == 0 && !memory.memory64 && !memory.shared && memory.page_size_log2.is_none();
            match Division::of(memory.initial) {
                Some(division) if plain => self.division = division,
                _ => return unfit("its memory is none, too large, or of another kind"),
            }
        }
        utils::parse_memory_section(self, memories, section)
    }

    fn parse_global(&mut self, globals: &mut GlobalSection, global: Global<'_>) -> Outcome {
        use wasmparser::ValType::{F32, F64, I32, I64};
        if global.ty.mutable {
            if !matches!(global.ty.content_type, I32 | I64 | F32 | F64) {
                return unfit("a global of it that can change is not a number");
            }
            self.mutable.push(globals.len());
        }
        utils::parse_global(self, globals, global)
    }

    fn parse_global_section(
        &mut self,
        globals: &mut GlobalSection,
        section: GlobalSectionReader<'_>,
    ) -> Outcome {
        utils::parse_global_section(self, globals, section)?;
        self.written = globals.len();
        let notes = GlobalType { val_type: ValType::I64, mutable: true, shared: false };
        globals.global(notes, &ConstExpr::i64_const(0));
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Outcome {
        utils::parse_export_section(self, exports, section)?;
        exports.export(WRITTEN, ExportKind::Global, self.written);
        for index in &self.mutable {
            exports.export(&format!("global-{index}"), ExportKind::Global, *index);
        }
        Ok(())
    }

    fn start_section(&mut self, _: u32) -> Result<u32, Error<Unusual>> {
        unfit("it has a start function")
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Outcome {
        let parameters = self.functions.pop_front().and_then(|kind| self.parameters.get(kind as usize));
        let Some(parameters) = parameters else { return unfit("a function of it has no type") };
        let (mut locals, mut first) = (Vec::new(), u32::try_from(*parameters).unwrap_or(u32::MAX));
        for local in body.get_locals_reader()? {
            let (count, kind) = local?;
            first = first.saturating_add(count).min(MOST_LOCALS);
            locals.push((count, self.val_type(kind)?));
        }
        let noting = Noting { division: self.division, written: self.written, first };
        locals.extend(Noting::LOCALS);
        let mut function = Function::new(locals);
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            if !is_known(&operator) {
                return unfit("an instruction of it may change what is neither memory nor global");
            }
            noting.before(&operator, &mut function.instructions());
            function.instruction(&self.instruction(operator)?);
        }
        code.function(&function);
        Ok(())
    }
}

/// Whether nothing but memory and globals can be changed by an instruction, and nothing that
/// [`Noting::before`] does not see. What later versions of WebAssembly bring is not known.
fn is_known(operator: &Operator<'_>) -> bool {
    macro_rules! known {
        ($(@$proposal:ident $name:ident $({ $($field:ident: $kind:ty),* })? => $visit:ident ($($note:tt)*))*) => {
            match operator {
                $(Operator::$name { .. } => known!(proposal $proposal),)*
                _ => false,
            }
        };
        (proposal mvp) => { true };
        (proposal sign_extension) => { true };
        (proposal saturating_float_to_int) => { true };
        (proposal bulk_memory) => { true };
        (proposal $other:ident) => { false };
    }
    let reaches_further = matches!(
        operator,
        Operator::MemoryInit { .. }
            | Operator::DataDrop { .. }
            | Operator::TableInit { .. }
            | Operator::ElemDrop { .. }
            | Operator::TableCopy { .. }
    );
    !reaches_further && wasmparser::for_each_operator!(known)
}

/// Writes the notes of one function.
struct Noting {
    division: Division,
    written: u32,
    /// The first of its own locals.
    first: u32,
}

impl Noting {
    const LOCALS: [(u32, ValType); 4] =
        [(3, ValType::I32), (1, ValType::I64), (1, ValType::F32), (1, ValType::F64)];

    /// What comes before an instruction, so that it is noted if it writes to memory. It may write
    /// nothing in the end, because it traps; then the instance is thrown away.
    fn before(&self, operator: &Operator<'_>, code: &mut InstructionSink<'_>) {
        let [place, i32, length, i64, f32, f64] = [0, 1, 2, 3, 4, 5].map(|local| self.first + local);
        match operator {
            Operator::I32Store { memarg }
            | Operator::I32Store8 { memarg }
            | Operator::I32Store16 { memarg } => self.store(code, place, i32, memarg),
            Operator::I64Store { memarg }
            | Operator::I64Store8 { memarg }
            | Operator::I64Store16 { memarg }
            | Operator::I64Store32 { memarg } => self.store(code, place, i64, memarg),
            Operator::F32Store { memarg } => self.store(code, place, f32, memarg),
            Operator::F64Store { memarg } => self.store(code, place, f64, memarg),
            Operator::MemoryFill { .. } | Operator::MemoryCopy { .. } => {
                let what = i32;
                code.local_set(length).local_set(what).local_tee(place);
                self.range(code, place, length);
                code.local_get(what).local_get(length);
            }
            _ => {}
        }
    }

    /// Notes the part where a value is stored: `written |= 1 << (place + offset >> division)`. A sum
    /// that is too large traps in the end.
    fn store(&self, code: &mut InstructionSink<'_>, place: u32, value: u32, memarg: &MemArg) {
        let offset = u32::try_from(memarg.offset).unwrap_or(u32::MAX);
        code.local_set(value).local_tee(place);
        code.global_get(self.written).i64_const(1).local_get(place);
        if offset != 0 {
            code.i32_const(offset.cast_signed()).i32_add();
        }
        self.part(code);
        code.i64_shl().i64_or().global_set(self.written);
        code.local_get(value);
    }

    /// Notes every part from the first to the last byte: `written |= ((2 << last - first) - 1) << first`.
    /// Where the length is none, that may be parts in which nothing changes.
    fn range(&self, code: &mut InstructionSink<'_>, place: u32, length: u32) {
        code.global_get(self.written).i64_const(2);
        code.local_get(place).local_get(length).i32_add().i32_const(1).i32_sub();
        self.part(code);
        code.local_get(place);
        self.part(code);
        code.i64_sub().i64_shl().i64_const(1).i64_sub();
        code.local_get(place);
        self.part(code);
        code.i64_shl().i64_or().global_set(self.written);
    }

    /// From a place to the number of its part.
    fn part(&self, code: &mut InstructionSink<'_>) {
        code.i32_const(self.division.0.cast_signed()).i32_shr_u().i64_extend_i32_u();
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use wasmtime::{Engine, Instance, Memory, Store};

    use super::*;

    /// Every instruction that writes to memory; what it writes differs from what was there in every bit.
    const WRITERS: [(&str, &str); 11] = [
        ("i32.store8", "(i32.const -1)"),
        ("i32.store16", "(i32.const -1)"),
        ("i32.store", "(i32.const -1)"),
        ("i64.store8", "(i64.const -1)"),
        ("i64.store16", "(i64.const -1)"),
        ("i64.store32", "(i64.const -1)"),
        ("i64.store", "(i64.const -1)"),
        ("f32.store", "(f32.const -nan:0x7fffff)"),
        ("f64.store", "(f64.const -nan:0xfffffffffffff)"),
        ("memory.fill", "(i32.const 255) (local.get 1)"),
        ("memory.copy", "(i32.const 65536) (local.get 1)"),
    ];
    const PAGES: u32 = 5;
    const BYTES: u32 = PAGES << 16;

    /// A module with a function for each writer, which takes place and length, at three offsets.
    fn writers() -> Vec<u8> {
        let mut text =
            format!("(module (memory (export \"memory\") {PAGES}) (global (mut i32) (i32.const 7))");
        for (index, (name, rest)) in WRITERS.iter().enumerate() {
            for offset in [0, 3, 70_000] {
                let written = if name.starts_with("memory") {
                    format!("({name} (i32.add (local.get 0) (i32.const {offset})) {rest})")
                } else {
                    format!("({name} offset={offset} (local.get 0) {rest})")
                };
                let kind = "(param i32 i32) (local i64)";
                write!(text, "(func (export \"{index}-{offset}\") {kind} {written})").unwrap();
            }
        }
        wat::parse_str(
            text + "(data (i32.const 65536) \"\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff\"))",
        )
        .unwrap()
    }

    fn start() -> (Division, Store<()>, Instance, Memory) {
        // Compiled once: it takes longer than all that is done with it.
        static WRITERS: LazyLock<(wasmtime::Module, Division)> = LazyLock::new(|| {
            let (wasm, division) = noting(&writers()).unwrap();
            (wasmtime::Module::new(&Engine::default(), wasm).unwrap(), division)
        });
        let (module, division) = &*WRITERS;
        let mut store = Store::new(module.engine(), ());
        let instance = Instance::new(&mut store, module, &[]).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        (*division, store, instance, memory)
    }

    fn any_write() -> impl Strategy<Value = (String, u32, u32)> {
        let near_an_edge =
            (0..BYTES >> 12, 0..24u32).prop_map(|(page, near)| (page << 12) + near - near.min(12));
        let place = prop_oneof![near_an_edge, 0..BYTES];
        let length = prop_oneof![0..3u32, 0..20_000u32, Just(4096), Just(BYTES)];
        (0..WRITERS.len(), prop_oneof![Just(0), Just(3), Just(70_000)], place, length)
            .prop_map(|(index, offset, place, length)| (format!("{index}-{offset}"), place, length))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_noted_is_all_that_was_written(writes in prop::collection::vec(any_write(), 1..6)) {
            let (division, mut store, instance, memory) = start();
            let image = memory.data(&store).to_vec();
            for (function, place, length) in writes {
                let function = instance.get_typed_func::<(u32, u32), ()>(&mut store, &function).unwrap();
                // Out of bounds it traps, and has written nothing.
                let _ = function.call(&mut store, (place, length));
            }
            let written = instance.get_global(&mut store, WRITTEN).unwrap();
            let parts = written.get(&mut store).unwrap_i64().cast_unsigned();
            division.put_back(parts, memory.data_mut(&mut store), &image);
            prop_assert!(*memory.data(&store) == *image);
        }
    }

    #[test]
    fn a_store_notes_one_part_and_a_range_all_of_its_parts() {
        let (division, mut store, instance, _) = start();
        assert_eq!(division.0, 13, "320 KiB are 40 parts of 8 KiB");
        let written = instance.get_global(&mut store, WRITTEN).unwrap();
        for (function, place, length, parts) in [
            ("2-0", 8191, 0, 1),
            ("2-3", 8189, 0, 0b10),
            ("9-0", 8191, 2, 0b11),
            ("9-0", 0, BYTES, (1 << 40) - 1),
            ("10-0", 8192, 8192, 0b10),
        ] {
            written.set(&mut store, 0i64.into()).unwrap();
            let writes = instance.get_typed_func::<(u32, u32), ()>(&mut store, function).unwrap();
            writes.call(&mut store, (place, length)).unwrap();
            assert_eq!(written.get(&mut store).unwrap_i64(), parts, "{function} {place}");
        }
        for (place, length, parts) in [(0, 1, 1), (8191, 1, 0b11), (8192, 8191, 0b10), (BYTES, 0, 1 << 40)] {
            assert_eq!(division.parts(place as usize, length), parts, "{place}");
        }
        assert_eq!(division.parts(usize::MAX, usize::MAX), 1 << 63);
    }

    #[test]
    fn globals_that_can_change_are_exported_and_others_are_not() {
        let text = r#"(module (memory 1) (global i32 (i32.const 1)) (global (mut i64) (i64.const 2))
            (global (mut f64) (f64.const 3)) (export "memory" (memory 0)))"#;
        let (wasm, _) = noting(&wat::parse_str(text).unwrap()).unwrap();
        let module = wasmtime::Module::new(&Engine::default(), wasm).unwrap();
        let exports: Vec<_> = module.exports().map(|export| export.name()).collect();
        assert_eq!(exports, ["memory", WRITTEN, "global-1", "global-2"]);
    }

    #[test]
    fn what_may_change_anything_else_is_not_taken() {
        let refused = |text: &str| {
            let text = format!("(module {text})");
            noting(&wat::parse_str(&text).unwrap()).map(|_| ()).unwrap_err().to_string()
        };
        for body in [
            "(table.set 0 (i32.const 0) (ref.null func))",
            "(drop (table.grow 0 (ref.null func) (i32.const 1)))",
            "(table.fill 0 (i32.const 0) (ref.null func) (i32.const 1))",
            "(table.copy (i32.const 0) (i32.const 1) (i32.const 1))",
            "(table.init 0 (i32.const 0) (i32.const 0) (i32.const 1))",
            "(elem.drop 0)",
            "(memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1))",
            "(data.drop 0)",
            "(v128.store (i32.const 0) (v128.const i64x2 1 2))",
            "(i32.atomic.store (i32.const 0) (i32.const 1))",
            "(return_call 0)",
            "(throw 0)",
        ] {
            let text = format!(
                "(memory 1) (table 2 funcref) (tag) (elem func 0) (data \"x\") (func (param) {body})"
            );
            assert!(refused(&text).contains("an instruction"), "{body}");
        }
        assert!(refused("(memory 1) (func) (start 0)").contains("start function"));
        assert!(refused("(memory 1) (global (mut funcref) (ref.null func))").contains("not a number"));
        for memory in ["(memory 0)", "(memory 33)", "(memory i64 1)", "(memory 1) (memory 1)"] {
            assert!(refused(memory).contains("its memory"), "{memory}");
        }
        for import in ["(memory 1)", "(global (mut i32))", "(table 1 funcref)"] {
            assert!(
                refused(&format!("(import \"a\" \"b\" {import})")).contains("not a function"),
                "{import}"
            );
        }
        assert!(refused("(memory 1) (type (struct))").contains("not functions"));
    }
}
