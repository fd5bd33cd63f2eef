//! The small modules that stand beside the main one, each read to the last instruction: only what
//! they are known to do may be left out of the flat module.

use std::collections::HashMap;

use wasmparser::{
    ConstExpr, ElementItems, ElementKind, ExternalKind, FunctionBody, Operator, Parser, Payload, TypeRef,
};

use super::shape::Unusual;

/// Functions that pass their parameters on through a table.
#[derive(Default)]
pub(super) struct Shim<'a> {
    /// Slots of the table by the names of the functions.
    pub(super) slots: HashMap<&'a str, u32>,
    /// The table's name.
    pub(super) table: Option<&'a str>,
}

impl<'a> Shim<'a> {
    pub(super) fn read(module: &'a [u8]) -> Result<Self, Unusual> {
        let mut shim = Self::default();
        let (mut parameters, mut types, mut exported, mut bodies) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut slots = Vec::new();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(section) => {
                    for function in section.into_iter_err_on_gc_types() {
                        parameters.push(u32::try_from(function?.params().len()).map_err(|_| OTHER_SHIM)?);
                    }
                }
                Payload::FunctionSection(section) => {
                    types = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        match export.kind {
                            ExternalKind::Func => exported.push((export.name, export.index)),
                            ExternalKind::Table => shim.table = Some(export.name),
                            _ => return Err(OTHER_SHIM),
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let kind: u32 = *types.get(bodies).ok_or(OTHER_SHIM)?;
                    let count = *parameters.get(kind as usize).ok_or(OTHER_SHIM)?;
                    slots.push(passes_on(&body, kind, count)?);
                    bodies += 1;
                }
                Payload::TableSection(section) if section.count() == 1 => {}
                payload => framing(&payload, OTHER_SHIM)?,
            }
        }
        for (name, function) in exported {
            shim.slots.insert(name, *slots.get(function as usize).ok_or(OTHER_SHIM)?);
        }
        Ok(shim)
    }
}

const OTHER_SHIM: Unusual = Unusual::Shape("it has another module that is not a shim");

/// The slot of the table that a function calls with its own parameters, if that is all it does.
fn passes_on(body: &FunctionBody<'_>, kind: u32, parameters: u32) -> Result<u32, Unusual> {
    if body.get_locals_reader()?.get_count() != 0 {
        return Err(OTHER_SHIM);
    }
    let mut operators = body.get_operators_reader()?;
    for parameter in 0..parameters {
        match operators.read()? {
            Operator::LocalGet { local_index } if local_index == parameter => {}
            _ => return Err(OTHER_SHIM),
        }
    }
    let Operator::I32Const { value } = operators.read()? else { return Err(OTHER_SHIM) };
    match (operators.read()?, operators.read()?) {
        (Operator::CallIndirect { type_index, table_index: 0 }, Operator::End) if type_index == kind => {
            u32::try_from(value).map_err(|_| OTHER_SHIM)
        }
        _ => Err(OTHER_SHIM),
    }
}

/// A module that does nothing but fill an imported table with imported functions, and perhaps call
/// another one then.
pub(super) struct Fixup<'a> {
    /// The table.
    pub(super) table: (&'a str, &'a str),
    /// Functions by the slot that they go to.
    pub(super) fills: HashMap<u32, (&'a str, &'a str)>,
    /// The function that it calls once the table is filled.
    pub(super) calls: Option<(&'a str, &'a str)>,
}

impl<'a> Fixup<'a> {
    pub(super) fn read(module: &'a [u8]) -> Result<Self, Unusual> {
        let (mut functions, mut tables, mut fills) = (Vec::new(), Vec::new(), HashMap::new());
        let mut start = None;
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(_) => {}
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        match import.ty {
                            TypeRef::Func(_) => functions.push((import.module, import.name)),
                            TypeRef::Table(_) => tables.push((import.module, import.name)),
                            _ => return Err(OTHER_FIXUP),
                        }
                    }
                }
                Payload::ElementSection(section) => {
                    for element in section {
                        let element = element?;
                        let ElementKind::Active { table_index: None | Some(0), offset_expr } = element.kind
                        else {
                            return Err(OTHER_FIXUP);
                        };
                        let ElementItems::Functions(items) = element.items else { return Err(OTHER_FIXUP) };
                        let mut slot = constant(&offset_expr)?;
                        for function in items {
                            let function = functions.get(function? as usize).ok_or(OTHER_FIXUP)?;
                            fills.insert(slot, *function);
                            slot = slot.checked_add(1).ok_or(OTHER_FIXUP)?;
                        }
                    }
                }
                Payload::StartSection { func, .. } => start = Some(func),
                payload => framing(&payload, OTHER_FIXUP)?,
            }
        }
        let calls =
            start.map(|index| functions.get(index as usize).copied().ok_or(OTHER_FIXUP)).transpose()?;
        match tables[..] {
            [table] => Ok(Self { table, fills, calls }),
            _ => Err(OTHER_FIXUP),
        }
    }
}

