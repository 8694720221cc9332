//! The objects that every cluster has.

use serde_json::json;

use crate::{ApiServer, StartError, UserInfo};

/// Writes the bootstrap objects that are missing.
pub async fn run(server: &ApiServer) -> Result<(), StartError> {
    let user = UserInfo::api_server();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        match server.call(&user, "POST", "/api/v1/namespaces", Some(&body)).await {
            Err(status) if status.code != 409 => {
                return Err(StartError::Bootstrap { path: format!("/api/v1/namespaces/{name}"), status });
            }
            _ => {}
        }
    }
    Ok(())
}
