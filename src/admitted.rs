//! Admission: the last checks before a target, and the proof that they happened.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Code, Refusal};
use crate::fairness::{Fairness, Pass};
use crate::tenant::{Tenant, TenantState};

/// A tenant that was resolved, found in the directory and admitted: its state allows it, and the
/// request is within its limits. Targets accept nothing else: there is no way to make one but
/// [`Active::admit`] and [`admit`].
///
/// It occupies one of the tenant's places for as long as it or its [`Pass`] lives.
#[derive(Debug, Clone)]
pub struct Admitted {
    tenant: Arc<Tenant>,
    pass: Pass,
}

/// A tenant whose state allows that it is served.
#[derive(Debug)]
pub struct Active(Arc<Tenant>);

impl Admitted {
    /// The tenant that the request belongs to.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// What the request occupies of its tenant's limits.
    pub fn pass(&self) -> &Pass {
        &self.pass
    }
}

impl Active {
    /// Looks at the state of a tenant that the directory knows.
    ///
    /// # Errors
    /// `tenant-suspended`, or `tenant-held` with a time to wait.
    pub fn check(tenant: Arc<Tenant>) -> Result<Self, Refusal> {
        match tenant.state {
            TenantState::Active => Ok(Self(tenant)),
            TenantState::Suspended => Err(Refusal::new(
                Code::TenantSuspended,
                "this tenant is suspended; ask whoever runs the service",
            )),
            TenantState::Held { retry_after } => Err(Refusal::new(
                Code::TenantHeld,
                "this tenant is held for a moment; send the request again shortly",
            )
            .retry_after(retry_after.max(Duration::from_secs(1)))),
        }
    }

    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.0
    }

    /// Admits a request of the tenant within its limits, which may have to wait for its turn.
    ///
    /// # Errors
    /// `tenant-limited`.
    pub async fn admit(self, fairness: &Fairness) -> Result<Admitted, Refusal> {
        let pass = fairness.enter(&self.0).await?;
        Ok(Admitted { tenant: self.0, pass })
    }
}

/// Admits a tenant that has no limits, if its state allows.
///
/// # Errors
/// As [`Active::check`], and `internal-error` where the tenant has limits: only [`Active::admit`]
/// can hold a request to them.
pub fn admit(tenant: Arc<Tenant>) -> Result<Admitted, Refusal> {
    let Active(tenant) = Active::check(tenant)?;
    let pass = Pass::unlimited(&tenant).ok_or_else(|| {
        Refusal::new(Code::InternalError, "the request cannot be served")
            .because("a tenant with limits was to be admitted without them")
    })?;
    Ok(Admitted { tenant, pass })
}
