//! How the SDK reaches an endpoint: hyper over plain TCP or TLS (`https`). The CAs are those of the Peer document, else
//! the system's. Called by `store/s3/connect.rs` alone.
use crate::https;
use aws_sdk_s3::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_sdk_s3::error::ConnectorError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector as SdkConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

#[derive(Clone, Debug)]
struct Hyper(Client<HttpsConnector<HttpConnector>, SdkBody>);

/// A client that believes the CAs in `ca` (PEM), or the system's where there are none.
///
/// # Errors
/// A sentence on what cannot be used.
pub fn client(ca: Option<&[u8]>) -> Result<SharedHttpClient, String> {
    let connector = https::connector(ca)?;
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(https::IDLE_MAX)
        .build(connector);
    Ok(SharedHttpClient::new(Hyper(client)))
}

impl HttpClient for Hyper {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl SdkConnector for Hyper {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
            let response = client.request(request).await.map_err(|e| ConnectorError::io(e.into()))?;
            let (parts, body) = response.into_parts();
            let response = hyper::http::Response::from_parts(parts, SdkBody::from_body_1_x(body));
            HttpResponse::try_from(response).map_err(|e| ConnectorError::other(e.into(), None))
        })
    }
}
