//! From what a Peer document says to a client of the SDK: endpoint, region, credentials, CA. Retries are the link's, so
//! the SDK has none; checksums are sent where S3 needs them and nowhere else, for older servers stumble over them.
use super::http;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};

/// Where an S3 endpoint is, and who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// An http or https URL.
    pub url: String,
    pub region: String,
    /// The bucket stands in the path.
    pub path_style: bool,
    /// `None`: the SDK's default chain (environment, web identity, instance profile).
    pub keys: Option<Keys>,
    /// CA bundle, PEM; `None`: the system's roots.
    pub ca: Option<Vec<u8>>,
}

/// Static credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

/// A client for the endpoint.
///
/// # Errors
/// A sentence on what cannot be used.
pub async fn client(endpoint: &Endpoint) -> Result<Client, String> {
    let http = http::client(endpoint.ca.as_deref())?;
    let region = Region::new(endpoint.region.clone());
    let shared = aws_config::defaults(BehaviorVersion::latest()).http_client(http).region(region);
    let shared = match &endpoint.keys {
        Some(keys) => {
            let Keys { access_key_id, secret_access_key, session_token } = keys.clone();
            shared.credentials_provider(Credentials::new(access_key_id, secret_access_key, session_token, None, "peer"))
        }
        None => shared,
    };
    let config = aws_sdk_s3::config::Builder::from(&shared.load().await)
        .endpoint_url(&endpoint.url)
        .force_path_style(endpoint.path_style)
        .retry_config(RetryConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Ok(Client::from_conf(config))
}
