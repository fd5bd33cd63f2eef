//! A request that waits for an override to go, such as while its tenant moves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::overrides::InForce;
use crate::error::{Code, Refusal};

/// What a client is told to wait once it was held in vain.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a request is not admitted, or not yet.
#[derive(Debug)]
pub enum Stopped {
    /// It is refused.
    Refused(Refusal),
    /// It waits.
    Held(Hold),
}

/// A request that an override holds.
#[derive(Debug)]
pub struct Hold {
    by: Arc<InForce>,
    wait: Duration,
}

impl Hold {
    pub(super) fn new(by: Arc<InForce>, wait: Duration) -> Self {
        Self { by, wait }
    }

    /// Waits until the override is gone or has ended. The request then starts anew, with the policy
    /// in force by then: where its tenant is may have changed.
    ///
    /// # Errors
    /// `tenant-held` where that takes longer since the request's arrival than the override says, or
    /// where it holds too many already.
    pub async fn released(self, arrived: Instant) -> Result<(), Refusal> {
        let Ok(_place) = Arc::clone(&self.by.held).try_acquire_owned() else { return Err(self.refusal()) };
        let ends =
            self.by.rule().until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
        let ends = async {
            match ends {
                Some(ends) => tokio::time::sleep(ends).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.by.gone.cancelled() => Ok(()),
            () = ends => Ok(()),
            () = tokio::time::sleep_until(arrived + self.wait) => Err(self.refusal()),
        }
    }

    fn refusal(&self) -> Refusal {
        Refusal::new(Code::TenantHeld, "this tenant is held for a moment; send the request again shortly")
            .retry_after(RETRY_AFTER)
            .because(format_args!("the override `{}` is still in force", self.by.rule().id))
    }
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// For whoever does not wait: a test of the policy, an explanation.
impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Refused(refusal) => refusal,
            Stopped::Held(hold) => hold.refusal(),
        }
    }
}
