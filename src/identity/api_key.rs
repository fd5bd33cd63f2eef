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
    entry(table, &Sha256::digest(key.as_bytes()).into(), "the key is not valid")
}

/// The tenant at one entry of a table.
pub(super) fn entry(table: &KeyTable, digest: &[u8; 32], detail: &'static str) -> Result<TenantId, Refusal> {
    let refused = |cause: String| Err(invalid(detail).because(cause));
    let Some(owner) = table.owners.get(digest) else {
        return refused(format!("`{}` has nothing with this SHA-256", table.name));
    };
    match owner.expires {
        Some(end) if end <= SystemTime::now() => {
            let (tenant, end) = (&owner.tenant, humantime::format_rfc3339_seconds(end));
            refused(format!("the entry of `{tenant}` in `{}` ended at {end}", table.name))
        }
        _ => Ok(owner.tenant.clone()),
    }
}

/// A SHA-256 from its hexadecimal digits.
pub(super) fn digest(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(bytes)
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
