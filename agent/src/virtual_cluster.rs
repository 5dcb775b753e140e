//! The virtual side as a whole: kubeconfig to account to watch and write-back, begun anew when the kubeconfig leads elsewhere.

use k3k_expose_proto::Resource;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;

use crate::account::Account;
use crate::agent::Agent;
use crate::classes::Classes;
use crate::config::Config;
use crate::endpoints::Join;
use crate::kubeconfig::{Access, KubeconfigFile};
use crate::reflect::Reflect;
use crate::secrets::Secrets;
use crate::watch::Watch;

/// Runs for as long as it is polled.
pub(crate) async fn run(agent: &Agent, config: &Config) {
    let mut file = KubeconfigFile::new(&config.kubeconfig, &config.virtual_server);
    for resource in Resource::ALL {
        agent.set_watch(resource, Err("the kubeconfig is not there yet".to_owned()));
    }
    let mut access = file.next().await;
    loop {
        let account = Account::new(access.admin.clone(), &config.watched());
        let client = match account.client(access.anonymous.clone()) {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(%error, "kubeconfig not usable");
                access = file.next().await;
                continue;
            }
        };
        let classes = Classes::new(agent, &account, client.clone());
        let reflect = Reflect::new(agent, &account, client.clone());
        let mut services = Watch::<Service>::new(agent, &account, client.clone());
        let mut ingresses = Watch::<Ingress>::new(agent, &account, client.clone());
        let mut secrets = Secrets::new(agent, &account, client.clone());
        let mut slices = Watch::<EndpointSlice>::new(agent, &account, client);
        agent.join(|join| *join = Join::default());
        agent.joined().send_replace(false);
        access = tokio::select! {
            other = elsewhere(&mut file, &access, &account) => other,
            () = account.keep() => return,
            () = slices.run() => return,
            () = services.run() => return,
            () = ingresses.run(), if config.sync_ingresses => return,
            () = secrets.run(), if config.sync_ingress_tls => return,
            () = reflect.run() => return,
            () = classes.run(), if config.sync_ingresses => return,
        };
        tracing::info!("kubeconfig leads elsewhere, watch begun anew");
    }
}

/// Hands on credentials that were minted anew until the kubeconfig names another server or other authorities.
async fn elsewhere(file: &mut KubeconfigFile<'_>, access: &Access, account: &Account) -> Access {
    loop {
        let next = file.next().await;
        if !next.is_same_server(access) {
            return next;
        }
        account.set_admin(next.admin);
    }
}
