//! Write an Innkeeper plugin: your own rules for which tenant a request belongs to.
//!
//! A plugin is a WebAssembly component. Implement [`Plugin`], name your type in [`plugin!`], and
//! `innkeeper plugin build` makes the file that a policy refers to; `innkeeper plugin new NAME --lang
//! rust` begins a project with this crate in it. The smallest plugin:
//!
//! ```
//! use innkeeper_plugin::{Decision, NoConfig, Plugin, Request, plugin};
//!
//! struct Suffix;
//!
//! impl Plugin for Suffix {
//!     type Config = NoConfig;
//!
//!     fn configure(_: NoConfig) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn resolve(&self, request: &Request<'_>) -> Result<Decision, String> {
//!         let key = request.header("x-api-key").unwrap_or_default();
//!         Ok(key.rsplit_once('@').map_or(Decision::Next, |(_, tenant)| Decision::tenant(tenant)))
//!     }
//! }
//!
//! plugin!(Suffix);
//! # fn main() {}
//! ```
//!
//! Rules to know:
//! - `configure` runs once, before any request, and may run long before the process that serves
//!   requests starts a given instance: do not keep clocks, handles or random numbers from it.
//! - By default each request gets an instance of its own, as `configure` left it. What `resolve`
//!   writes into statics is gone with the request.
//! - `Err` and panics are failures of the plugin. The client is told nothing of them; the policy's
//!   `on_failure` says what it gets.
//! - Test on your own machine with [`Sample`] and [`Table`]: `cargo test` needs no WebAssembly at all.
//! - Import only what you use: the policy may grant less than everything. What is not called is not
//!   imported.

mod decision;
mod request;
#[cfg(not(target_family = "wasm"))]
mod table;

pub use decision::{Decision, Denial, Placement};
pub use request::Request;
#[cfg(not(target_family = "wasm"))]
pub use request::Sample;
#[cfg(not(target_family = "wasm"))]
pub use table::Table;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The generated half of the contract. Use it directly only for what has no wrapper here.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "policy",
        pub_export_macro: true,
        export_macro_name: "export_policy",
        default_bindings_module: "innkeeper_plugin::bindings",
    });
}

/// A mapping rule with its configuration.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// What the policy's `config` must look like. Put `#[serde(deny_unknown_fields)]` on it, so
    /// that a misspelt key refuses the policy and is not silently ignored.
    type Config: DeserializeOwned;

    /// Checks the configuration and prepares what requests need. An error refuses the policy and
    /// is shown to whoever wrote it: name the field and the fix.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Decides on one request.
    fn resolve(&self, request: &Request<'_>) -> Result<Decision, String>;
}

/// The configuration of a plugin that has none: `config` must be absent or empty.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Looks a tenant up in the directory that the policy chose: its id and schema, or `None` where
/// there is surely no such tenant. Not available in [`Plugin::configure`].
pub fn find_tenant(id: &str) -> Option<(String, String)> {
    bindings::innkeeper::policy::directory::find(id)
}

/// The text of `key` in the table that the policy gives this plugin (`kv`), if there is one. A native
/// test fills the table with [`Table`].
pub fn kv(key: &str) -> Option<String> {
    #[cfg(target_family = "wasm")]
    return bindings::innkeeper::policy::kv::get(key);
    #[cfg(not(target_family = "wasm"))]
    Table::look_up(key)
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something should be looked at.
    Warn,
    /// Something worth knowing.
    Info,
    /// For whoever debugs.
    Debug,
}

/// Writes a line to the operator's log, attributed to this plugin and its version. Too many lines
/// are dropped.
pub fn log(level: Level, message: &str) {
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
    };
    #[cfg(target_family = "wasm")]
    bindings::innkeeper::policy::log::write(level, message);
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level}: {message}");
}

/// Configures `P` from the policy's JSON as the host would. Also what a test calls: a mistake is told
/// with the field that it is in.
///
/// ```
/// use innkeeper_plugin::{Decision, Plugin, Request, Sample, configure};
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     tenant: String,
/// }
///
/// struct Everybody(Config);
///
/// impl Plugin for Everybody {
///     type Config = Config;
///
///     fn configure(config: Config) -> Result<Self, String> {
///         Ok(Self(config))
///     }
///
///     fn resolve(&self, _: &Request<'_>) -> Result<Decision, String> {
///         Ok(Decision::tenant(&self.0.tenant))
///     }
/// }
///
/// let plugin: Everybody = configure(r#"{ "tenant": "acme" }"#)?;
/// assert_eq!(plugin.resolve(&Sample::get("/").request())?, Decision::tenant("acme"));
/// let mistake = configure::<Everybody>(r#"{ "tenant": 7 }"#).map(|_| ()).unwrap_err();
/// assert!(mistake.starts_with("config field `tenant`"), "{mistake}");
/// # Ok::<(), String>(())
/// ```
pub fn configure<P: Plugin>(json: &str) -> Result<P, String> {
    let json = if json.trim().is_empty() || json.trim() == "null" { "{}" } else { json };
    let mut text = serde_json::Deserializer::from_str(json);
    let config = serde_path_to_error::deserialize(&mut text).map_err(|error| {
        let path = error.path().to_string();
        let what = error.into_inner();
        if path == "." { format!("config: {what}") } else { format!("config field `{path}`: {what}") }
    })?;
    text.end().map_err(|error| format!("config: {error}"))?;
    P::configure(config)
}

/// Makes a component of a type that implements [`Plugin`].
#[macro_export]
macro_rules! plugin {
    ($plugin:ty) => {
        const _: () = {
            static CONFIGURED: ::std::sync::OnceLock<$plugin> = ::std::sync::OnceLock::new();
            struct Component;
            impl $crate::bindings::Guest for Component {
                fn configure(
                    config: ::std::string::String,
                ) -> ::core::result::Result<(), ::std::string::String> {
                    let plugin = $crate::configure::<$plugin>(&config)?;
                    CONFIGURED.set(plugin).map_err(|_| "configured twice".into())
                }
                fn resolve(
                    request: &$crate::bindings::Request,
                ) -> ::core::result::Result<$crate::bindings::Decision, ::std::string::String> {
                    let plugin = CONFIGURED.get().ok_or("not configured yet")?;
                    $crate::Plugin::resolve(plugin, &$crate::Request::from_host(request))
                        .map(::core::convert::Into::into)
                }
            }
            #[cfg(target_family = "wasm")]
    $crate::bindings::export_policy!(Component with_types_in $crate::bindings);
        };
    };
}
