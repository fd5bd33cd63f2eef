//! Which tenant an API key belongs to.

use std::collections::HashMap;

use innkeeper_plugin::{Decision, Plugin, Request, plugin};
use serde::Deserialize;

/// What the policy writes under `config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Each API key with its tenant.
    keys: HashMap<String, String>,
}

struct ApiKeys(Config);

impl Plugin for ApiKeys {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if config.keys.contains_key("") {
            return Err("config field `keys`: an empty key would match everybody; remove it".into());
        }
        Ok(Self(config))
    }

    fn resolve(&self, request: &Request<'_>) -> Result<Decision, String> {
        let Some(key) = request.header("x-api-key") else { return Ok(Decision::Next) };
        Ok(match self.0.keys.get(&key) {
            Some(tenant) => Decision::tenant(tenant).because("api key"),
            None => Decision::deny(401, "unknown-key", "this API key is not known"),
        })
    }
}

plugin!(ApiKeys);

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_plugin::{Sample, configure};

    #[test]
    fn a_known_key_leads_to_its_tenant() {
        let plugin: ApiKeys = configure(r#"{ "keys": { "k-123": "acme" } }"#).unwrap();
        let sample = Sample::get("/").with_header("X-Api-Key", "k-123");
        assert_eq!(plugin.resolve(&sample.request()), Ok(Decision::tenant("acme").because("api key")));
        assert_eq!(plugin.resolve(&Sample::get("/").request()), Ok(Decision::Next));
    }
}