const OTHER_FIXUP: Unusual = Unusual::Shape("it has another module that is not a fixup");

fn constant(expression: &ConstExpr<'_>) -> Result<u32, Unusual> {
    let mut operators = expression.get_operators_reader();
    match (operators.read()?, operators.read()?) {
        (Operator::I32Const { value }, Operator::End) => u32::try_from(value).map_err(|_| OTHER_FIXUP),
        _ => Err(OTHER_FIXUP),
    }
}

/// A module that does nothing but call an imported function when it is instantiated. Once a plugin's
/// memory has been copied, the call is gone.
pub(super) struct Starter<'a> {
    pub(super) calls: Option<(&'a str, &'a str)>,
}

impl<'a> Starter<'a> {
    /// None where the module does something else.
    pub(super) fn read(module: &'a [u8]) -> Result<Option<Self>, Unusual> {
        let (mut functions, mut start) = (Vec::new(), None);
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(_) => {}
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        let TypeRef::Func(_) = import.ty else { return Ok(None) };
                        functions.push((import.module, import.name));
                    }
                }
                Payload::StartSection { func, .. } => start = Some(func),
                payload => {
                    if framing(&payload, OTHER_FIXUP).is_err() {
                        return Ok(None);
                    }
                }
            }
        }
        let calls =
            start.map(|index| functions.get(index as usize).copied().ok_or(OTHER_FIXUP)).transpose()?;
        Ok(Some(Self { calls }))
    }
}

/// What frames a module and does nothing.
fn framing(payload: &Payload<'_>, otherwise: Unusual) -> Result<(), Unusual> {
    match payload {
        Payload::Version { .. }
        | Payload::CustomSection(_)
        | Payload::CodeSectionStart { .. }
        | Payload::End(_) => Ok(()),
        // Copying the configured memory leaves one in each module.
        Payload::DataSection(section) if section.count() == 0 => Ok(()),
        _ => Err(otherwise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIM: &str = r#"(module
        (type $f (func (param i32 i64)))
        (table (export "$imports") 2 2 funcref)
        (func (export "0") (type $f) local.get 0 local.get 1 i32.const 1 call_indirect (type $f)))"#;

    const FIXUP: &str = r#"(module
        (import "" "0" (func $f (param i32)))
        (import "" "$imports" (table 2 2 funcref))
        (elem (i32.const 1) func $f))"#;

    const STARTER: &str = r#"(module (import "" "" (func $f)) (start $f))"#;

    fn wasm(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn a_shim_does_nothing_but_pass_on() {
        let module = wasm(SHIM);
        let shim = Shim::read(&module).unwrap();
        assert_eq!(shim.slots, HashMap::from([("0", 1)]));
        assert_eq!(shim.table, Some("$imports"));
        for (from, to) in [
            ("local.get 0 local.get 1", "local.get 0 i64.const 7"),
            ("local.get 0 local.get 1", "nop local.get 0 local.get 1"),
            ("(type $f) local", "(type $f) (local i32) local"),
            ("call_indirect (type $f)", "call_indirect (type $f) nop"),
            ("i32.const 1 call", "i32.const -1 call"),
            ("(table", "(memory 1) (table"),
            ("(table", "(global (export \"g\") i32 (i32.const 1)) (table"),
            ("(table", "(import \"\" \"\" (func)) (table"),
        ] {
            let text = SHIM.replace(from, to);
            assert!(Shim::read(&wasm(&text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_fixup_does_nothing_but_fill() {
        let module = wasm(FIXUP);
        let fixup = Fixup::read(&module).unwrap();
        assert_eq!(fixup.table, ("", "$imports"));
        assert_eq!(fixup.fills, HashMap::from([(1, ("", "0"))]));
        assert_eq!(fixup.calls, None);
        let starting = wasm(&FIXUP.replace("(elem", "(start $f) (elem"));
        assert_eq!(Fixup::read(&starting).unwrap().calls, Some(("", "0")));
        for (from, to) in [
            ("(elem (i32.const 1) func $f)", "(elem (i32.const 1) func $f) (func $g) (start $g)"),
            ("(elem (i32.const 1) func $f)", "(elem declare func $f)"),
            ("(elem (i32.const 1) func $f)", "(elem (i32.const 1) funcref (ref.null func))"),
            ("(elem", "(import \"\" \"m\" (memory 1)) (elem"),
            ("(elem", "(import \"\" \"t\" (table 1 funcref)) (elem"),
            ("(elem", "(func) (elem"),
        ] {
            let text = FIXUP.replace(from, to);
            assert!(Fixup::read(&wasm(&text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_starter_does_nothing_but_call() {
        assert_eq!(Starter::read(&wasm(STARTER)).unwrap().unwrap().calls, Some(("", "")));
        assert!(Starter::read(&wasm(FIXUP)).unwrap().is_none());
        let text = STARTER.replace("(start $f)", "(func $g (call $f) (call $f)) (start $g)");
        assert!(Starter::read(&wasm(&text)).unwrap().is_none());
    }
}
