//! What a claim has got: its status.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceAllocationConfiguration, DeviceRequestAllocationResult,
    NetworkDeviceData, ResourceClaimStatus,
};
use serde_json::Value;

use super::{
    MOST, binding,
    claim::{Names, operators},
    driver, each, each_once, opaque, pool, raw, tolerations, uid,
};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::{
        check::{dns_label, immutable, list, required, required_one_of, text},
        format,
        pod::affinity::node_selector,
    },
};

const MOST_CONSUMERS: usize = 256;
const MOST_CONDITIONS: usize = 8;
const MOST_ADDRESSES: usize = 16;
const MOST_INTERFACE: usize = 256;
const MOST_HARDWARE: usize = 128;

/// What is not said of devices that are allocated.
pub(crate) fn set_defaults(status: &mut ResourceClaimStatus) {
    let devices = status.allocation.as_mut().and_then(|allocation| allocation.devices.as_mut());
    for result in devices.into_iter().flat_map(|devices| devices.results.iter_mut().flatten()) {
        operators(&mut result.tolerations);
    }
}

/// A device among all of a claim, as messages show it.
fn id(driver: &str, pool: &str, device: &str, share: &Option<String>) -> String {
    let id = format!("{driver}/{pool}/{device}");
    if text(share).is_empty() { id } else { format!("{id}/{}", text(share)) }
}

fn allocated(status: &ResourceClaimStatus) -> BTreeSet<String> {
    let devices = status.allocation.as_ref().and_then(|allocation| allocation.devices.as_ref());
    let results = devices.into_iter().flat_map(|devices| list(&devices.results));
    results.map(|result| id(&result.driver, &result.pool, &result.device, &result.share_id)).collect()
}

/// Forgets the states of devices that the claim no longer has.
pub(crate) fn drop_deallocated(new: &mut ResourceClaimStatus, old: &ResourceClaimStatus) {
    let (before, now) = (allocated(old), allocated(new));
    let reported: BTreeSet<String> = list(&old.devices).iter().map(device_id).collect();
    if let Some(devices) = &mut new.devices {
        devices.retain(|device| {
            let id = device_id(device);
            now.contains(&id) || !before.contains(&id) || !reported.contains(&id)
        });
    }
    new.devices = new.devices.take().filter(|devices| !devices.is_empty());
}

fn device_id(device: &AllocatedDeviceStatus) -> String {
    id(&device.driver, &device.pool, &device.device, &device.share_id)
}

/// An update of the status.
pub(crate) fn validate(
    errors: &mut Errors,
    status: &ResourceClaimStatus,
    old: &ResourceClaimStatus,
    ends: bool,
    names: &Names<'_>,
    path: &Path,
) {
    let consumers = list(&status.reserved_for);
    let at = path.child("reservedFor");
    let uid_of = |consumer: &k8s_openapi::api::resource::v1::ResourceClaimConsumerReference| {
        BadValue::from(&consumer.uid)
    };
    each_once(errors, consumers, MOST_CONSUMERS, &at, uid_of, |errors, consumer, at| {
        required(errors, &at.child("resource"), &consumer.resource);
        required(errors, &at.child("name"), &consumer.name);
        required(errors, &at.child("uid"), &consumer.uid);
    });
    let allocated = allocated(status);
    let devices_at = path.child("devices");
    let key = |device: &AllocatedDeviceStatus| device_id(device).into();
    each_once(errors, list(&status.devices), usize::MAX, &devices_at, key, |errors, device, at| {
        device_status(errors, device, &allocated, at);
    });
    if !consumers.is_empty() {
        if status.allocation.is_none() {
            let detail = "may not be specified when `allocated` is not set";
            errors.push(FieldError::forbidden(&at, detail));
        } else if ends && consumers.iter().any(|new| !list(&old.reserved_for).contains(new)) {
            let detail =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(&at, detail));
        }
    }
    let at = path.child("allocation");
    match (&status.allocation, &old.allocation) {
        (Some(_), Some(_)) => immutable(errors, &at, &status.allocation, &old.allocation),
        (Some(allocation), None) => result(errors, allocation, names, &at),
        _ => {}
    }
}

