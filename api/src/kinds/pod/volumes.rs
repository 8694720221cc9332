//! Rules for volumes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{
        ClusterTrustBundleProjection, DownwardAPIVolumeFile, EphemeralVolumeSource, HostPathVolumeSource,
        ImageVolumeSource, KeyToPath, NFSVolumeSource, PodCertificateProjection, ProjectedVolumeSource,
        Volume,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{env, storage};
use crate::{
    field::{BadValue, Errors, FieldError, Path},
    kinds::{
        amount::Amount,
        check::{dns_label, dns_subdomain, list, one_of, qualified_name, required, selector, text},
        template_meta,
    },
    name,
};

/// The sound volumes of a pod by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks the volumes and returns those without fault; `meta` is that of the pod, None in a template.
pub(super) fn validate<'a>(
    errors: &mut Errors,
    volumes: &'a [Volume],
    meta: Option<&ObjectMeta>,
    path: &Path,
) -> Volumes<'a> {
    let pod_name = meta.map(|m| text(&m.name)).filter(|name| !name.is_empty());
    let claim = |volume: &Volume| pod_name.map(|pod| format!("{pod}-{}", volume.name));
    let created: BTreeSet<String> =
        volumes.iter().filter(|v| v.ephemeral.is_some()).filter_map(claim).collect();
    let mut sound = Volumes::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let name_at = at.child("name");
        let mut found = Errors::new();
        source(&mut found, volume, pod_name, &at);
        if volume.name.is_empty() {
            found.push(FieldError::required(&name_at, ""));
        } else {
            dns_label(&mut found, &name_at, &volume.name);
        }
        if sound.contains_key(volume.name.as_str()) {
            found.push(FieldError::duplicate(&name_at, &volume.name));
        }
        if found.is_empty() {
            sound.insert(&volume.name, volume);
        }
        errors.append(&mut found);
        if let Some(claim) =
            volume.persistent_volume_claim.as_ref().filter(|c| created.contains(&c.claim_name))
        {
            let at = at.child("persistentVolumeClaim").child("claimName");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(&at, &claim.claim_name, detail));
        }
    }
    sound
}

/// Checks one of the sources a volume may have; the first is checked, the others are refused.
pub(crate) struct Sources<'a> {
    errors: &'a mut Errors,
    path: &'a Path,
    given: bool,
}

impl<'a> Sources<'a> {
    /// None is given yet.
    pub(crate) fn new(errors: &'a mut Errors, path: &'a Path) -> Self {
        Self { errors, path, given: false }
    }

    pub(crate) fn one<T>(
        &mut self,
        field: &str,
        source: Option<&T>,
        check: impl FnOnce(&mut Errors, &T, &Path),
    ) {
        self.one_named(field, field, source, check);
    }

    /// A source that upstream names otherwise where it is one too many.
    pub(crate) fn one_named<T>(
        &mut self,
        field: &str,
        checked_as: &str,
        source: Option<&T>,
        check: impl FnOnce(&mut Errors, &T, &Path),
    ) {
        let Some(source) = source else { return };
        if self.given {
            let at = self.path.child(field);
            self.errors.push(FieldError::forbidden(&at, "may not specify more than 1 volume type"));
        } else {
            self.also(checked_as, Some(source), check);
        }
    }

    /// A source that is checked whether there is another one or not.
    pub(crate) fn also<T>(
        &mut self,
        field: &str,
        source: Option<&T>,
        check: impl FnOnce(&mut Errors, &T, &Path),
    ) {
        let Some(source) = source else { return };
        self.given = true;
        check(self.errors, source, &self.path.child(field));
    }

    /// Without any source there is no volume.
    pub(crate) fn at_least_one(self) {
        if !self.given {
            self.errors.push(FieldError::required(self.path, "must specify a volume type"));
        }
    }
}

