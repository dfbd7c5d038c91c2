//! The API servers a run is given by `ISTHMUS_E2E_KUBECONFIGS`.
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// The kubeconfig of the first API server of the list; `None`: there is none, and that is said.
pub fn kubeconfig() -> Option<Kubeconfig> {
    kubeconfigs().map(|all| all.into_iter().next().expect("split gives one at least"))
}

/// Those of all API servers of the list; `None`: there is none, and that is said.
pub fn kubeconfigs() -> Option<Vec<Kubeconfig>> {
    let Ok(list) = std::env::var("ISTHMUS_E2E_KUBECONFIGS") else {
        assert!(std::env::var("ISTHMUS_E2E_REQUIRE").is_err(), "ISTHMUS_E2E_KUBECONFIGS is not set");
        println!("SKIPPED: ISTHMUS_E2E_KUBECONFIGS is not set (needs 1 cluster)");
        return None;
    };
    Some(list.split(':').map(|file| Kubeconfig::read_from(file).expect("read the kubeconfig")).collect())
}

/// A client with the rights of whoever owns the kubeconfig.
pub async fn client(kubeconfig: Kubeconfig) -> Client {
    // A second provider in the dependency tree would make rustls' own choice ambiguous.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("use it");
    Client::try_from(config).expect("make a client")
}
