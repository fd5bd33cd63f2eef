//! The host's side of a flat module: what it may call, and what lies ready between the calls.

use std::vec;

use wasmtime::component::Resource;
use wasmtime::{Caller, Engine, Linker, Memory};

use super::super::bindings::innkeeper::policy::types::{self, HostRequest as _};
use super::super::bindings::innkeeper::policy::{directory, kv, log};
use super::super::state::{RequestView, State};
use super::abi::{Breach, Reader, check_place, put};
use super::contract::{Answer, HostFunction};
use super::noting::Division;
use super::rewrite::{CONFIGURED, HANDLE, HOST, PLACE_PAIRS, RESOLVED, TAKE};

/// What an instance that runs flat has on our side.
#[derive(Default)]
pub(in crate::plugin) struct Exchange {
    pub(super) memory: Option<Memory>,
    /// Where the memory is divided into parts, and those that we wrote to.
    pub(super) division: Division,
    pub(super) written: u64,
    /// Whether the guest holds the handle of the request.
    pub(super) lent: bool,
    pub(super) ready: Ready,
    pub(super) configured: Option<Result<(), String>>,
    pub(super) resolved: Option<Result<types::Decision, String>>,
}

/// Texts that the guest is about to take.
#[derive(Default)]
pub(super) struct Ready {
    text: String,
    more: vec::IntoIter<String>,
    /// Bytes that the guest is about to make room for, for a list.
    pairs: usize,
}

impl Ready {
    /// Holds a text ready, and says how long it is.
    pub(super) fn hold(&mut self, text: String) -> wasmtime::Result<i32> {
        let length = length(&text)?;
        self.text = text;
        Ok(length)
    }

    /// Holds several ready, and says how long the first is, -1 where there is none.
    fn hold_all(&mut self, texts: Vec<String>) -> wasmtime::Result<i32> {
        self.more = texts.into_iter();
        self.next()
    }

    fn next(&mut self) -> wasmtime::Result<i32> {
        match self.more.next() {
            Some(text) => self.hold(text),
            None => Ok(-1),
        }
    }
}

impl Exchange {
    fn check(&self, handle: u32) -> Result<(), Breach> {
        if self.lent && handle == HANDLE {
            Ok(())
        } else {
            Err(Breach("it used a handle that it does not hold"))
        }
    }
}

/// A linker with everything that a flat module may import.
pub(in crate::plugin) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    add_text(&mut linker, HostFunction::Method, |state| state.method(request()))?;
    add_text(&mut linker, HostFunction::Scheme, |state| state.scheme(request()))?;
    add_text(&mut linker, HostFunction::Authority, |state| state.authority(request()))?;
    add_text(&mut linker, HostFunction::Path, |state| state.path(request()))?;
    add_text(&mut linker, HostFunction::Peer, |state| state.peer(request()))?;
    add_maybe_text(&mut linker, HostFunction::Query, |state| state.query(request()))?;
    add_maybe_text(&mut linker, HostFunction::Claims, |state| state.claims(request()))?;
    linker.func_wrap(HOST, HostFunction::Header.name(), header)?;
    linker.func_wrap(HOST, HostFunction::Headers.name(), headers)?;
    linker.func_wrap(HOST, HostFunction::DropRequest.name(), drop_request)?;
    linker.func_wrap(HOST, HostFunction::GetEntry.name(), get_entry)?;
    linker.func_wrap(HOST, HostFunction::WriteLog.name(), write_log)?;
    linker.func_wrap_async(HOST, HostFunction::FindTenant.name(), |caller, place| {
        Box::new(find_tenant(caller, place))
    })?;
    linker.func_wrap(HOST, TAKE, take)?;
    linker.func_wrap(HOST, PLACE_PAIRS, place_pairs)?;
    linker.func_wrap(HOST, CONFIGURED, configured)?;
    linker.func_wrap(HOST, RESOLVED, resolved)?;
    Ok(linker)
}

type Guest<'a> = Caller<'a, State>;

fn add_text(
    linker: &mut Linker<State>,
    function: HostFunction,
    get: fn(&mut State) -> wasmtime::Result<String>,
) -> wasmtime::Result<()> {
    linker.func_wrap(HOST, function.name(), move |mut guest: Guest<'_>, handle: u32, answer: u32| {
        guest.data().exchange.check(handle)?;
        let text = get(guest.data_mut())?;
        let (memory, state) = sides(&mut guest)?;
        check_place(memory, answer, function.answer().size())?;
        state.exchange.ready.hold(text)
    })?;
    Ok(())
}

fn add_maybe_text(
    linker: &mut Linker<State>,
    function: HostFunction,
    get: fn(&mut State) -> wasmtime::Result<Option<String>>,
) -> wasmtime::Result<()> {
    linker.func_wrap(HOST, function.name(), move |mut guest: Guest<'_>, handle: u32, answer: u32| {
        guest.data().exchange.check(handle)?;
        let text = get(guest.data_mut())?;
        let (memory, state) = sides(&mut guest)?;
        check_place(memory, answer, function.answer().size())?;
        text.map_or(Ok(-1), |text| state.exchange.ready.hold(text))
    })?;
    Ok(())
}

