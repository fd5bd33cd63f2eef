//! Plugins: their keys with defaults, and the rules between them.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use super::settings::{names, size};
use super::{Names, or};
use crate::policy::decode::{Located, Named};
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::source::Sources;
use crate::policy::{
    Breaker, Capabilities, Capability, Instances, Plugin, PluginLimits, Reuse, Shadow, Signature,
};

/// Entries of one plugin's table: what a person still writes, or a script into an included file.
const MAX_KV_ENTRIES: usize = 10_000;

/// Keys and values of one plugin's table together. A call may not move more than this at once.
const MAX_KV_BYTES: usize = 1 << 20;

pub(super) fn plugins(
    written: &Named<document::Plugin>,
    sources: &Sources,
    report: &mut Report,
) -> Names<Plugin> {
    names("plugin", "plugins", written, report, |name, plugin, report| {
        let path = plugin.path.get()?;
        let instances = or(plugin.instances.as_ref(), Instances::default());
        let capabilities = capabilities(plugin, report);
        Some(Plugin {
            name,
            path: sources.beside(path.place, &path.value),
            sha256: plugin.sha256.as_ref().map(|digest| digest.value.0),
            signature: signature(plugin, sources, report),
            config: plugin.config.as_ref().map_or_else(|| "{}".to_owned(), |config| config.value.to_string()),
            kv: kv(plugin, &capabilities, report),
            capabilities,
            limits: limits(plugin.limits.as_ref()),
            instances,
            reuse: reuse(plugin.reuse.as_ref(), instances, report),
            on_failure: or(plugin.on_failure.as_ref(), Default::default()),
            breaker: breaker(plugin.breaker.as_ref(), report),
            shadow: plugin.shadow.as_ref().and_then(|shadow| self::shadow(shadow, sources)),
        })
    })
}

fn limits(written: Option<&document::PluginLimits>) -> PluginLimits {
    let default = PluginLimits::default();
    PluginLimits {
        time: or(written.and_then(|limits| limits.time.as_ref()), default.time),
        memory: size(written.and_then(|limits| limits.memory.as_ref()), default.memory),
    }
}

fn signature(plugin: &document::Plugin, sources: &Sources, report: &mut Report) -> Option<Signature> {
    let Some(keys) = &plugin.trusted_keys else {
        if let Some(signature) = &plugin.signature {
            report
                .error(signature.place, "a signature without keys proves nothing")
                .help("name the keys that may have signed the plugin in `trusted_keys`");
        }
        return None;
    };
    let path = match &plugin.signature {
        Some(path) => sources.beside(path.place, &path.value),
        None => {
            let beside = plugin.path.get()?;
            let mut path = sources.beside(beside.place, &beside.value).into_os_string();
            path.push(".sig");
            PathBuf::from(path)
        }
    };
    Some(Signature { keys: keys.0.iter().map(|key| key.value.0).collect(), path })
}

fn capabilities(plugin: &document::Plugin, report: &mut Report) -> Capabilities {
    let Some(written) = &plugin.capabilities else { return Capabilities::default() };
    let mut granted: Vec<Capability> = Vec::new();
    for one in written {
        if granted.contains(&one.value) {
            report.error(one.place, format!("the capability `{}` is listed twice", one.shown()));
        } else {
            granted.push(one.value);
        }
    }
    Capabilities(granted)
}

fn kv(
    plugin: &document::Plugin,
    capabilities: &Capabilities,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let Some(written) = &plugin.kv else { return BTreeMap::new() };
    if let Some((first, _)) = written.0.first()
        && !capabilities.grant(Capability::Kv)
    {
        report
            .error(first.place, "the plugin has a table that it may not read")
            .help("add `kv` to its `capabilities`, or remove the table");
    }
    if let Some((over, _)) = written.0.get(MAX_KV_ENTRIES) {
        report
            .error(over.place, format!("a plugin's table has at most {MAX_KV_ENTRIES} entries"))
            .help("what is larger belongs into the tenants' directory, or into the plugin's `config`");
    }
    let mut bytes = 0;
    let mut table = BTreeMap::new();
    for (key, value) in &written.0 {
        let Some(value) = value else { continue };
        let room = MAX_KV_BYTES - bytes;
        bytes += key.text.len() + value.value.len();
        if bytes > MAX_KV_BYTES {
            report
                .error(key.place, format!("a plugin's table has at most {MAX_KV_BYTES} bytes, keys included"))
                .help(format!("this entry has {}, and {room} are left", key.text.len() + value.value.len()));
            break;
        }
        table.insert(key.text.clone(), value.value.clone());
    }
    table
}

fn reuse(written: Option<&document::Reuse>, instances: Instances, report: &mut Report) -> Reuse {
    let default = Reuse::default();
    let Some(written) = written else { return default };
    if instances != Instances::Reused {
        report
            .error(written.place, "`reuse` is for instances that are reused")
            .help("write `instances: reused`, or remove it: a fresh instance serves one request");
    }
    let number = |given: Option<&Located<u32>>, default: NonZeroU32| {
        given.and_then(|given| NonZeroU32::new(given.value)).unwrap_or(default)
    };
    Reuse {
        size: number(written.size.as_ref(), default.size),
        uses: number(written.uses.as_ref(), default.uses),
    }
}

fn breaker(written: Option<&document::Breaker>, report: &mut Report) -> Breaker {
    let default = Breaker::default();
    let Some(written) = written else { return default };
    let failures = written.failures.as_ref().map(|failures| failures.value);
    let backoff = or(written.backoff.as_ref(), default.backoff);
    let max_backoff = or(written.max_backoff.as_ref(), default.max_backoff.max(backoff));
    if let Some(written) = &written.max_backoff
        && max_backoff < backoff
    {
        report.error(written.place, "`max_backoff` must not be shorter than `backoff`");
    }
    Breaker {
        failures: failures.map_or(default.failures, |failures| {
            NonZeroU32::new(u32::try_from(failures).unwrap_or(u32::MAX))
        }),
        backoff,
        max_backoff,
    }
}

fn shadow(written: &document::Shadow, sources: &Sources) -> Option<Shadow> {
    let path = written.path.get()?;
    Some(Shadow {
        path: sources.beside(path.place, &path.value),
        sha256: written.sha256.as_ref().map(|digest| digest.value.0),
        sample: written.sample.as_ref().map_or(1.0, |share| share.value.0),
        promote_after: written.promote_after.as_ref().and_then(|count| NonZeroU64::new(count.value)),
        drop_on_difference: or(written.drop_on_difference.as_ref(), false),
    })
}
