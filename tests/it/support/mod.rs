//! What several areas need to set the scene.

pub(crate) mod postgres;
pub(crate) mod tenant_fixture;
