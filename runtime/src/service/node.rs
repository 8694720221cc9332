//! What the runtime tells of itself.

use std::collections::HashMap;

use cri::{
    RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusResponse,
    VersionResponse,
};

use crate::core::Core;

pub(super) fn version() -> VersionResponse {
    VersionResponse {
        version: "0.1.0".to_owned(),
        runtime_name: "skiff".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

impl Core {
    /// Whether pods can be run.
    pub(super) async fn node_status(&self, verbose: bool) -> StatusResponse {
        let network = self.config.network.ready().await;
        let condition = |kind: &str, result: Result<(), String>, reason: &str| RuntimeCondition {
            r#type: kind.to_owned(),
            status: result.is_ok(),
            reason: if result.is_ok() { String::new() } else { reason.to_owned() },
            message: result.err().unwrap_or_default(),
        };
        let mut info = HashMap::new();
        if verbose {
            info.insert("root".to_owned(), self.config.root.display().to_string());
            info.insert("state".to_owned(), self.config.state.display().to_string());
        }
        let handler = |name: &str| RuntimeHandler {
            name: name.to_owned(),
            features: Some(RuntimeHandlerFeatures {
                recursive_read_only_mounts: true,
                user_namespaces: false,
            }),
        };
        StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", Ok(()), ""),
                    condition("NetworkReady", network, "NetworkPluginNotReady"),
                ],
            }),
            info,
            runtime_handlers: vec![handler(""), handler("skiff")],
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        }
    }
}
