//! Admission: the last check before a target, and the proof that it happened.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Code, Refusal};
use crate::tenant::{Tenant, TenantState};

/// A tenant that was resolved, found in the directory and admitted. Targets accept nothing else:
/// there is no way to make one but [`admit`].
#[derive(Debug, Clone)]
pub struct Admitted {
    tenant: Arc<Tenant>,
}

impl Admitted {
    /// The tenant that the request belongs to.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

/// Admits a tenant that the directory knows, if its state allows.
///
/// # Errors
/// `tenant-suspended`, or `tenant-held` with a time to wait.
pub fn admit(tenant: Arc<Tenant>) -> Result<Admitted, Refusal> {
    match tenant.state {
        TenantState::Active => Ok(Admitted { tenant }),
        TenantState::Suspended => {
            Err(Refusal::new(Code::TenantSuspended, "this tenant is suspended; ask whoever runs the service"))
        }
        TenantState::Held { retry_after } => Err(Refusal::new(
            Code::TenantHeld,
            "this tenant is held for a moment; send the request again shortly",
        )
        .retry_after(retry_after.max(Duration::from_secs(1)))),
    }
}
