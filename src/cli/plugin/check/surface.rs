//! What a component asks for and offers, read from its types without running it.

use std::collections::BTreeMap;

use serde::Serialize;
use wit_bindgen_core::wit_parser::{
    Function, Interface, InterfaceId, Resolve, Type, TypeDefKind, WorldId, WorldItem,
};
use wit_component::{DecodedWasm, OutputToString, WitPrinter, decode};

use crate::cli::plugin::contract::Contract;
use crate::plugin::{Access, access};

/// The package that both sides of the contract are written in.
const PACKAGE: &str = "innkeeper:policy";

/// A component's outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Surface {
    /// The contract that it was built for, such as `innkeeper:policy@0.1.0`; none where it imports
    /// nothing of it.
    pub built_for: Option<String>,
    /// The contract of this binary.
    pub served: String,
    /// Interfaces that it imports.
    pub imports: Vec<Import>,
    /// Functions that it exports, as WIT writes them.
    pub exports: Vec<String>,
    /// In what it differs from the contract of this binary, in words.
    pub differences: Vec<String>,
}

/// An interface that a component imports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    /// Its name with its version.
    pub name: String,
    /// What lets the plugin have it: a capability, or nothing.
    pub capability: Option<&'static str>,
    /// Whether no plugin gets it.
    pub refused: bool,
}

impl Surface {
    /// Reads a component's types.
    ///
    /// # Errors
    /// When it is no component, or one that cannot be described.
    pub fn read(component: &[u8]) -> Result<Self, String> {
        let (resolve, world) = match decode(component).map_err(|error| format!("{error:#}"))? {
            DecodedWasm::Component(resolve, world) => (resolve, world),
            DecodedWasm::WitPackage(..) => return Err("it is a package of interfaces, not code".into()),
        };
        let theirs = Side { resolve: &resolve, world };
        let contract = Contract::current();
        let ours = Side { resolve: &contract.resolve, world: contract.world };
        Ok(Self {
            built_for: theirs.contract(),
            served: ours.contract().expect("the contract imports its own interfaces"),
            imports: theirs.interfaces().map(|(name, _)| import(name)).collect(),
            exports: theirs.exports().map(|(_, function)| theirs.function(function)).collect(),
            differences: differences(&theirs, &ours),
        })
    }
}

fn import(name: String) -> Import {
    let interface = name.split('@').next().unwrap_or_default();
    let (capability, refused) = match access(interface) {
        Access::Free => (None, false),
        Access::With(capability) => (Some(capability.as_str()), false),
        Access::Never => (None, true),
    };
    Import { capability, refused, name }
}

fn differences(theirs: &Side<'_>, ours: &Side<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let offered: BTreeMap<&str, &Function> = theirs.exports().collect();
    let wanted: BTreeMap<&str, &Function> = ours.exports().collect();
    for (name, function) in &wanted {
        let wanted = ours.function(function);
        match offered.get(name).map(|function| theirs.function(function)) {
            None => found.push(format!("it lacks the function `{wanted}`")),
            Some(offered) if offered != wanted => {
                found.push(format!("it offers `{offered}`, the contract has `{wanted}`"));
            }
            Some(_) => {}
        }
    }
    for name in offered.keys().filter(|name| !wanted.contains_key(*name)) {
        found.push(format!("it offers the function `{name}`, which nobody calls"));
    }
    let known: BTreeMap<String, &Interface> = ours.interfaces().collect();
    for (name, interface) in theirs.interfaces().filter(|(name, _)| name.starts_with(PACKAGE)) {
        match known.get(&name) {
            Some(known) => compare(theirs, interface, ours, known, &mut found),
            None => found.push(format!("it uses `{name}`, which the contract does not have")),
        }
    }
    found
}