fn header(mut guest: Guest<'_>, handle: u32, name: u32, length: u32, answer: u32) -> wasmtime::Result<i32> {
    let (memory, state) = sides(&mut guest)?;
    state.exchange.check(handle)?;
    let value = state.joined_header(Reader::new(memory).text(name, length)?)?;
    check_place(memory, answer, HostFunction::Header.answer().size())?;
    value.map_or(Ok(-1), |value| state.exchange.ready.hold(value))
}

fn headers(mut guest: Guest<'_>, handle: u32, answer: u32) -> wasmtime::Result<i32> {
    let (memory, state) = sides(&mut guest)?;
    state.exchange.check(handle)?;
    let pairs = state.headers(request())?;
    check_place(memory, answer, Answer::Pairs.size())?;
    let count = i32::try_from(pairs.len())?;
    let ready = &mut state.exchange.ready;
    ready.pairs = pairs.len() * 16;
    ready.more = pairs.into_iter().flat_map(|(name, value)| [name, value]).collect::<Vec<_>>().into_iter();
    Ok(count)
}

fn place_pairs(mut guest: Guest<'_>, place: u32) -> wasmtime::Result<i32> {
    let (memory, state) = sides(&mut guest)?;
    let ready = &mut state.exchange.ready;
    check_place(memory, place, ready.pairs)?;
    ready.next()
}

fn take(mut guest: Guest<'_>, place: u32) -> wasmtime::Result<i32> {
    let (memory, state) = sides(&mut guest)?;
    let Exchange { division, written, ready, .. } = &mut state.exchange;
    put(memory, place, &ready.text)?;
    *written |= division.parts(place as usize, ready.text.len());
    ready.next()
}

fn drop_request(mut guest: Guest<'_>, handle: u32) -> wasmtime::Result<()> {
    let exchange = &mut guest.data_mut().exchange;
    exchange.check(handle)?;
    exchange.lent = false;
    Ok(())
}

async fn find_tenant(mut guest: Guest<'_>, (key, length, answer): (u32, u32, u32)) -> wasmtime::Result<i32> {
    let (memory, state) = sides(&mut guest)?;
    let key = Reader::new(memory).text(key, length)?.to_owned();
    let found = directory::Host::find(state, key).await?;
    let (memory, state) = sides(&mut guest)?;
    check_place(memory, answer, HostFunction::FindTenant.answer().size())?;
    found.map_or(Ok(-1), |(id, schema)| state.exchange.ready.hold_all(vec![id, schema]))
}

fn get_entry(mut guest: Guest<'_>, key: u32, length: u32, answer: u32) -> wasmtime::Result<i32> {
    let (memory, state) = sides(&mut guest)?;
    let key = Reader::new(memory).text(key, length)?.to_owned();
    let entry = kv::Host::get(state, key)?;
    check_place(memory, answer, HostFunction::GetEntry.answer().size())?;
    entry.map_or(Ok(-1), |text| state.exchange.ready.hold(text))
}

fn write_log(
    mut guest: Guest<'_>,
    level: u32,
    level_length: u32,
    message: u32,
    message_length: u32,
) -> wasmtime::Result<()> {
    let (memory, state) = sides(&mut guest)?;
    let mut reader = Reader::new(memory);
    let (level, message) = (reader.text(level, level_length)?, reader.text(message, message_length)?);
    log::Host::write(state, level.to_owned(), message.to_owned())
}

fn configured(mut guest: Guest<'_>, answer: u32) -> wasmtime::Result<()> {
    let (memory, state) = sides(&mut guest)?;
    state.exchange.configured = Some(Reader::new(memory).configured(answer)?);
    Ok(())
}

fn resolved(mut guest: Guest<'_>, answer: u32) -> wasmtime::Result<()> {
    let (memory, state) = sides(&mut guest)?;
    if state.exchange.lent {
        return Err(Breach("it kept the handle of the request").into());
    }
    state.exchange.resolved = Some(Reader::new(memory).decision(answer)?);
    Ok(())
}

/// The guest's memory, and our state beside it.
fn sides<'a>(guest: &'a mut Guest<'_>) -> Result<(&'a mut [u8], &'a mut State), Breach> {
    // Only a function that runs while the instance is made finds none.
    let memory = guest.data().exchange.memory.ok_or(Breach("it calls the host before it was made"))?;
    Ok(memory.data_and_store_mut(guest))
}

/// The request of the call; the handle has been checked.
fn request() -> Resource<RequestView> {
    Resource::new_borrow(0)
}

fn length(text: &str) -> wasmtime::Result<i32> {
    Ok(i32::try_from(text.len())?)
}