fn source(errors: &mut Errors, volume: &Volume, pod_name: Option<&str>, path: &Path) {
    let mut sources = Sources::new(errors, path);
    sources.one("emptyDir", volume.empty_dir.as_ref(), |errors, dir, at| {
        if dir.size_limit.as_ref().and_then(Amount::of).is_some_and(|limit| limit.is_negative()) {
            let detail = "SizeLimit field must be a valid resource quantity";
            errors.push(FieldError::forbidden(&at.child("sizeLimit"), detail));
        }
    });
    sources.one("hostPath", volume.host_path.as_ref(), host_path);
    sources.one("gitRepo", volume.git_repo.as_ref(), |errors, git, at| {
        required(errors, &at.child("repository"), &git.repository);
        descending_path(errors, text(&git.directory), &at.child("directory"));
    });
    let disk = volume.gce_persistent_disk.as_ref();
    sources.one_named("gcePersistentDisk", "persistentDisk", disk, storage::gce);
    sources.one("awsElasticBlockStore", volume.aws_elastic_block_store.as_ref(), storage::aws);
    sources.one("secret", volume.secret.as_ref(), |errors, secret, at| {
        required(errors, &at.child("secretName"), text(&secret.secret_name));
        mode(errors, secret.default_mode, &at.child("defaultMode"));
        items(errors, list(&secret.items), &at.child("items"));
    });
    sources.one("nfs", volume.nfs.as_ref(), nfs);
    sources.one("iscsi", volume.iscsi.as_ref(), |errors, iscsi, at| {
        storage::iscsi(errors, iscsi, &volume.name, path, at);
    });
    sources.one("glusterfs", volume.glusterfs.as_ref(), storage::glusterfs);
    sources.one("flocker", volume.flocker.as_ref(), storage::flocker);
    sources.one("persistentVolumeClaim", volume.persistent_volume_claim.as_ref(), |errors, claim, at| {
        required(errors, &at.child("claimName"), &claim.claim_name);
    });
    sources.one("rbd", volume.rbd.as_ref(), storage::rbd);
    sources.one("cinder", volume.cinder.as_ref(), storage::cinder);
    sources.one("cephfs", volume.cephfs.as_ref(), storage::cephfs);
    sources.one("quobyte", volume.quobyte.as_ref(), storage::quobyte);
    sources.one("downwardAPI", volume.downward_api.as_ref(), |errors, downward, at| {
        mode(errors, downward.default_mode, &at.child("defaultMode"));
        for file in list(&downward.items) {
            downward_file(errors, file, at);
        }
    });
    sources.one("fc", volume.fc.as_ref(), storage::fc);
    sources.one("flexVolume", volume.flex_volume.as_ref(), storage::flex);
    sources.one("configMap", volume.config_map.as_ref(), |errors, map, at| {
        required(errors, &at.child("name"), &map.name);
        mode(errors, map.default_mode, &at.child("defaultMode"));
        items(errors, list(&map.items), &at.child("items"));
    });
    sources.one("azureFile", volume.azure_file.as_ref(), |errors, azure, at| {
        required(errors, &at.child("secretName"), &azure.secret_name);
        required(errors, &at.child("shareName"), &azure.share_name);
    });
    sources.one("vsphereVolume", volume.vsphere_volume.as_ref(), |errors, vsphere, at| {
        required(errors, &at.child("volumePath"), &vsphere.volume_path);
    });
    sources.one("photonPersistentDisk", volume.photon_persistent_disk.as_ref(), |errors, photon, at| {
        required(errors, &at.child("pdID"), &photon.pd_id);
    });
    sources.one("portworxVolume", volume.portworx_volume.as_ref(), |errors, portworx, at| {
        required(errors, &at.child("volumeID"), &portworx.volume_id);
    });
    sources.one("azureDisk", volume.azure_disk.as_ref(), storage::azure_disk);
    sources.one("storageos", volume.storageos.as_ref(), storage::storageos);
    sources.one("projected", volume.projected.as_ref(), projected);
    sources.one("scaleIO", volume.scale_io.as_ref(), storage::scale_io);
    sources.one("csi", volume.csi.as_ref(), storage::csi);
    sources.one("ephemeral", volume.ephemeral.as_ref(), |errors, ephemeral, at| {
        ephemeral_claim(errors, ephemeral, at);
        if let Some(pod) = pod_name.filter(|_| !volume.name.is_empty()) {
            let claim = format!("{pod}-{}", volume.name);
            for problem in name::dns1123_subdomain(&claim) {
                let detail = format!("PVC name {claim:?}: {problem}");
                errors.push(FieldError::invalid(&path.child("name"), &volume.name, detail));
            }
        }
    });
    sources.one("image", volume.image.as_ref(), image);
    sources.at_least_one();
}

