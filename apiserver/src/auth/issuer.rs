//! What others need to check service account tokens themselves: OpenID Connect discovery.

use api::status::Status;
use http::Response;
use serde_json::json;

use crate::routes::RouteRequest;
use crate::{Body, respond};

/// `/.well-known/openid-configuration`
pub async fn configuration(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    let config = &request.server.config;
    let address = match config.advertise_address {
        std::net::IpAddr::V6(address) => format!("[{address}]"),
        address => address.to_string(),
    };
    Ok(respond::json(&json!({
        "issuer": request.server.auth.tokens().issuer(),
        "jwks_uri": format!("https://{address}:{}/openid/v1/jwks", config.advertise_port),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })))
}

/// `/openid/v1/jwks`
pub async fn keys(request: RouteRequest<'_>) -> Result<Response<Body>, Status> {
    Ok(respond::with(
        http::StatusCode::OK,
        "application/jwk-set+json",
        request.server.config.pki.tokens().key_set().to_string(),
    ))
}
