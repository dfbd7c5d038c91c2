//! The way to an API server: how a process finds it, whether it has the definitions and gives the rights that are needed,
//! and whether it answers. Called by the roles at start, and by everything that speaks to the server afterwards.
use crate::config::Kubernetes;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Kinds of the group, in the order of the definitions.
pub const KINDS: [&str; 5] = ["Site", "Peer", "ReplicationRule", "ReplicationJob", "FailoverDrill"];
/// The group, as rights name it.
const GROUP: &str = "replication.isthmus.dev";
/// How long one request may take, but for a watch; a server that does not answer is away.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is looked whether a server is back; events wait meanwhile.
const ASK: Duration = Duration::from_secs(1);
/// Longest silence on a connection: a watch ends after 30 s, so one that says nothing for longer is dead.
const SILENCE: Duration = Duration::from_secs(45);

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration names no API server that could be asked.
    #[error("{0}")]
    Unusable(String),
    /// A definition or a right is not there; a person gives it. Each line names one.
    #[error("{}", .0.join("; "))]
    Lacking(Vec<String>),
    /// It does not answer; it may later.
    #[error("the API server does not answer: {0}")]
    Away(String),
}

/// An API server and the namespace of the documents.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
    /// What each kind's watch last failed with.
    troubles: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Cluster {
    /// One with this client.
    pub fn new(client: Client, namespace: &str) -> Cluster {
        Cluster { client, namespace: namespace.into(), troubles: Arc::default() }
    }

    /// By a kubeconfig, or by what a pod is given.
    ///
    /// # Errors
    /// [`Error::Unusable`]; the server is not asked yet.
    pub async fn connect(settings: &Kubernetes) -> Result<Cluster, Error> {
        let said = |what: String| move |e: &dyn StdError| Error::Unusable(format!("{what}: {}", chain(e)));
        let mut config = match &settings.kubeconfig {
            Some(file) => {
                let wrong = said(format!("kubeconfig {}", file.display()));
                let kubeconfig = Kubeconfig::read_from(file).map_err(|e| wrong(&e))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| wrong(&e))?
            }
            None => {
                let wrong = said("no kubeconfig is named, and this process runs in no pod".into());
                Config::incluster().map_err(|e| wrong(&e))?
            }
        };
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(SILENCE);
        let namespace = settings.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|e| said("the API server's address".into())(&e))?;
        Ok(Cluster::new(client, &namespace))
    }

    /// Objects of one of our kinds.
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// What a watch of a kind brought: anything, or a failure.
    pub fn heard(&self, kind: &'static str, failed: Option<&dyn StdError>) {
        let mut troubles = self.troubles.lock().expect("no panic while held");
        let was_up = troubles.is_empty();
        match failed {
            Some(e) => drop(troubles.insert(kind, chain(e))),
            None => drop(troubles.remove(kind)),
        }
        match (was_up, failed) {
            (true, Some(e)) => {
                tracing::warn!(kind, error = chain(e), "The API server cannot be watched; links run on as they are.");
            }
            (false, None) if troubles.is_empty() => tracing::info!("The API server is watched again."),
            _ => {}
        }
    }

    /// Asks for the kinds that could not be watched: a watch that goes on where it stood says nothing until something
    /// changes.
    pub async fn ask_again(&self) {
        let troubled: Vec<&'static str> = self.troubles.lock().expect("no panic while held").keys().copied().collect();
        let ask = |kind| async move {
            let listed = tokio::time::timeout(ASK, self.api(kind).list(&ListParams::default().limit(1))).await;
            if matches!(listed, Ok(Ok(_))) {
                self.heard(kind, None);
            }
        };
        futures::future::join_all(troubled.into_iter().map(ask)).await;
    }

    /// Whether every kind is watched.
    pub fn is_up(&self) -> bool {
        self.troubles.lock().expect("no panic while held").is_empty()
    }

    /// Whether definitions and rights are there.
    ///
    /// # Errors
    /// [`Error::Lacking`]: all that are not, with what to do. [`Error::Away`]: nobody knows.
    pub async fn check(&self, rights: &[Right]) -> Result<(), Error> {
        let mut lacking = Vec::new();
        for kind in KINDS {
            let listed = self.within(self.api(kind).list(&ListParams::default().limit(1))).await?;
            match listed.map(drop) {
                Err(kube::Error::Api(status)) if status.code == 404 => lacking.push(format!(
                    "kind {kind} of {GROUP}/v1alpha1 is not installed: kubectl apply --server-side -f crds/"
                )),
                // Which right it lacks is told with the others.
                Err(kube::Error::Api(status)) if status.code == 403 => {}
                Err(kube::Error::Api(status)) if status.code == 401 => {
                    return Err(Error::Lacking(vec![format!("the API server does not know who asks: {status}")]));
                }
                Err(e) => return Err(Error::Away(chain(&e))),
                Ok(()) => {}
            }
        }
        for right in rights {
            if let Some(missing) = self.lacks(right).await? {
                lacking.push(missing);
            }
        }
        if lacking.is_empty() { Ok(()) } else { Err(Error::Lacking(lacking)) }
    }

    async fn lacks(&self, right: &Right) -> Result<Option<String>, Error> {
        let Right { group, resource, verb, name } = right;
        let (resource, subresource) = resource.split_once('/').map_or((*resource, None), |(r, s)| (r, Some(s)));
        let attributes = ResourceAttributes {
            namespace: Some(self.namespace.clone()),
            group: Some((*group).into()),
            resource: Some(resource.into()),
            subresource: subresource.map(Into::into),
            verb: Some((*verb).into()),
            name: name.clone(),
            ..Default::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..Default::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = self.within(reviews.create(&PostParams::default(), &review)).await?;
        let answer = answer.map_err(|e| Error::Away(chain(&e)))?;
        let named = name.as_ref().map(|n| format!(" named {n}")).unwrap_or_default();
        let sub = subresource.map(|s| format!("/{s}")).unwrap_or_default();
        Ok((!answer.status.is_some_and(|s| s.allowed)).then(|| {
            let of = if group.is_empty() { String::new() } else { format!(".{group}") };
            format!(
                "no right to {verb} {resource}{of}{sub}{named} in namespace {}: see manifests/base/role.yaml",
                self.namespace
            )
        }))
    }

    async fn within<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<kube::Result<T>, Error> {
        let late = |_| Error::Away(format!("no answer within {}s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, request).await.map_err(late)
    }
}

/// One thing a controller must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    pub group: &'static str,
    /// With its subresource, such as `sites/status`.
    pub resource: &'static str,
    pub verb: &'static str,
    /// The one object meant; `None`: all.
    pub name: Option<String>,
}

/// Everything a controller needs whose Lease has this name; the Secrets it reads are not among it, for their names are
/// known only from the documents.
pub fn rights(lease: &str) -> Vec<Right> {
    let kinds = ["sites", "peers", "replicationrules", "replicationjobs", "failoverdrills"];
    let status =
        ["sites/status", "peers/status", "replicationrules/status", "replicationjobs/status", "failoverdrills/status"];
    let of = |group, resource, verb| Right { group, resource, verb, name: None };
    let mut all = Vec::new();
    for resource in kinds {
        all.extend(["get", "list", "watch"].map(|verb| of(GROUP, resource, verb)));
    }
    all.extend(status.map(|resource| of(GROUP, resource, "patch")));
    all.extend(["replicationrules", "replicationjobs"].map(|resource| of(GROUP, resource, "patch")));
    all.extend(["replicationjobs", "failoverdrills"].map(|resource| of(GROUP, resource, "delete")));
    all.push(of("coordination.k8s.io", "leases", "create"));
    all.extend(
        ["get", "update"].map(|verb| Right { name: Some(lease.into()), ..of("coordination.k8s.io", "leases", verb) }),
    );
    all.extend(["create", "patch"].map(|verb| of("events.k8s.io", "events", verb)));
    all
}

/// An error with what it came from.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = inner.source();
    }
    text
}