/// A path on the node.
pub(crate) fn host_path(errors: &mut Errors, host: &HostPathVolumeSource, path: &Path) {
    if host.path.is_empty() {
        errors.push(FieldError::required(&path.child("path"), ""));
        return;
    }
    no_backsteps(errors, &host.path, &path.child("path"));
    one_of(errors, &path.child("type"), text(&host.type_), HOST_PATH_TYPES);
}

/// A share of an NFS server.
pub(crate) fn nfs(errors: &mut Errors, nfs: &NFSVolumeSource, path: &Path) {
    required(errors, &path.child("server"), &nfs.server);
    required(errors, &path.child("path"), &nfs.path);
    if !nfs.path.starts_with('/') {
        errors.push(FieldError::invalid(&path.child("path"), &nfs.path, "must be an absolute path"));
    }
}

fn image(errors: &mut Errors, image: &ImageVolumeSource, path: &Path) {
    required(errors, &path.child("reference"), text(&image.reference));
    if let Some(policy) = image.pull_policy.as_deref() {
        one_of(errors, &path.child("pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    }
}

fn ephemeral_claim(errors: &mut Errors, ephemeral: &EphemeralVolumeSource, path: &Path) {
    let path = path.child("volumeClaimTemplate");
    let Some(template) = &ephemeral.volume_claim_template else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    if let Some(metadata) = &template.metadata {
        template_meta::validate(errors, metadata, &path.child("metadata"));
    }
    storage::claim_spec(errors, &template.spec, &path.child("spec"));
}

fn mode(errors: &mut Errors, mode: Option<i32>, path: &Path) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.push(FieldError::invalid(path, mode, FILE_MODE));
    }
}

fn items(errors: &mut Errors, items: &[KeyToPath], path: &Path) {
    for (i, item) in items.iter().enumerate() {
        key_to_path(errors, item, &path.index(i));
    }
}

fn key_to_path(errors: &mut Errors, item: &KeyToPath, path: &Path) {
    required(errors, &path.child("key"), &item.key);
    required(errors, &path.child("path"), &item.path);
    local_path(errors, &item.path, &path.child("path"));
    mode(errors, item.mode, &path.child("mode"));
}

fn downward_file(errors: &mut Errors, file: &DownwardAPIVolumeFile, path: &Path) {
    required(errors, &path.child("path"), &file.path);
    local_path(errors, &file.path, &path.child("path"));
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            env::field_ref(errors, field, env::VOLUME_FIELDS, &path.child("fieldRef"));
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, "resource", detail));
            }
        }
        (None, Some(resource)) => env::resource_ref(errors, resource, true, &path.child("resourceFieldRef")),
        (None, None) => {
            errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
        }
    }
    mode(errors, file.mode, &path.child("mode"));
}

