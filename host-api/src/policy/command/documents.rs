//! From a YAML text to the documents that are planned. Pure.

use k3k_expose_process::quote::quote;
use k3k_expose_proto::key::is_dns_subdomain;
use k3k_expose_proto::{Key, Resource};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::endpoints::slice::{SERVICE_NAME, SLICE_MANAGED_BY};
use crate::inject::command::items;
use crate::policy::Policies;
use crate::policy::resource::ExposurePolicy;
use crate::policy::written::{self, endpoints::mirrored};

/// What is planned, with the `apiVersion` that it has to have.
const KINDS: [(&str, &str); 4] = [
    ("Service", "v1"),
    ("Ingress", "networking.k8s.io/v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("Endpoints", "v1"),
];
/// Who makes slices of a selector's pods, which never cross.
const OF_SELECTORS: &str = "endpointslice-controller.k8s.io";

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The text is no YAML, or too much of it.
    #[error("{0} is no YAML: {1}")]
    NoYaml(&'static str, String),
    /// Nothing that crosses is among the documents.
    #[error("no Service, Ingress, EndpointSlice or Endpoints among the documents")]
    Nothing,
    /// A document is not what its kind says.
    #[error("{0} cannot be read: {error}", error = quote(&.1.to_string()))]
    Unreadable(String, serde_json::Error),
    /// Files of policies have none.
    #[error("no ExposurePolicy in what --policy names")]
    NoPolicy,
    /// It has no name that could be one, or no such namespace.
    #[error("a document of kind {0} has no name that could be one")]
    NoName(&'static str),
}

/// The documents of a YAML text, those of lists among them.
#[derive(Debug)]
pub struct Documents(Vec<Value>);

/// One that is planned.
#[derive(Debug)]
pub(super) enum Document {
    /// As an agent would say it.
    Service(Box<k3k_expose_proto::Service>),
    Ingress(Box<Ingress>),
    /// They stand at the key of their Service.
    Slices(Slices),
}

/// The slices of a document.
#[derive(Debug)]
pub(super) struct Slices {
    /// Kind and name of the document.
    pub(super) name: String,
    pub(super) slices: Vec<EndpointSlice>,
}

/// Documents in their order, and in words what of a file is none that is planned, though it looks like it.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) documents: Vec<(Key, Document)>,
    pub(super) skipped: Vec<String>,
}

impl Documents {
    /// Reads a text. How deep and how long it may get is the parser's to bound.
    ///
    /// # Errors
    /// When it is no YAML.
    pub fn parse(what: &'static str, text: &str) -> Result<Self, PlanError> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| PlanError::NoYaml(what, error.to_string()))?;
        Ok(Self(documents.into_iter().flat_map(items).collect()))
    }

    /// Those of one kind.
    ///
    /// # Errors
    /// When one is not of that kind after all.
    pub fn all<T: DeserializeOwned>(&self, kind: &'static str) -> Result<Vec<T>, PlanError> {
        self.0.iter().filter(|document| document["kind"] == kind).map(|document| typed(kind, document)).collect()
    }

    /// Whether there are endpoints among them, which can be judged in full only with a host.
    #[must_use]
    pub fn have_endpoints(&self) -> bool {
        self.0.iter().any(|document| document["kind"] == "EndpointSlice" || document["kind"] == "Endpoints")
    }

    pub(super) fn read(&self) -> Result<Read, PlanError> {
        let mut read = Read::default();
        for document in &self.0 {
            let Some((kind, version)) = KINDS.into_iter().find(|(kind, _)| document["kind"] == *kind) else {
                continue;
            };
            match &document["apiVersion"] {
                Value::Null => {}
                Value::String(given) if given == version => {}
                other => {
                    read.skipped.push(format!("not looked at: a {kind} of {}", quote(&other.to_string())));
                    continue;
                }
            }
            match kind {
                "Service" => {
                    let service: Service = typed(kind, document)?;
                    let key = key(Resource::Services, &service.metadata)?;
                    let unreadable =
                        |error| PlanError::Unreadable(format!("{kind} {}/{}", key.namespace(), key.name()), error);
                    let asked = written::service(&service).map_err(unreadable)?;
                    read.documents.push((key, Document::Service(Box::new(asked))));
                }
                "Ingress" => {
                    let ingress: Box<Ingress> = typed(kind, document)?;
                    read.documents.push((key(Resource::Ingresses, &ingress.metadata)?, Document::Ingress(ingress)));
                }
                "Endpoints" => {
                    let endpoints: Endpoints = typed(kind, document)?;
                    let key = key(Resource::Services, &endpoints.metadata)?;
                    let slices = Slices { name: format!("Endpoints {}", key.name()), slices: mirrored(&endpoints) };
                    read.documents.push((key, Document::Slices(slices)));
                }
                _ => read.slice(typed(kind, document)?)?,
            }
        }
        let nothing = read.documents.is_empty() && read.skipped.is_empty();
        if nothing { Err(PlanError::Nothing) } else { Ok(read) }
    }
}

impl Read {
    fn slice(&mut self, mut slice: EndpointSlice) -> Result<(), PlanError> {
        const KIND: &str = "EndpointSlice";
        let meta = &mut slice.metadata;
        let name = meta.name.take().filter(|name| is_dns_subdomain(name)).ok_or(PlanError::NoName(KIND))?;
        let labels = meta.labels.take().unwrap_or_default();
        let Some(service) =
            labels.get(SERVICE_NAME).filter(|_| labels.get(SLICE_MANAGED_BY).map(String::as_str) != Some(OF_SELECTORS))
        else {
            self.skipped.push(format!(
                "not looked at: {KIND} {name}, which names no Service in its label {SERVICE_NAME}, or is made of a selector"
            ));
            return Ok(());
        };
        let namespace = meta.namespace.as_deref().unwrap_or("default");
        let key = Key::service(namespace, service).map_err(|_| PlanError::NoName(KIND))?;
        let slices = Slices { name: format!("{KIND} {name}"), slices: vec![slice] };
        self.documents.push((key, Document::Slices(slices)));
        Ok(())
    }
}

/// Reads policies.
///
/// # Errors
/// When there is no YAML, or no policy.
pub fn policies(text: &str) -> Result<Policies, PlanError> {
    let mut policies = Policies::default();
    for policy in Documents::parse("the policy", text)?.all::<ExposurePolicy>("ExposurePolicy")? {
        policies.set(&quote(&policy.metadata.name.unwrap_or_default()), Some(policy.spec));
    }
    if policies.names().next().is_none() {
        return Err(PlanError::NoPolicy);
    }
    Ok(policies)
}

fn typed<T: DeserializeOwned>(kind: &'static str, document: &Value) -> Result<T, PlanError> {
    let name = document["metadata"]["name"].as_str().unwrap_or("without a name");
    T::deserialize(document).map_err(|error| PlanError::Unreadable(format!("{kind} {}", quote(name)), error))
}

fn key(resource: Resource, meta: &ObjectMeta) -> Result<Key, PlanError> {
    let namespace = meta.namespace.as_deref().unwrap_or("default");
    let key = Key::of(resource, namespace, meta.name.as_deref().unwrap_or_default());
    key.map_err(|_| PlanError::NoName(resource.kind()))
}
