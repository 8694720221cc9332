//! What claims use: for storage, and for devices.

use k8s_openapi::api::{core::v1::PersistentVolumeClaim, resource::v1::ResourceClaim};

use super::{Amounts, read, whole};
use crate::{
    kinds::{class_of, list},
    quantity::Quantity,
};

const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
/// A claim can't get more devices.
const MOST_DEVICES: i64 = 32;

pub(super) fn storage_uses(name: &str) -> bool {
    let name = name.split_once(OF_CLASS).map_or(name, |(_, name)| name);
    matches!(name, CLAIMS | STORAGE)
}

/// One claim, and as much as it asks for or already got.
pub(super) fn storage_usage(used: &mut Amounts, claim: &PersistentVolumeClaim) {
    let spec = claim.spec.as_ref();
    let class = class_of(&claim.metadata, spec.and_then(|spec| spec.storage_class_name.as_ref()));
    let mut both = |name: &str, amount: Quantity| {
        used.insert(name.to_owned(), amount);
        if !class.is_empty() {
            used.insert(format!("{class}{OF_CLASS}{name}"), amount);
        }
    };
    both(CLAIMS, whole(1));
    let requests = spec.and_then(|spec| spec.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let Some(wanted) = read(requests).remove("storage") else { return };
    let status = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
    let got = read(status).remove("storage");
    let amount = got.map_or(wanted, |got| got.max(wanted));
    // Bytes are whole.
    let rounded = Quantity::from_value(amount.value(), amount.format());
    both(STORAGE, if amount.is_integer() { amount } else { rounded });
}

pub(super) fn device_uses(name: &str) -> bool {
    name.ends_with(DEVICES)
}

/// Devices of each class; of alternatives the one with the most.
pub(super) fn device_usage(used: &mut Amounts, claim: &ResourceClaim) {
    let count = |mode: &Option<String>, count: Option<i64>| match mode.as_deref() {
        Some("ExactCount") => count.unwrap_or_default(),
        _ => MOST_DEVICES,
    };
    let requests = claim.spec.devices.iter().flat_map(|devices| list(&devices.requests));
    for request in requests {
        let mut wanted = Amounts::new();
        if let Some(exactly) = &request.exactly {
            let count = whole(count(&exactly.allocation_mode, exactly.count));
            wanted.insert(format!("{}{DEVICES}", exactly.device_class_name), count);
        }
        for sub in list(&request.first_available) {
            let count = whole(count(&sub.allocation_mode, sub.count));
            let most = wanted.entry(format!("{}{DEVICES}", sub.device_class_name)).or_insert(count);
            *most = (*most).max(count);
        }
        super::add(used, &wanted);
    }
}