/// A component names only what it uses: what it lacks of an interface, it does not need.
fn compare(
    theirs: &Side<'_>,
    interface: &Interface,
    ours: &Side<'_>,
    known: &Interface,
    found: &mut Vec<String>,
) {
    let place = interface.name.as_deref().unwrap_or_default();
    for (name, function) in &interface.functions {
        let used = theirs.function(function);
        match known.functions.get(name).map(|function| ours.function(function)) {
            None => found.push(format!("it calls `{used}` of `{place}`, which the contract does not have")),
            Some(offered) if offered != used => {
                found.push(format!("it calls `{used}` of `{place}`, the contract has `{offered}`"));
            }
            Some(_) => {}
        }
    }
    for (name, id) in &interface.types {
        let used = theirs.members(&theirs.resolve.types[*id].kind);
        let Some(id) = known.types.get(name) else {
            found.push(format!("it uses the type `{name}` of `{place}`, which the contract does not have"));
            continue;
        };
        let offered = ours.members(&ours.resolve.types[*id].kind);
        for member in used.iter().filter(|member| !offered.contains(member)) {
            found.push(format!("its `{name}` has `{member}`, which the contract does not have"));
        }
        for member in offered.iter().filter(|member| !used.contains(member)) {
            found.push(format!("its `{name}` lacks `{member}`"));
        }
    }
}

/// A world with what its names stand for.
struct Side<'a> {
    resolve: &'a Resolve,
    world: WorldId,
}

impl<'a> Side<'a> {
    /// The version of the contract that it speaks.
    fn contract(&self) -> Option<String> {
        let (name, _) = self.interfaces().find(|(name, _)| name.starts_with(PACKAGE))?;
        let version = name.split_once('@').map_or(String::new(), |(_, version)| format!("@{version}"));
        Some(format!("{PACKAGE}{version}"))
    }

    fn interfaces(&self) -> impl Iterator<Item = (String, &'a Interface)> {
        let resolve = self.resolve;
        resolve.worlds[self.world].imports.values().filter_map(move |item| match item {
            WorldItem::Interface { id, .. } => Some((name_of(resolve, *id), &resolve.interfaces[*id])),
            _ => None,
        })
    }

    fn exports(&self) -> impl Iterator<Item = (&'a str, &'a Function)> {
        self.resolve.worlds[self.world].exports.values().filter_map(|item| match item {
            WorldItem::Function(function) => Some((function.name.as_str(), function)),
            _ => None,
        })
    }

    /// A function as WIT writes it.
    fn function(&self, function: &Function) -> String {
        let params: Vec<String> = function
            .params
            .iter()
            .map(|param| format!("{}: {}", param.name, self.type_name(&param.ty)))
            .collect();
        let result =
            function.result.as_ref().map_or(String::new(), |ty| format!(" -> {}", self.type_name(ty)));
        // A method's name carries its resource, which its first parameter names too.
        let name = function.name.rsplit(['.', ']']).next().unwrap_or_default();
        format!("{name}: func({}){result}", params.join(", "))
    }

    fn type_name(&self, ty: &Type) -> String {
        let mut printer = WitPrinter::new(OutputToString::default());
        printer.print_type_name(self.resolve, ty).expect("a type that was read has a name");
        printer.output.to_string()
    }

    /// What a type consists of, each part as WIT writes it.
    fn members(&self, kind: &TypeDefKind) -> Vec<String> {
        let with = |name: &str, ty: Option<&Type>| match ty {
            Some(ty) => format!("{name}({})", self.type_name(ty)),
            None => name.to_owned(),
        };
        match kind {
            TypeDefKind::Record(record) => record
                .fields
                .iter()
                .map(|field| format!("{}: {}", field.name, self.type_name(&field.ty)))
                .collect(),
            TypeDefKind::Variant(variant) => {
                variant.cases.iter().map(|case| with(&case.name, case.ty.as_ref())).collect()
            }
            TypeDefKind::Enum(listed) => listed.cases.iter().map(|case| case.name.clone()).collect(),
            _ => Vec::new(),
        }
    }
}

fn name_of(resolve: &Resolve, id: InterfaceId) -> String {
    resolve.id_of(id).unwrap_or_else(|| "an interface without a name".into())
}