fn result(errors: &mut Errors, allocation: &AllocationResult, names: &Names<'_>, path: &Path) {
    if let Some(devices) = &allocation.devices {
        let path = path.child("devices");
        each(errors, list(&devices.results), MOST, &path.child("results"), |errors, result, at| {
            device(errors, result, names, at);
        });
        // Those of the class and those of the claim.
        each(errors, list(&devices.config), 2 * MOST, &path.child("config"), |errors, config, at| {
            configuration(errors, config, names, at);
        });
    }
    if let Some(selector) = &allocation.node_selector {
        node_selector(errors, selector, &path.child("nodeSelector"));
    }
}

fn device(errors: &mut Errors, result: &DeviceRequestAllocationResult, names: &Names<'_>, path: &Path) {
    names.reference(errors, &result.request, &path.child("request"));
    driver(errors, &result.driver, &path.child("driver"));
    pool(errors, &result.pool, &path.child("pool"));
    dns_label(errors, &path.child("device"), &result.device);
    let (conditions, failures) = (&result.binding_conditions, &result.binding_failure_conditions);
    binding(errors, list(conditions), list(failures), path);
    tolerations(errors, list(&result.tolerations), &path.child("tolerations"));
    if let Some(share) = &result.share_id {
        uid(errors, share, &path.child("shareID"));
    }
}

fn configuration(
    errors: &mut Errors,
    config: &DeviceAllocationConfiguration,
    names: &Names<'_>,
    path: &Path,
) {
    required_one_of(errors, &path.child("source"), &config.source, &["FromClaim", "FromClass"]);
    names.references(errors, list(&config.requests), &path.child("requests"));
    opaque(errors, config.opaque.as_ref(), path);
}

fn device_status(
    errors: &mut Errors,
    device: &AllocatedDeviceStatus,
    allocated: &BTreeSet<String>,
    path: &Path,
) {
    driver(errors, &device.driver, &path.child("driver"));
    pool(errors, &device.pool, &path.child("pool"));
    dns_label(errors, &path.child("device"), &device.device);
    if let Some(share) = &device.share_id {
        uid(errors, share, &path.child("shareID"));
    }
    let id = device_id(device);
    if !allocated.contains(&id) {
        errors.push(FieldError::invalid(path, id, "must be an allocated device in the claim"));
    }
    let at = path.child("conditions");
    let count = list(&device.conditions).len();
    if count > MOST_CONDITIONS {
        errors.push(FieldError::too_many(&at, count, MOST_CONDITIONS));
    }
    format::conditions(errors, &at, list(&device.conditions));
    if let Some(data) = device.data.as_ref().filter(|data| data.0 != Value::Null) {
        raw(errors, data, &path.child("data"));
    }
    if let Some(network) = &device.network_data {
        network_data(errors, network, &path.child("networkData"));
    }
}

fn network_data(errors: &mut Errors, network: &NetworkDeviceData, path: &Path) {
    for (field, value, most) in [
        ("interfaceName", &network.interface_name, MOST_INTERFACE),
        ("hardwareAddress", &network.hardware_address, MOST_HARDWARE),
    ] {
        if text(value).len() > most {
            errors.push(FieldError::too_long(&path.child(field), most));
        }
    }
    let at = path.child("ips");
    each_once(
        errors,
        list(&network.ips),
        MOST_ADDRESSES,
        &at,
        |ip| ip.into(),
        |errors, ip, at| {
            interface_address(errors, ip, at);
        },
    );
}

/// An address with the length of its prefix, in canonical form.
fn interface_address(errors: &mut Errors, value: &str, path: &Path) {
    let parsed = value.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (length <= most).then(|| format!("{address}/{length}"))
    });
    match parsed {
        None => {
            let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            errors.push(FieldError::invalid(path, value, detail));
        }
        Some(canonical) if canonical != value => {
            let detail = format!("must be in canonical form (\"{canonical}\")");
            errors.push(FieldError::invalid(path, value, detail));
        }
        Some(_) => {}
    }
}
