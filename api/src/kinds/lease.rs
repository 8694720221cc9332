//! The rules of coordination/v1 Lease.

use k8s_openapi::api::coordination::v1::Lease;

use crate::object::Kind;

impl Kind for Lease {}