fn projected(errors: &mut Errors, volume: &ProjectedVolumeSource, path: &Path) {
    mode(errors, volume.default_mode, &path.child("defaultMode"));
    let mut paths = BTreeSet::new();
    for (i, source) in list(&volume.sources).iter().enumerate() {
        let at = path.child("sources").index(i);
        let mut given = 0;
        let mut keys = |errors: &mut Errors, name: &str, items: &[KeyToPath], at: &Path| {
            required(errors, &at.child("name"), name);
            for (i, item) in items.iter().enumerate() {
                key_to_path(errors, item, &at.child("items").index(i));
                if !item.path.is_empty() && !paths.insert(item.path.clone()) {
                    errors.push(FieldError::invalid(path, name, "conflicting duplicate paths"));
                }
            }
        };
        if let Some(secret) = &source.secret {
            given += 1;
            keys(errors, &secret.name, list(&secret.items), &at.child("secret"));
        }
        if let Some(map) = &source.config_map {
            given += 1;
            keys(errors, &map.name, list(&map.items), &at.child("configMap"));
        }
        let mut unique = |errors: &mut Errors, value: &str| {
            if !value.is_empty() && !paths.insert(value.to_owned()) {
                errors.push(FieldError::invalid(path, value, "conflicting duplicate paths"));
            }
        };
        if let Some(downward) = &source.downward_api {
            given += 1;
            for file in list(&downward.items) {
                downward_file(errors, file, &at.child("downwardAPI"));
                unique(errors, &file.path);
            }
        }
        if let Some(token) = &source.service_account_token {
            given += 1;
            let seconds = token.expiration_seconds.unwrap_or_default();
            let expiry = at.child("serviceAccountToken").child("expirationSeconds");
            if seconds < 600 {
                errors.push(FieldError::invalid(
                    &expiry,
                    seconds,
                    "may not specify a duration less than 10 minutes",
                ));
            }
            if seconds > 1 << 32 {
                let detail = "may not specify a duration larger than 2^32 seconds";
                errors.push(FieldError::invalid(&expiry, seconds, detail));
            }
            // Upstream leaves the source out of this path.
            if token.path.is_empty() {
                errors.push(FieldError::required(&path.child("path"), ""));
            } else {
                local_path(errors, &token.path, &path.child("path"));
            }
        }
        if let Some(bundle) = &source.cluster_trust_bundle {
            given += 1;
            trust_bundle(errors, bundle, &at.child("clusterTrustBundle"));
            unique(errors, &bundle.path);
        }
        if let Some(certificate) = &source.pod_certificate {
            given += 1;
            pod_certificate(errors, certificate, &at.child("podCertificate"));
            for field in [
                &certificate.credential_bundle_path,
                &certificate.key_path,
                &certificate.certificate_chain_path,
            ] {
                unique(errors, text(field));
            }
        }
        if given > 1 {
            errors.push(FieldError::forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
}

fn trust_bundle(errors: &mut Errors, bundle: &ClusterTrustBundleProjection, path: &Path) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            let detail = "only one of name and signerName may be used";
            errors.push(FieldError::invalid(path, BadValue::of(bundle), detail));
        }
        (Some(name), None) => {
            let at = path.child("name");
            if name.is_empty() {
                errors.push(FieldError::required(&at, "must be a valid object name"));
            }
            let plain = name.rsplit(':').next().unwrap_or_default();
            for problem in name::dns1123_subdomain(plain) {
                let detail = format!("not a valid clustertrustbundlename: {problem}");
                errors.push(FieldError::invalid(&at, name, detail));
            }
            if let Some(selector) = &bundle.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(
                    &path.child("labelSelector"),
                    BadValue::of(selector),
                    detail,
                ));
            }
        }
        (None, Some(signer)) => {
            let at = path.child("signerName");
            if signer.is_empty() {
                errors.push(FieldError::required(&at, "must be a valid signer name"));
            }
            signer_name(errors, signer, &at);
            selector(errors, &path.child("labelSelector"), bundle.label_selector.as_ref());
        }
        (None, None) => {
            errors.push(FieldError::required(path, "either name or signerName must be specified"));
        }
    }
    required(errors, &path.child("path"), &bundle.path);
    local_path(errors, &bundle.path, &path.child("path"));
}

fn signer_name(errors: &mut Errors, signer: &str, path: &Path) {
    match signer.split_once('/') {
        Some((domain, rest)) if !rest.is_empty() && !rest.contains('/') => {
            dns_subdomain(errors, path, domain);
            qualified_name(errors, path, signer);
        }
        _ => {
            let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(FieldError::invalid(path, signer, detail));
        }
    }
}

fn pod_certificate(errors: &mut Errors, certificate: &PodCertificateProjection, path: &Path) {
    signer_name(errors, &certificate.signer_name, &path.child("signerName"));
    let types = &["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    one_of(errors, &path.child("keyType"), &certificate.key_type, types);
    let (bundle, key, chain) = (
        text(&certificate.credential_bundle_path),
        text(&certificate.key_path),
        text(&certificate.certificate_chain_path),
    );
    if bundle.is_empty() && key.is_empty() && chain.is_empty() {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, detail));
    }
    for (field, value) in
        [("credentialBundlePath", bundle), ("keyPath", key), ("certificateChainPath", chain)]
    {
        local_path(errors, value, &path.child(field));
    }
}

/// Whether a path has an element `..`.
pub(super) fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// A path without `..`.
pub(crate) fn no_backsteps(errors: &mut Errors, value: &str, path: &Path) {
    if has_backsteps(value) {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

/// A relative path without `..`.
pub(super) fn descending_path(errors: &mut Errors, value: &str, path: &Path) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(errors, value, path);
}

/// A relative path without `..` that is no name the node agent keeps to itself.
pub(super) fn local_path(errors: &mut Errors, value: &str, path: &Path) {
    descending_path(errors, value, path);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
}
