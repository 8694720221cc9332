//! The rules of storage.k8s.io/v1 CSINode.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};
use serde_json::Value;

use super::{
    cells::age,
    check::{inside, list, nonnegative, qualified_name, same},
    volume,
};
use crate::{
    field::{Errors, FieldError, Path},
    object::{Kind, Null, name_cell},
    resource::Column,
};

/// A node's name in a driver's own words may have this many bytes.
const MOST_ID: usize = 256;

impl Kind for CSINode {
    const RETURNS_DELETED: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;
    const NULLS: &'static [Null<Self>] = &[
        ("spec.drivers", |it| it.spec.drivers.is_empty()),
        ("spec.drivers[].topologyKeys", |it| {
            it.spec.drivers.iter().any(|d| list(&d.topology_keys).is_empty())
        }),
    ];
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::integer("Drivers")
            .about("Drivers indicates the number of CSI drivers registered on the node"),
        Column::age(),
    ];

    fn validate(&self) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec").child("drivers");
        let mut names = BTreeSet::new();
        for (i, driver) in self.spec.drivers.iter().enumerate() {
            let at = path.index(i);
            validate_driver(&mut errors, driver, &at);
            if !names.insert(&driver.name) {
                errors.push(FieldError::duplicate(&at.child("name"), &driver.name));
            }
            let mut keys = BTreeSet::new();
            for key in list(&driver.topology_keys) {
                if key.is_empty() {
                    errors.push(FieldError::required(&at, ""));
                }
                if !keys.insert(key) {
                    errors.push(FieldError::duplicate(&at, key));
                }
                qualified_name(&mut errors, &at, key);
            }
        }
        errors
    }

    fn validate_update(&self, old: &Self) -> Errors {
        let mut errors = self.validate();
        let path = Path::new("spec").child("drivers");
        // How many volumes fit may change; what else is known of a driver may not.
        let rest = |driver: &CSINodeDriver| CSINodeDriver { allocatable: None, ..driver.clone() };
        let mut by_name: BTreeMap<&str, Vec<&CSINodeDriver>> = BTreeMap::new();
        for now in &self.spec.drivers {
            by_name.entry(&now.name).or_default().push(now);
        }
        // No name is stored twice.
        for before in &old.spec.drivers {
            for now in by_name.remove(before.name.as_str()).unwrap_or_default() {
                if !same(&rest(now), &rest(before)) {
                    let shown = inside(now, "api/storage/v1.CSINodeDriver");
                    errors.push(FieldError::invalid(&path, shown, "field is immutable"));
                }
            }
        }
        errors
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name_cell(&self.metadata), self.spec.drivers.len().into(), age(&self.metadata, now)]
    }
}

fn validate_driver(errors: &mut Errors, driver: &CSINodeDriver, path: &Path) {
    volume::driver_name(errors, &driver.name, &path.child("name"));
    let at = path.child("nodeID");
    if driver.node_id.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    if driver.node_id.len() > MOST_ID {
        let detail = format!("must be {MOST_ID} characters or less");
        errors.push(FieldError::invalid(&at, &driver.node_id, detail));
    }
    let count = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count);
    nonnegative(errors, &path.child("allocatable").child("count"), count);
}
