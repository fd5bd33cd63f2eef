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
                        parameters.push(function?.params().len());
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
fn passes_on(body: &FunctionBody<'_>, kind: u32, parameters: usize) -> Result<u32, Unusual> {
    if body.get_locals_reader()?.get_count() != 0 {
        return Err(OTHER_SHIM);
    }
    let operators = body.get_operators_reader()?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let [
        passed @ ..,
        Operator::I32Const { value },
        Operator::CallIndirect { type_index, table_index },
        Operator::End,
    ] = &operators[..]
    else {
        return Err(OTHER_SHIM);
    };
    let in_order = passed.iter().enumerate().all(
        |(index, operator)| matches!(operator, Operator::LocalGet { local_index } if *local_index as usize == index),
    );
    if in_order && passed.len() == parameters && *type_index == kind && *table_index == 0 {
        u32::try_from(*value).map_err(|_| OTHER_SHIM)
    } else {
        Err(OTHER_SHIM)
    }
}

/// A module that does nothing but fill an imported table with imported functions.
pub(super) struct Fixup<'a> {
    /// The table.
    pub(super) table: (&'a str, &'a str),
    /// Functions by the slot that they go to.
    pub(super) fills: HashMap<u32, (&'a str, &'a str)>,
}

impl<'a> Fixup<'a> {
    pub(super) fn read(module: &'a [u8]) -> Result<Self, Unusual> {
        let (mut functions, mut tables, mut fills) = (Vec::new(), Vec::new(), HashMap::new());
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
                payload => framing(&payload, OTHER_FIXUP)?,
            }
        }
        match tables[..] {
            [table] => Ok(Self { table, fills }),
            _ => Err(OTHER_FIXUP),
        }
    }
}

const OTHER_FIXUP: Unusual = Unusual::Shape("it has another module that is not a fixup");

fn constant(expression: &ConstExpr<'_>) -> Result<u32, Unusual> {
    let operators = expression.get_operators_reader().into_iter().collect::<Result<Vec<_>, _>>()?;
    match operators[..] {
        [Operator::I32Const { value }, Operator::End] => u32::try_from(value).map_err(|_| OTHER_FIXUP),
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
