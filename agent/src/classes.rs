//! Shows the Ingress classes of the host in the virtual cluster, so that `kubectl get ingressclass` there says what can be
//! used. I/O around one pure step.
//!
//! The controller that is named in them is host-api's own: a tenant's controller, even of the same make as the host's, must
//! not take them for its own. A tenant's class of the same name is left alone.

use std::future::Future;
use std::time::Duration;

use k3k_expose_process::quote::causes;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use tokio::time::timeout;

use crate::account::Account;
use crate::agent::Agent;
use crate::pins::MANAGER;

const CONTROLLER: &str = "expose.k3k.io/host-api";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Time between two looks at whether somebody has changed them.
const PERIOD: Duration = Duration::from_secs(60);
/// Longest that a call may take.
const CALL: Duration = Duration::from_secs(35);

/// Shows classes in one virtual cluster.
pub(crate) struct Classes<'a> {
    agent: &'a Agent,
    account: &'a Account,
    classes: Api<IngressClass>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
struct Steps {
    delete: Vec<IngressClass>,
    create: Vec<String>,
}

impl<'a> Classes<'a> {
    pub(crate) fn new(agent: &'a Agent, account: &'a Account, client: Client) -> Self {
        Self { agent, account, classes: Api::all(client) }
    }

    /// Shows them for as long as it is polled.
    pub(crate) async fn run(&self) {
        self.account.minted().await;
        let mut wanted = self.agent.classes().subscribe();
        loop {
            let names = wanted.borrow_and_update().clone();
            if let Some(names) = names
                && let Err(error) = self.show(&names).await
            {
                if matches!(&error, kube::Error::Api(status) if matches!(status.code, 401 | 403)) {
                    self.account.mend();
                }
                tracing::warn!(error = causes(&error), "ingress classes not shown yet");
            }
            let _ = timeout(PERIOD, wanted.changed()).await;
        }
    }

    async fn show(&self, names: &[String]) -> Result<(), kube::Error> {
        let standing = call(self.classes.list(&ListParams::default())).await?.items;
        let Steps { delete, create } = steps(names, standing);
        for class in delete {
            let preconditions =
                Preconditions { uid: class.uid(), resource_version: class.metadata.resource_version.clone() };
            let params = DeleteParams::background().preconditions(preconditions);
            call(self.classes.delete(&class.name_any(), &params)).await?;
        }
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        for name in create {
            call(self.classes.create(&params, &class(&name))).await?;
            tracing::info!(name, "ingress class shown");
        }
        Ok(())
    }
}

/// A late answer is as good as none.
async fn call<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    timeout(CALL, call).await.unwrap_or_else(|late| Err(kube::Error::Service(Box::new(late))))
}

/// A class as it is shown.
fn class(name: &str) -> IngressClass {
    IngressClass {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(IngressClassSpec { controller: Some(CONTROLLER.to_owned()), parameters: None }),
    }
}

/// From what should stand and what stands to what is to be done. Pure. The controller of a class cannot be changed, so one
/// that differs is made anew.
fn steps(wanted: &[String], standing: Vec<IngressClass>) -> Steps {
    let mut create = wanted.to_vec();
    let mut delete = Vec::new();
    for stands in standing {
        let name = stands.name_any();
        let ours = stands.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
        let right = stands.spec == class(&name).spec;
        if !ours || (right && wanted.contains(&name)) {
            create.retain(|wanted| *wanted != name);
        } else {
            delete.push(stands);
        }
    }
    Steps { delete, create }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_ones_are_made_wrong_ones_made_anew_and_others_classes_left_alone() {
        let wanted = ["kept", "edited", "missing", "theirs"].map(str::to_owned);
        let mut edited = class("edited");
        edited.spec = Some(IngressClassSpec { controller: Some("else".to_owned()), parameters: None });
        let mut theirs = class("theirs");
        theirs.metadata.labels = None;
        let mut unrelated = class("unrelated");
        unrelated.metadata.labels = None;
        let standing = vec![class("kept"), edited.clone(), class("old"), theirs, unrelated];
        let create = vec!["edited".to_owned(), "missing".to_owned()];
        assert_eq!(steps(&wanted, standing), Steps { delete: vec![edited, class("old")], create });
        assert_eq!(steps(&[], Vec::new()), Steps::default());
    }
}
