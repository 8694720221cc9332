//! What every write passes between authorization and the store.

use std::sync::Arc;

use api::object::Object;
use api::resource::Resource;
use api::status::Status;

use crate::context::Warnings;
use crate::registry::Registry;
use crate::{Config, UserInfo};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What admission knows of a request.
#[derive(Debug)]
pub struct AdmissionContext<'a> {
    pub user: &'a Arc<UserInfo>,
    pub operation: Operation,
    pub resource: &'a Resource,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    pub name: String,
    pub dry_run: bool,
    pub warnings: &'a Warnings,
}

/// The admission plugins of one API server.
#[derive(Debug)]
pub struct Admission {}

impl Admission {
    /// Reads what it decides by from the registry's caches.
    pub fn new(_config: &Config, _registry: Arc<Registry>) -> Self {
        Self {}
    }

    /// Changes the object, or refuses it.
    pub fn admit(
        &self,
        _context: &AdmissionContext<'_>,
        _object: &mut dyn Object,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses what must not be. On delete and connect there is no new object.
    pub fn validate(
        &self,
        _context: &AdmissionContext<'_>,
        _object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        Ok(())
    }
}
