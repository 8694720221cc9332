//! What a persistent volume is made of. Where a pod's volumes have the same rules, theirs are used.

use k8s_openapi::api::core::v1::{
    AzureFilePersistentVolumeSource, CSIPersistentVolumeSource, CephFSVolumeSource,
    CinderPersistentVolumeSource, CinderVolumeSource, FlexVolumeSource, GlusterfsPersistentVolumeSource,
    GlusterfsVolumeSource, ISCSIPersistentVolumeSource, PersistentVolumeSpec, RBDVolumeSource,
    ScaleIOVolumeSource, StorageOSPersistentVolumeSource, StorageOSVolumeSource,
};

use crate::{
    field::{Errors, FieldError, Path},
    kinds::{
        check::{dns_label, required, text},
        pod::{
            storage,
            volumes::{Sources, host_path, nfs, no_backsteps},
        },
        volume,
    },
};

/// A spec with nothing but its source.
pub(super) fn of(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}

fn set(field: &mut Option<String>, value: &str) {
    if text(field).is_empty() {
        *field = Some(value.to_owned());
    }
}

/// What sources have where nothing is said.
pub(super) fn set_defaults(spec: &mut PersistentVolumeSpec) {
    if let Some(host) = &mut spec.host_path {
        host.type_.get_or_insert_default();
    }
    if let Some(iscsi) = &mut spec.iscsi {
        set(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut spec.rbd {
        set(&mut rbd.pool, "rbd");
        set(&mut rbd.user, "admin");
        set(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut spec.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".to_owned());
        disk.kind.get_or_insert_with(|| "Shared".to_owned());
        disk.fs_type.get_or_insert_with(|| "ext4".to_owned());
        disk.read_only.get_or_insert(false);
    }
    if let Some(scale) = &mut spec.scale_io {
        set(&mut scale.storage_mode, "ThinProvisioned");
        set(&mut scale.fs_type, "xfs");
    }
}

/// Exactly one source, and a sound one; in upstream's order.
pub(super) fn validate(errors: &mut Errors, spec: &PersistentVolumeSpec, name: &str, path: &Path) {
    let mut sources = Sources::new(errors, path);
    sources.one("hostPath", spec.host_path.as_ref(), host_path);
    sources.one_named("gcePersistentDisk", "persistentDisk", spec.gce_persistent_disk.as_ref(), storage::gce);
    sources.one("awsElasticBlockStore", spec.aws_elastic_block_store.as_ref(), storage::aws);
    sources.one("glusterfs", spec.glusterfs.as_ref(), glusterfs);
    sources.one("flocker", spec.flocker.as_ref(), storage::flocker);
    sources.one("nfs", spec.nfs.as_ref(), nfs);
    sources.one("rbd", spec.rbd.as_ref(), |errors, rbd, at| {
        let (image, monitors) = (rbd.image.clone(), rbd.monitors.clone());
        storage::rbd(errors, &RBDVolumeSource { image, monitors, ..Default::default() }, at);
    });
    sources.one("quobyte", spec.quobyte.as_ref(), storage::quobyte);
    sources.one_named("cephFS", "cephfs", spec.cephfs.as_ref(), |errors, ceph, at| {
        let monitors = ceph.monitors.clone();
        storage::cephfs(errors, &CephFSVolumeSource { monitors, ..Default::default() }, at);
    });
    sources.one("iscsi", spec.iscsi.as_ref(), |errors, source, at| iscsi(errors, source, name, at));
    sources.one("cinder", spec.cinder.as_ref(), cinder);
    sources.one("fc", spec.fc.as_ref(), storage::fc);
    // Upstream checks it beside another source, too.
    sources.also("flexVolume", spec.flex_volume.as_ref(), |errors, flex, at| {
        let (driver, options) = (flex.driver.clone(), flex.options.clone());
        storage::flex(errors, &FlexVolumeSource { driver, options, ..Default::default() }, at);
    });
    sources.one("azureFile", spec.azure_file.as_ref(), azure_file);
    sources.one("vsphereVolume", spec.vsphere_volume.as_ref(), |errors, vsphere, at| {
        required(errors, &at.child("volumePath"), &vsphere.volume_path);
    });
    sources.one("photonPersistentDisk", spec.photon_persistent_disk.as_ref(), |errors, photon, at| {
        required(errors, &at.child("pdID"), &photon.pd_id);
    });
    sources.one("portworxVolume", spec.portworx_volume.as_ref(), |errors, portworx, at| {
        required(errors, &at.child("volumeID"), &portworx.volume_id);
    });
    sources.one("azureDisk", spec.azure_disk.as_ref(), storage::azure_disk);
    sources.one("scaleIO", spec.scale_io.as_ref(), |errors, scale, at| {
        let source = ScaleIOVolumeSource {
            gateway: scale.gateway.clone(),
            system: scale.system.clone(),
            volume_name: scale.volume_name.clone(),
            ..Default::default()
        };
        storage::scale_io(errors, &source, at);
    });
    sources.one("local", spec.local.as_ref(), |errors, local, at| {
        required(errors, &at.child("path"), &local.path);
        no_backsteps(errors, &local.path, &at.child("path"));
        if spec.node_affinity.is_none() {
            let detail = "Local volume requires node affinity";
            errors.push(FieldError::required(&path.child("nodeAffinity"), detail));
        }
    });
    sources.one("storageos", spec.storageos.as_ref(), storageos);
    sources.one("csi", spec.csi.as_ref(), csi);
    sources.at_least_one();
}

fn glusterfs(errors: &mut Errors, gluster: &GlusterfsPersistentVolumeSource, path: &Path) {
    let source = GlusterfsVolumeSource {
        endpoints: gluster.endpoints.clone(),
        path: gluster.path.clone(),
        ..Default::default()
    };
    storage::glusterfs(errors, &source, path);
    let at = path.child("endpointsNamespace");
    match gluster.endpoints_namespace.as_deref() {
        None => {}
        Some("") => {
            let detail = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.push(FieldError::invalid(&at, "", detail));
        }
        Some(namespace) => dns_label(errors, &at, namespace),
    }
}

fn iscsi(errors: &mut Errors, iscsi: &ISCSIPersistentVolumeSource, volume: &str, path: &Path) {
    required(errors, &path.child("targetPortal"), &iscsi.target_portal);
    if iscsi.initiator_name.is_some() && volume.len() + 1 + iscsi.target_portal.len() > 64 {
        errors.push(FieldError::invalid(
            &path.child("targetportal"),
            &iscsi.target_portal,
            storage::ISCSI_NAME_TOO_LONG,
        ));
    }
    let known = ["iqn", "eui", "naa"].iter().any(|prefix| iscsi.iqn.starts_with(prefix));
    let at = path.child("iqn");
    if iscsi.iqn.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if known {
        storage::initiator(errors, &iscsi.iqn, &at);
    } else {
        errors.push(FieldError::invalid(&at, &iscsi.iqn, "must be valid format"));
    }
    storage::lun(errors, iscsi.lun, path);
    let chap = iscsi.chap_auth_discovery == Some(true) || iscsi.chap_auth_session == Some(true);
    let at = path.child("secretRef");
    match &iscsi.secret_ref {
        None if chap => errors.push(FieldError::required(&at, "")),
        None => {}
        Some(secret) => required(errors, &at.child("name"), text(&secret.name)),
    }
    if let Some(name) = &iscsi.initiator_name {
        storage::initiator(errors, name, &path.child("initiatorname"));
    }
}

fn cinder(errors: &mut Errors, cinder: &CinderPersistentVolumeSource, path: &Path) {
    let volume_id = cinder.volume_id.clone();
    storage::cinder(errors, &CinderVolumeSource { volume_id, ..Default::default() }, path);
    if let Some(secret) = &cinder.secret_ref {
        let at = path.child("secretRef");
        required(errors, &at.child("name"), text(&secret.name));
        required(errors, &at.child("namespace"), text(&secret.namespace));
    }
}

fn azure_file(errors: &mut Errors, azure: &AzureFilePersistentVolumeSource, path: &Path) {
    required(errors, &path.child("secretName"), &azure.secret_name);
    required(errors, &path.child("shareName"), &azure.share_name);
    if let Some(namespace) = &azure.secret_namespace {
        required(errors, &path.child("secretNamespace"), namespace);
    }
}

fn storageos(errors: &mut Errors, source: &StorageOSPersistentVolumeSource, path: &Path) {
    let (volume_name, volume_namespace) = (source.volume_name.clone(), source.volume_namespace.clone());
    let common = StorageOSVolumeSource { volume_name, volume_namespace, ..Default::default() };
    storage::storageos(errors, &common, path);
    if let Some(secret) = &source.secret_ref {
        let at = path.child("secretRef");
        required(errors, &at.child("name"), text(&secret.name));
        required(errors, &at.child("namespace"), text(&secret.namespace));
    }
}

fn csi(errors: &mut Errors, csi: &CSIPersistentVolumeSource, path: &Path) {
    volume::driver_name(errors, &csi.driver, &path.child("driver"));
    required(errors, &path.child("volumeHandle"), &csi.volume_handle);
    for (field, secret) in [
        ("controllerPublishSecretRef", &csi.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &csi.controller_expand_secret_ref),
        ("nodePublishSecretRef", &csi.node_publish_secret_ref),
        ("nodeExpandSecretRef", &csi.node_expand_secret_ref),
    ] {
        if let Some(secret) = secret {
            volume::secret(errors, secret, &path.child(field));
        }
    }
}

/// Advice about sources that no longer work.
pub(super) fn warnings(out: &mut Vec<String>, spec: &PersistentVolumeSpec, path: &Path) {
    for (field, given, message) in [
        ("cephfs", spec.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        (
            "photonPersistentDisk",
            spec.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("scaleIO", spec.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("storageOS", spec.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", spec.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", spec.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        if given {
            out.push(format!("{}: {message}", path.child(field)));
        }
    }
}
