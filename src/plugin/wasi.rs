//! WASI, locked down: clocks and randomness; no files, network, environment or arguments.
//!
//! A stock `wasm32-wasip2` component imports more than it uses, so the harmless rest is linked and
//! answers "nothing there". Sockets are not linked at all: a plugin that wants them is refused when
//! it is loaded, which is clearer than an error at run time.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::component::Linker;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiView as _};

use super::log::PluginLog;
use super::state::State;

/// Random bytes in one call: more than any key, less than a way to exhaust our memory.
const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// Bytes of one line that a plugin may print; the rest of a longer line is a line of its own.
const MAX_PRINTED_LINE_BYTES: usize = 2048;

/// Adds what plugins may use of WASI.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(linker)?;
    random::insecure::add_to_linker::<State, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    filesystem::types::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)?;
    Ok(())
}

/// The context of one instance.
pub(super) fn context(log: &Arc<PluginLog>) -> WasiCtx {
    WasiCtx::builder()
        .max_random_size(MAX_RANDOM_BYTES)
        .stdout(Printed { log: Arc::clone(log), level: "info" })
        .stderr(Printed { log: Arc::clone(log), level: "warn" })
        .build()
}

/// Standard output or standard error of a plugin: lines for its log.
struct Printed {
    log: Arc<PluginLog>,
    level: &'static str,
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    /// Only WASI 0.3 would use it, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Lines { log: Arc::clone(&self.log), level: self.level, unfinished: Vec::new() })
    }
}

struct Lines {
    log: Arc<PluginLog>,
    level: &'static str,
    unfinished: Vec<u8>,
}

impl Lines {
    fn finish(&mut self) {
        if !self.unfinished.is_empty() {
            self.log.write(self.level, &String::from_utf8_lossy(&self.unfinished));
            self.unfinished.clear();
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        for byte in bytes {
            if byte == b'\n' {
                self.finish();
            } else {
                self.unfinished.push(byte);
                if self.unfinished.len() == MAX_PRINTED_LINE_BYTES {
                    self.finish();
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

impl Drop for Lines {
    /// A panic's last line has no end.
    fn drop(&mut self) {
        self.finish();
    }
}
