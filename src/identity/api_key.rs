//! API keys: which tenant one stands for.

use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::invalid;
use crate::error::Refusal;
use crate::policy::KeyTable;
use crate::tenant::TenantId;

/// The tenant that a key stands for. It is still to be looked up and admitted.
///
/// # Errors
/// `token-invalid`: the table does not have it, or it is over. A client is not told which.
pub fn owner(table: &KeyTable, key: &str) -> Result<TenantId, Refusal> {
    let refused = |cause: &str| invalid("the key is not valid").because(cause);
    let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let owner = table.owners.get(&digest).ok_or_else(|| {
        refused(&format!("`{}` has no key with this SHA-256", table.name))
    })?;
    match owner.expires {
        Some(end) if end <= SystemTime::now() => Err(refused(&format!(
            "the key of `{}` in `{}` ended at {}",
            owner.tenant,
            table.name,
            humantime::format_rfc3339_seconds(end)
        ))),
        _ => Ok(owner.tenant.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::policy::KeyOwner;

    #[test]
    fn a_key_stands_for_its_tenant_until_it_ends() {
        let entry = |key: &str, tenant: &str, expires| {
            (Sha256::digest(key).into(), KeyOwner { tenant: tenant.parse().unwrap(), expires })
        };
        let later = SystemTime::now() + Duration::from_secs(3600);
        let owners = [
            entry("forever", "acme", None),
            entry("for-now", "globex", Some(later)),
            entry("over", "acme", Some(UNIX_EPOCH)),
        ];
        let table = KeyTable { name: "partners".into(), owners: owners.into() };
        assert_eq!(owner(&table, "forever").unwrap().as_str(), "acme");
        assert_eq!(owner(&table, "for-now").unwrap().as_str(), "globex");
        let (over, unknown) = (owner(&table, "over").unwrap_err(), owner(&table, "guess").unwrap_err());
        assert_eq!(over.detail(), unknown.detail());
        assert_ne!(over.cause(), unknown.cause());
    }
}
