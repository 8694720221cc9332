//! Rules for the volume sources that reach storage systems outside the cluster.

use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, CSIVolumeSource, CephFSVolumeSource,
    CinderVolumeSource, FCVolumeSource, FlexVolumeSource, FlockerVolumeSource, GCEPersistentDiskVolumeSource,
    GlusterfsVolumeSource, ISCSIVolumeSource, PersistentVolumeClaimSpec, QuobyteVolumeSource,
    RBDVolumeSource, ScaleIOVolumeSource, StorageOSVolumeSource, TypedLocalObjectReference,
    TypedObjectReference,
};

use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::{
        amount::Amount,
        check::{dns_subdomain, list, one_of, required, selector, text},
        volume,
    },
    name,
};

pub(crate) fn gce(errors: &mut Errors, disk: &GCEPersistentDiskVolumeSource, path: &Path) {
    required(errors, &path.child("pdName"), &disk.pd_name);
    partition(errors, disk.partition, path);
}

pub(crate) fn aws(errors: &mut Errors, disk: &AWSElasticBlockStoreVolumeSource, path: &Path) {
    required(errors, &path.child("volumeID"), &disk.volume_id);
    partition(errors, disk.partition, path);
}

fn partition(errors: &mut Errors, partition: Option<i32>, path: &Path) {
    if let Some(partition) = partition.filter(|p| !(0..=255).contains(p)) {
        let detail = name::inclusive_range(1, 255);
        errors.push(FieldError::invalid(&path.child("partition"), partition, detail));
    }
}

/// The name of an initiator or a target.
pub(crate) fn initiator(errors: &mut Errors, value: &str, path: &Path) {
    let alphanumeric = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_alphanumeric());
    let tail = value.get(4..).unwrap_or_default();
    let valid = if value.starts_with("iqn") {
        // iqn.yyyy-mm.domain:name
        let (date, rest) = tail.split_at_checked(7).unwrap_or_default();
        let b = date.as_bytes();
        value.as_bytes().get(3) == Some(&b'.')
            && b.iter().enumerate().all(|(i, c)| if i == 4 { *c == b'-' } else { c.is_ascii_digit() })
            && !b.is_empty()
            && rest.strip_prefix('.').and_then(|r| r.split_once(':')).is_some_and(|(domain, name)| {
                !domain.is_empty()
                    && domain.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
                    && !name.is_empty()
                    && !name.contains([',', ';', '*', '&', '$', '|', ' '])
            })
    } else if value.starts_with("eui") {
        alphanumeric(tail, 16)
    } else if value.starts_with("naa") {
        alphanumeric(tail, 32)
    } else {
        let detail = "must be valid format starting with iqn, eui, or naa";
        errors.push(FieldError::invalid(path, value, detail));
        return;
    };
    if !valid {
        errors.push(FieldError::invalid(path, value, "must be valid format"));
    }
}

/// What is said of a volume whose name and portal are too long for the name of an interface.
pub(crate) const ISCSI_NAME_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 \
                                              characters if iscsi.initiatorName is specified.";

pub(crate) fn iscsi(
    errors: &mut Errors,
    iscsi: &ISCSIVolumeSource,
    volume: &str,
    parent: &Path,
    path: &Path,
) {
    required(errors, &path.child("targetPortal"), &iscsi.target_portal);
    if iscsi.iqn.is_empty() {
        errors.push(FieldError::required(&path.child("iqn"), ""));
    } else {
        initiator(errors, &iscsi.iqn, &path.child("iqn"));
    }
    lun(errors, iscsi.lun, path);
    let chap = iscsi.chap_auth_discovery == Some(true) || iscsi.chap_auth_session == Some(true);
    if chap && iscsi.secret_ref.is_none() {
        errors.push(FieldError::required(&path.child("secretRef"), ""));
    }
    if let Some(name) = &iscsi.initiator_name {
        initiator(errors, name, &path.child("initiatorname"));
        if volume.len() + 1 + iscsi.target_portal.len() > 64 {
            errors.push(FieldError::invalid(&parent.child("name"), volume, ISCSI_NAME_TOO_LONG));
        }
    }
}

