//! An API server reduced to what the registry relies on: names, numbers, revisions, preconditions, late events.
//!
//! A stand-in only where interleavings are wanted that a real one cannot be made to show; behavior is tested on real ones.

use std::collections::{BTreeMap, VecDeque};

use k3k_expose_host_api::refusal::{Number, Refusal};
use k3k_expose_host_api::services::HostName;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

/// What the watch shows, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// The Service is this.
    Seen(Box<Service>),
    /// It is gone, at this revision.
    Gone(HostName, String),
}

/// The Services of the host.
#[derive(Debug, Default)]
pub struct Api {
    revision: u64,
    drawn: u64,
    services: BTreeMap<HostName, Value>,
    /// Events that nobody has seen yet.
    pub events: VecDeque<Event>,
}

impl Api {
    /// All Services, as a list gives them.
    pub fn list(&self) -> Vec<Service> {
        self.services.values().map(parse).collect()
    }

    /// One Service.
    pub fn get(&self, at: &HostName) -> Option<Service> {
        self.services.get(at).map(parse)
    }

    /// Numbers are checked before the name, as the real one does.
    pub fn create(&mut self, at: &HostName, service: &Service) -> Result<Service, Refusal> {
        let mut object = json!(service);
        self.check_numbers(None, &object)?;
        if self.services.contains_key(at) {
            return Err(Refusal::Exists);
        }
        object["metadata"]["uid"] = json!(format!("host-{}", self.revision));
        object["metadata"]["managedFields"] = managed(&object);
        self.draw(&mut object);
        Ok(self.store(at, object))
    }

    /// A merge patch with preconditions.
    pub fn patch(&mut self, at: &HostName, patch: &Value) -> Result<Service, Refusal> {
        let current = self.services.get(at).ok_or(Refusal::Absent)?;
        for field in ["uid", "resourceVersion"] {
            if patch["metadata"][field] != current["metadata"][field] {
                return Err(Refusal::Conflict);
            }
        }
        let mut object = current.clone();
        merge(&mut object, patch);
        self.check_numbers(Some(at), &object)?;
        self.draw(&mut object);
        Ok(self.store(at, object))
    }

    /// A deletion with preconditions. A Service with a finalizer stays until [`Api::release`].
    pub fn delete(&mut self, at: &HostName, uid: &str, resource_version: &str) -> Result<(), Refusal> {
        let current = self.services.get(at).ok_or(Refusal::Absent)?;
        if current["metadata"]["uid"] != uid || current["metadata"]["resourceVersion"] != resource_version {
            return Err(Refusal::Conflict);
        }
        self.remove(at);
        Ok(())
    }

    /// Somebody else writes a Service, without any check.
    pub fn force(&mut self, at: &HostName, change: impl FnOnce(&mut Value)) {
        if let Some(mut object) = self.services.get(at).cloned() {
            change(&mut object);
            self.store(at, object);
        }
    }

    /// Somebody else makes a Service.
    pub fn squat(&mut self, at: &HostName, spec: &Value) {
        let object = json!({"metadata": {"name": at.name, "namespace": at.namespace, "uid": "foreign"}, "spec": spec});
        if !self.services.contains_key(at) && self.check_numbers(None, &object).is_ok() {
            self.store(at, object);
        }
    }

    /// Somebody deletes a Service. One with a finalizer gets its deletionTimestamp, and goes at the second call.
    pub fn remove(&mut self, at: &HostName) {
        let Some(object) = self.services.get(at) else { return };
        let finalizers = object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if finalizers && object["metadata"]["deletionTimestamp"].is_null() {
            self.force(at, |object| object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        } else {
            self.services.remove(at);
            self.revision += 1;
            self.events.push_back(Event::Gone(at.clone(), self.revision.to_string()));
        }
    }

    fn store(&mut self, at: &HostName, mut object: Value) -> Service {
        let before = self.services.get(at).cloned();
        object["metadata"]["resourceVersion"] =
            before.as_ref().map_or(Value::Null, |b| b["metadata"]["resourceVersion"].clone());
        if before.as_ref() == Some(&object) {
            return parse(&object);
        }
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let service = parse(&object);
        self.services.insert(at.clone(), object);
        self.events.push_back(Event::Seen(Box::new(service.clone())));
        service
    }

    /// Numbers that were left to the API server: none that anybody wishes, and none twice.
    fn draw(&mut self, object: &mut Value) {
        let spec = &mut object["spec"];
        if spec["type"] != "ExternalName" && spec["clusterIP"].is_null() {
            self.drawn += 1;
            let ip = json!(format!("10.99.{}.{}", self.drawn / 250, self.drawn % 250));
            (spec["clusterIPs"], spec["clusterIP"]) = (json!([ip]), ip);
        }
        let external = spec["type"] == "NodePort";
        for port in spec["ports"].as_array_mut().into_iter().flatten().filter(|_| external) {
            if port["nodePort"].is_null() {
                self.drawn += 1;
                port["nodePort"] = json!(40_000 + self.drawn);
            }
        }
    }

    fn check_numbers(&self, at: Option<&HostName>, object: &Value) -> Result<(), Refusal> {
        let (ips, ports) = numbers(object);
        for (_, other) in self.services.iter().filter(|(other, _)| Some(*other) != at) {
            let (held_ips, held_ports) = numbers(other);
            if ips.iter().any(|ip| held_ips.contains(ip)) {
                return Err(Refusal::Held(Number::ClusterIp));
            }
            if ports.iter().any(|port| held_ports.contains(port)) {
                return Err(Refusal::Held(Number::NodePort(None)));
            }
        }
        Ok(())
    }
}

fn numbers(object: &Value) -> (Vec<String>, Vec<u64>) {
    let ip = object["spec"]["clusterIP"].as_str().filter(|ip| *ip != "None");
    let ports = object["spec"]["ports"].as_array().into_iter().flatten();
    (ip.into_iter().map(str::to_owned).collect(), ports.filter_map(|port| port["nodePort"].as_u64()).collect())
}

/// Every label is the writer's, as after a create of ours.
fn managed(object: &Value) -> Value {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let keys: serde_json::Map<_, _> = labels.map(|(key, _)| (format!("f:{key}"), json!({}))).collect();
    json!([{"manager": "k3k-expose", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": keys}}}])
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(field);
        } else {
            merge(&mut target[field.as_str()], value);
        }
    }
}

fn parse(object: &Value) -> Service {
    serde_json::from_value(object.clone()).unwrap()
}
