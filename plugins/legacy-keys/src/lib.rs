//! Maps what a grown application knows its customers by to tenants: API keys, host aliases, and
//! tenant names that were retired by a rename or a merger.
//!
//! ```yaml
//! config:
//!   keys: { k-123: acme }              # X-Api-Key
//!   hosts: { old.example.com: acme }   # the host that the client asked for
//!   retired: { acme-old: acme }        # X-Tenant-ID, or the first label of the host
//! ```
//!
//! They are tried in this order; where none fits, the next resolver is asked.

use std::collections::HashMap;

use innkeeper_plugin::{Decision, Plugin, Request, plugin};
use serde::Deserialize;

/// Searched for each request: one comparison, where a sorted map takes a dozen.
type Names = HashMap<String, String>;

/// The configuration as the policy writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    keys: Names,
    #[serde(default)]
    hosts: Names,
    #[serde(default)]
    retired: Names,
}

struct LegacyKeys(Config);

impl Plugin for LegacyKeys {
    type Config = Config;

    fn configure(mut config: Config) -> Result<Self, String> {
        let mut hosts = Names::new();
        for (alias, tenant) in config.hosts {
            let folded = alias.trim_end_matches('.').to_ascii_lowercase();
            if folded.contains([':', '/']) {
                return Err(format!(
                    "config field `hosts`: `{alias}` must be a host name without scheme or port"
                ));
            }
            if hosts.insert(folded, tenant).is_some() {
                return Err(format!(
                    "config field `hosts`: `{alias}` is listed twice in different spellings"
                ));
            }
        }
        config.hosts = hosts;
        for (field, names) in [("keys", &config.keys), ("hosts", &config.hosts), ("retired", &config.retired)]
        {
            for (name, tenant) in names {
                if name.is_empty() {
                    return Err(format!(
                        "config field `{field}`: an empty name cannot be matched; remove it"
                    ));
                }
                if tenant.is_empty()
                    || tenant.len() > 128
                    || !tenant.bytes().all(|byte| byte.is_ascii_graphic())
                {
                    return Err(format!(
                        "config field `{field}.{name}`: tenant must be 1 to 128 visible ASCII characters, got {tenant:?}"
                    ));
                }
            }
        }
        Ok(Self(config))
    }

    fn resolve(&self, request: &Request<'_>) -> Result<Decision, String> {
        let Self(known) = self;
        if !known.keys.is_empty()
            && let Some(key) = request.header("x-api-key")
            && let Some(tenant) = known.keys.get(&key)
        {
            return Ok(Decision::tenant(tenant).because("api key"));
        }
        if known.hosts.is_empty() && known.retired.is_empty() {
            return Ok(Decision::Next);
        }
        let host = request.host();
        if let Some(tenant) = known.hosts.get(&host) {
            return Ok(Decision::tenant(tenant).because("host alias"));
        }
        // A name that the client states outweighs one that its host only suggests.
        let stated = request.header("x-tenant-id");
        let name = stated.as_deref().or_else(|| host.split_once('.').map(|(label, _)| label));
        match name.and_then(|name| known.retired.get(name)) {
            Some(tenant) => Ok(Decision::tenant(tenant).because("retired name")),
            None => Ok(Decision::Next),
        }
    }
}

plugin!(LegacyKeys);

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_plugin::{Sample, configure};

    const CONFIG: &str = r#"{
        "keys": { "k-123": "acme" },
        "hosts": { "Old.Example.com": "globex" },
        "retired": { "acme-old": "acme" }
    }"#;

    fn decide(sample: &Sample) -> Decision {
        configure::<LegacyKeys>(CONFIG).unwrap().resolve(&sample.request()).unwrap()
    }

    #[test]
    fn keys_hosts_and_retired_names_lead_to_tenants() {
        let key = Sample::get("/").with_header("X-Api-Key", "k-123");
        assert_eq!(decide(&key), Decision::tenant("acme").because("api key"));
        let host = Sample::get("/").host("OLD.example.com.:8080");
        assert_eq!(decide(&host), Decision::tenant("globex").because("host alias"));
        let stated = Sample::get("/").with_header("x-tenant-id", "acme-old");
        assert_eq!(decide(&stated), Decision::tenant("acme").because("retired name"));
        let label = Sample::get("/").host("acme-old.example.com");
        assert_eq!(decide(&label), Decision::tenant("acme").because("retired name"));
    }

    #[test]
    fn what_is_not_listed_is_left_to_the_next_resolver() {
        assert_eq!(decide(&Sample::get("/")), Decision::Next);
        let two_keys = Sample::get("/").with_header("x-api-key", "k-123").with_header("x-api-key", "k-9");
        assert_eq!(decide(&two_keys), Decision::Next);
        let contradicting =
            Sample::get("/").host("acme-old.example.com").with_header("x-tenant-id", "globex");
        assert_eq!(decide(&contradicting), Decision::Next);
    }

    #[test]
    fn a_wrong_configuration_names_the_field() {
        let refused = |json: &str| configure::<LegacyKeys>(json).map(|_| ()).unwrap_err();
        assert!(refused(r#"{"keyz":{}}"#).contains("keyz"));
        assert!(refused(r#"{"keys":{"k-1":5}}"#).contains("keys.k-1"));
        assert!(refused(r#"{"hosts":{"a.example":""}}"#).contains("hosts.a.example"));
        assert!(refused(r#"{"hosts":{"a.example":"x","A.example":"y"}}"#).contains("twice"));
        assert!(refused("[1,2]").contains("config"));
    }
}