/// The number of a disk behind a target.
pub(crate) fn lun(errors: &mut Errors, lun: i32, path: &Path) {
    if !(0..=255).contains(&lun) {
        errors.push(FieldError::invalid(&path.child("lun"), lun, name::inclusive_range(0, 255)));
    }
}

pub(crate) fn fc(errors: &mut Errors, fc: &FCVolumeSource, path: &Path) {
    let (targets, wwids) = (list(&fc.target_wwns), list(&fc.wwids));
    let at = path.child("targetWWNs");
    if targets.is_empty() && wwids.is_empty() {
        errors.push(FieldError::required(&at, "must specify either targetWWNs or wwids, but not both"));
    }
    if !targets.is_empty() && !wwids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(&at, BadValue::of(&targets), detail));
    }
    if !targets.is_empty() {
        match fc.lun {
            None => {
                errors.push(FieldError::required(
                    &path.child("lun"),
                    "lun is required if targetWWNs is specified",
                ));
            }
            Some(number) => lun(errors, number, path),
        }
    }
}

pub(crate) fn glusterfs(errors: &mut Errors, gluster: &GlusterfsVolumeSource, path: &Path) {
    required(errors, &path.child("endpoints"), &gluster.endpoints);
    required(errors, &path.child("path"), &gluster.path);
}

pub(crate) fn flocker(errors: &mut Errors, flocker: &FlockerVolumeSource, path: &Path) {
    let (name, uuid) = (text(&flocker.dataset_name), text(&flocker.dataset_uuid));
    if name.is_empty() && uuid.is_empty() {
        errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(path, "resource", detail));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

pub(crate) fn rbd(errors: &mut Errors, rbd: &RBDVolumeSource, path: &Path) {
    if rbd.monitors.is_empty() {
        errors.push(FieldError::required(&path.child("monitors"), ""));
    }
    required(errors, &path.child("image"), &rbd.image);
}

pub(crate) fn cephfs(errors: &mut Errors, ceph: &CephFSVolumeSource, path: &Path) {
    if ceph.monitors.is_empty() {
        errors.push(FieldError::required(&path.child("monitors"), ""));
    }
}

pub(crate) fn cinder(errors: &mut Errors, cinder: &CinderVolumeSource, path: &Path) {
    required(errors, &path.child("volumeID"), &cinder.volume_id);
    if let Some(secret) = &cinder.secret_ref {
        required(errors, &path.child("secretRef").child("name"), &secret.name);
    }
}

pub(crate) fn quobyte(errors: &mut Errors, quobyte: &QuobyteVolumeSource, path: &Path) {
    let pairs = "must be a host:port pair or multiple pairs separated by commas";
    let at = path.child("registry");
    if quobyte.registry.is_empty() {
        errors.push(FieldError::required(&at, pairs));
    } else if text(&quobyte.tenant).len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(&path.child("tenant"), detail));
    } else {
        for pair in quobyte.registry.split(',') {
            if pair.rsplit_once(':').is_none_or(|(host, _)| host.contains(':') && !host.starts_with('[')) {
                errors.push(FieldError::invalid(&at, &quobyte.registry, pairs));
            }
        }
    }
    required(errors, &path.child("volume"), &quobyte.volume);
}

pub(crate) fn flex(errors: &mut Errors, flex: &FlexVolumeSource, path: &Path) {
    required(errors, &path.child("driver"), &flex.driver);
    for key in flex.options.iter().flatten().map(|(key, _)| key) {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let at = path.child("options").key(key);
            errors.push(FieldError::invalid(&at, key, "kubernetes.io and k8s.io namespaces are reserved"));
        }
    }
}

