//! The environment of a container: services, ConfigMaps, Secrets, fields of the pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::Reference;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapKeySelector, Container, EnvFromSource, EnvVarSource, Pod, Secret, SecretKeySelector,
};

use super::ConfigError;
use crate::context::Context;
use crate::pod::environment::{Addresses, expand, field, is_variable_name, services};
use crate::pod::{find_container, namespace, resources, spec};

/// ConfigMaps and Secrets that were read for this container.
struct Lookup<'a> {
    context: &'a Context,
    namespace: &'a str,
    config_maps: HashMap<String, Option<Arc<ConfigMap>>>,
    secrets: HashMap<String, Option<Arc<Secret>>>,
}

/// The variables, each name once: those of services first, overridden by `envFrom`, overridden by `env`.
pub(super) async fn variables(
    context: &Context,
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
) -> Result<Vec<(String, String)>, ConfigError> {
    let links = spec(pod).enable_service_links != Some(false);
    let known = context.source.services_of(namespace(pod), links).await;
    let mut of_services: HashMap<String, String> =
        services(known.iter().map(AsRef::as_ref)).into_iter().collect();
    let mut lookup =
        Lookup { context, namespace: namespace(pod), config_maps: HashMap::new(), secrets: HashMap::new() };
    let mut own = Variables::default();
    for source in container.env_from.iter().flatten() {
        lookup.env_from(pod, source, &mut own).await?;
    }
    let addresses = Addresses { pod: pod_ips.to_vec(), host: context.host_ips.clone() };
    for variable in container.env.iter().flatten() {
        let value = match (variable.value.as_deref().filter(|value| !value.is_empty()), &variable.value_from)
        {
            (Some(text), _) => {
                let mut seen = of_services.clone();
                seen.extend(own.by_name.iter().map(|(name, value)| (name.clone(), value.clone())));
                Some(expand(text, &seen))
            }
            (None, Some(source)) => lookup.value(pod, container, source, &addresses).await?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            of_services.remove(&variable.name);
            own.set(&variable.name, value);
        }
    }
    let mut variables: Vec<(String, String)> =
        of_services.into_iter().filter(|(name, _)| !own.by_name.contains_key(name)).collect();
    variables.sort_unstable();
    variables.extend(own.in_order());
    Ok(variables)
}

/// Variables in the order in which they were first set.
#[derive(Default)]
struct Variables {
    order: Vec<String>,
    by_name: HashMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        if self.by_name.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn in_order(mut self) -> Vec<(String, String)> {
        let order = std::mem::take(&mut self.order);
        order
            .into_iter()
            .filter_map(|name| {
                let value = self.by_name.remove(&name)?;
                Some((name, value))
            })
            .collect()
    }
}

impl Lookup<'_> {
    async fn config_map(&mut self, name: &str) -> Result<Option<Arc<ConfigMap>>, ConfigError> {
        if let Some(known) = self.config_maps.get(name) {
            return Ok(known.clone());
        }
        let found = self.context.host.config_map(self.namespace, name).await?;
        self.config_maps.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    async fn secret(&mut self, name: &str) -> Result<Option<Arc<Secret>>, ConfigError> {
        if let Some(known) = self.secrets.get(name) {
            return Ok(known.clone());
        }
        let found = self.context.host.secret(self.namespace, name).await?;
        self.secrets.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    async fn env_from(
        &mut self,
        pod: &Pod,
        source: &EnvFromSource,
        variables: &mut Variables,
    ) -> Result<(), ConfigError> {
        let (what, name, values) = if let Some(reference) = &source.config_map_ref {
            let Some(found) = self.config_map(&reference.name).await? else {
                return absent("configmap", &reference.name, reference.optional);
            };
            let values: BTreeMap<String, String> = found.data.clone().unwrap_or_default();
            ("ConfigMap", &reference.name, values)
        } else if let Some(reference) = &source.secret_ref {
            let Some(found) = self.secret(&reference.name).await? else {
                return absent("secret", &reference.name, reference.optional);
            };
            let values = found.data.iter().flatten().map(|(key, value)| (key.clone(), text(&value.0)));
            ("Secret", &reference.name, values.collect())
        } else {
            return Ok(());
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut invalid = Vec::new();
        for (key, value) in values {
            let key = format!("{prefix}{key}");
            if is_variable_name(&key) {
                variables.set(&key, value);
            } else {
                invalid.push(key);
            }
        }
        if !invalid.is_empty() {
            let message = format!(
                "Keys [{}] from the EnvFrom {} {}/{name} were skipped since they are considered invalid environment variable names.",
                invalid.join(", "),
                if what == "Secret" { "secret" } else { "configMap" },
                self.namespace
            );
            self.context.events.warning(&Reference::to(pod), "InvalidEnvironmentVariableNames", message);
        }
        Ok(())
    }

    /// The value that `valueFrom` names; `None` if what it names is optional and absent.
    async fn value(
        &mut self,
        pod: &Pod,
        container: &Container,
        source: &EnvVarSource,
        addresses: &Addresses,
    ) -> Result<Option<String>, ConfigError> {
        if let Some(reference) = &source.field_ref {
            return field(pod, &reference.field_path, addresses).map(Some).map_err(ConfigError::Spec);
        }
        if let Some(reference) = &source.resource_field_ref {
            let named = reference.container_name.as_deref().filter(|name| !name.is_empty());
            let other = named.and_then(|name| find_container(pod, name)).map(|(container, _)| container);
            let of = other.as_ref().unwrap_or(container);
            let found = resources::resource_field(
                of,
                &reference.resource,
                reference.divisor.as_ref(),
                &self.context.allocatable,
            );
            let missing =
                || ConfigError::Spec(format!("unsupported container resource : {}", reference.resource));
            return found.map(Some).ok_or_else(missing);
        }
        if let Some(reference) = &source.config_map_key_ref {
            return self.config_map_key(reference).await;
        }
        if let Some(reference) = &source.secret_key_ref {
            return self.secret_key(reference).await;
        }
        Ok(Some(String::new()))
    }

    async fn config_map_key(
        &mut self,
        reference: &ConfigMapKeySelector,
    ) -> Result<Option<String>, ConfigError> {
        let ConfigMapKeySelector { key, name, optional } = reference;
        let Some(found) = self.config_map(name).await? else {
            return absent("configmap", name, *optional).map(|()| None);
        };
        match found.data.as_ref().and_then(|data| data.get(key)) {
            Some(value) => Ok(Some(value.clone())),
            None if *optional == Some(true) => Ok(None),
            None => {
                let place = self.namespace;
                Err(ConfigError::Spec(format!("couldn't find key {key} in ConfigMap {place}/{name}")))
            }
        }
    }

    async fn secret_key(&mut self, reference: &SecretKeySelector) -> Result<Option<String>, ConfigError> {
        let SecretKeySelector { key, name, optional } = reference;
        let Some(found) = self.secret(name).await? else {
            return absent("secret", name, *optional).map(|()| None);
        };
        match found.data.as_ref().and_then(|data| data.get(key)) {
            Some(value) => Ok(Some(text(&value.0))),
            None if *optional == Some(true) => Ok(None),
            None => {
                let place = self.namespace;
                Err(ConfigError::Spec(format!("couldn't find key {key} in Secret {place}/{name}")))
            }
        }
    }
}

/// Fine if it is optional, else an error in upstream's words.
fn absent(what: &str, name: &str, optional: Option<bool>) -> Result<(), ConfigError> {
    if optional == Some(true) {
        return Ok(());
    }
    Err(ConfigError::Spec(format!("{what} \"{name}\" not found")))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
