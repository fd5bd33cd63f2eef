//! One plugin in two styles, to compare what a lazy and an eager request cost. It reads two headers,
//! or all of them when its configuration is `all`, and places the request.

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "eager")]
wit_bindgen::generate!({ path: "eager.wit", world: "policy" });
#[cfg(not(feature = "eager"))]
wit_bindgen::generate!({ path: "../../wit", world: "policy" });

#[cfg(feature = "eager")]
use innkeeper::eager::types::Placement;
#[cfg(not(feature = "eager"))]
use innkeeper::policy::types::Placement;

static READ_ALL: AtomicBool = AtomicBool::new(false);

struct Component;

fn place(headers: usize, key: Option<&str>) -> Result<Decision, String> {
    let Some(tenant) = key.and_then(|key| key.strip_prefix("k-")) else { return Ok(Decision::Next) };
    let reason = (headers > 0).then(|| "all".to_owned());
    Ok(Decision::Place(Placement { tenant: tenant.into(), headers: Vec::new(), upstream: None, reason }))
}

#[cfg(not(feature = "eager"))]
impl Guest for Component {
    fn configure(config: String) -> Result<(), String> {
        READ_ALL.store(config == "all", Ordering::Relaxed);
        Ok(())
    }

    fn resolve(request: &Request) -> Result<Decision, String> {
        if READ_ALL.load(Ordering::Relaxed) {
            let headers = request.headers();
            let key = headers.iter().find(|(name, _)| name == "x-api-key");
            return place(headers.len(), key.map(|(_, value)| value.as_str()));
        }
        let stated = request.header("x-tenant-id");
        place(0, stated.or_else(|| request.header("x-api-key")).as_deref())
    }
}

#[cfg(feature = "eager")]
impl Guest for Component {
    fn configure(config: String) -> Result<(), String> {
        READ_ALL.store(config == "all", Ordering::Relaxed);
        Ok(())
    }

    fn resolve(request: Request) -> Result<Decision, String> {
        let find = |wanted: &str| {
            request.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
        };
        if READ_ALL.load(Ordering::Relaxed) {
            return place(request.headers.len(), find("x-api-key"));
        }
        place(0, find("x-tenant-id").or_else(|| find("x-api-key")))
    }
}

export!(Component);