pub(crate) fn azure_disk(errors: &mut Errors, disk: &AzureDiskVolumeSource, path: &Path) {
    required(errors, &path.child("diskName"), &disk.disk_name);
    required(errors, &path.child("diskURI"), &disk.disk_uri);
    if let Some(mode) = &disk.caching_mode {
        one_of(errors, &path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = &disk.kind else { return };
    one_of(errors, &path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let (prefix, form) = if kind == "Managed" {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if !disk.disk_uri.starts_with(prefix) {
        errors.push(FieldError::not_supported(&path.child("diskURI"), &disk.disk_uri, &[form]));
    }
}

pub(crate) fn storageos(errors: &mut Errors, storage: &StorageOSVolumeSource, path: &Path) {
    let name = text(&storage.volume_name);
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("volumeName"), ""));
    } else {
        crate::kinds::check::dns_label(errors, &path.child("volumeName"), name);
    }
    let namespace = text(&storage.volume_namespace);
    if !namespace.is_empty() {
        crate::kinds::check::dns_label(errors, &path.child("volumeNamespace"), namespace);
    }
    if let Some(secret) = &storage.secret_ref {
        required(errors, &path.child("secretRef").child("name"), &secret.name);
    }
}

pub(crate) fn scale_io(errors: &mut Errors, scale: &ScaleIOVolumeSource, path: &Path) {
    required(errors, &path.child("gateway"), &scale.gateway);
    required(errors, &path.child("system"), &scale.system);
    required(errors, &path.child("volumeName"), text(&scale.volume_name));
}

pub(crate) fn csi(errors: &mut Errors, csi: &CSIVolumeSource, path: &Path) {
    volume::driver_name(errors, &csi.driver, &path.child("driver"));
    if let Some(secret) = &csi.node_publish_secret_ref {
        if secret.name.is_empty() {
            errors.push(FieldError::required(&path.child("nodePublishSecretRef").child("name"), ""));
        } else {
            // The path is upstream's.
            dns_subdomain(errors, &path.child("name"), &secret.name);
        }
    }
}

/// The spec of a claim for storage.
pub(crate) fn claim_spec(errors: &mut Errors, spec: &PersistentVolumeClaimSpec, path: &Path) {
    let modes = list(&spec.access_modes);
    let at = path.child("accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(&at, "at least 1 access mode is required"));
    }
    selector(errors, &path.child("selector"), spec.selector.as_ref());
    volume::access_modes(errors, modes, &at);
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let at = path.child("resources").key("storage");
    match requests.and_then(|r| r.get("storage")) {
        None => errors.push(FieldError::required(&at, "")),
        Some(size) => {
            if let Some(size) = Amount::of(size) {
                volume::positive_amount(errors, size, &at);
            }
        }
    }
    for (field, class) in [
        ("storageClassName", &spec.storage_class_name),
        ("volumeAttributesClassName", &spec.volume_attributes_class_name),
    ] {
        if let Some(class) = class.as_deref().filter(|class| !class.is_empty()) {
            dns_subdomain(errors, &path.child(field), class);
        }
        if field == "storageClassName" {
            volume::volume_mode(errors, spec.volume_mode.as_ref(), &path.child("volumeMode"));
            data_sources(errors, spec, path);
        }
    }
}

/// What a claim's volume is filled with: the two fields for it say the same.
fn data_sources(errors: &mut Errors, spec: &PersistentVolumeClaimSpec, path: &Path) {
    let (source, reference) = (&spec.data_source, &spec.data_source_ref);
    if let Some(source) = source {
        data_source(errors, source, &path.child("dataSource"));
    }
    let mut foreign = false;
    if let Some(reference) = reference {
        let at = path.child("dataSourceRef");
        data_source(errors, &local(reference), &at);
        let namespace = text(&reference.namespace);
        if !namespace.is_empty() {
            foreign = true;
            crate::kinds::check::dns_label(errors, &at.child("namespace"), namespace);
        }
    }
    let (Some(source), Some(reference)) = (source, reference) else { return };
    let shown = path.child("dataSource").to_string();
    if foreign {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(FieldError::invalid(path, shown, detail));
    } else if *source != local(reference) {
        errors.push(FieldError::invalid(path, shown, "must match dataSourceRef"));
    }
}

fn local(reference: &TypedObjectReference) -> TypedLocalObjectReference {
    let TypedObjectReference { api_group, kind, name, .. } = reference.clone();
    TypedLocalObjectReference { api_group, kind, name }
}

fn data_source(errors: &mut Errors, source: &TypedLocalObjectReference, path: &Path) {
    required(errors, &path.child("name"), &source.name);
    required(errors, &path.child("kind"), &source.kind);
    let group = text(&source.api_group);
    if group.is_empty() && source.kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, &source.kind, detail));
    }
    if !group.is_empty() {
        dns_subdomain(errors, &path.child("apiGroup"), group);
    }
}
