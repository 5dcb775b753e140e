//! Keeps the authorities that vouch for host-api where sidecars mount them: one ConfigMap in each namespace with a shared-mode
//! Cluster. I/O but for `Authorities::due`.
//!
//! Nothing is written while nothing differs: what stands is known from a watch of that one name. The ConfigMap stays when the last
//! Cluster goes, since it holds nothing secret and its pods may still run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k3k_expose_process::quote::causes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Patch;
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::admission::stores::Stores;
use crate::cluster::{Cluster, Mode};
use crate::inject::AUTHORITIES;
use crate::params;
use crate::ready::Ready;
use crate::twin::MANAGER;

/// The key that holds the bundle, as PEM.
const KEY: &str = "ca.crt";
/// Longest wait for one write.
const WRITE: Duration = Duration::from_secs(10);
/// Time until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What stands in the namespaces, and who waits for news of it.
#[derive(Debug, Default)]
pub struct Authorities {
    standing: Mutex<Standing>,
    news: Notify,
}

/// Bundles by namespace.
#[derive(Debug, Default)]
struct Standing {
    known: BTreeMap<String, Option<String>>,
    /// What a list that is under way has named. Until its end what was known counts: else everything would be missing.
    listed: Option<BTreeMap<String, Option<String>>>,
}

impl Standing {
    fn insert(&mut self, namespace: String, bundle: Option<String>) {
        if let Some(listed) = &mut self.listed {
            listed.insert(namespace.clone(), bundle.clone());
        }
        self.known.insert(namespace, bundle);
    }
}

impl Authorities {
    /// Takes in an event of the watch of ConfigMaps of that name.
    pub fn take_in(&self, event: &Event<ConfigMap>) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => standing.listed = Some(BTreeMap::new()),
            Event::InitApply(map) | Event::Apply(map) => {
                let bundle = map.data.as_ref().and_then(|data| data.get(KEY).cloned());
                standing.insert(map.namespace().unwrap_or_default(), bundle);
            }
            Event::Delete(map) => drop(standing.known.remove(&map.namespace().unwrap_or_default())),
            Event::InitDone => {
                if let Some(listed) = standing.listed.take() {
                    standing.known = listed;
                }
            }
        }
        drop(standing);
        self.news.notify_one();
    }

    /// Says that a Cluster came or changed.
    pub fn look_again(&self) {
        self.news.notify_one();
    }

    /// Publishes the bundle wherever it is missing or differs, once `listed`. Never ends.
    pub async fn run(
        &self,
        client: Client,
        stores: &Stores,
        listed: &Ready,
        mut bundle: watch::Receiver<Option<String>>,
    ) {
        stores.ready().await;
        loop {
            let wanted = bundle.borrow_and_update().clone();
            let mut failed = false;
            if let Some(wanted) = wanted.filter(|_| listed.is_up()) {
                for (namespace, stands) in self.due(&stores.clusters(), &wanted) {
                    failed |= !self.publish(&client, &namespace, stands, &wanted).await;
                }
            }
            tokio::select! {
                () = self.news.notified() => {}
                changed = bundle.changed() => if changed.is_err() {
                    // Nobody will ever change it; what stands is still kept right.
                    self.news.notified().await;
                },
                () = sleep(AGAIN), if failed => {}
            }
        }
    }

    /// The namespaces where it is missing or differs, and whether there is one at all.
    fn due<C: AsRef<Cluster>>(&self, clusters: &[C], wanted: &str) -> Vec<(String, bool)> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let served = clusters
            .iter()
            .map(AsRef::as_ref)
            .filter(|cluster| cluster.metadata.deletion_timestamp.is_none() && cluster.spec.mode == Mode::Shared);
        let namespaces: BTreeSet<&str> = served.filter_map(|cluster| cluster.metadata.namespace.as_deref()).collect();
        let due = namespaces.into_iter().filter_map(|namespace| match standing.known.get(namespace) {
            Some(Some(bundle)) if bundle == wanted => None,
            found => Some((namespace.to_owned(), found.is_some())),
        });
        due.collect()
    }

    /// Writes it; `false` when that is to be tried again.
    async fn publish(&self, client: &Client, namespace: &str, stands: bool, bundle: &str) -> bool {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let write = async {
            if stands {
                let patch = json!({"data": {KEY: bundle}});
                maps.patch(AUTHORITIES, &params::patch(), &Patch::Merge(patch)).await
            } else {
                maps.create(&params::post(), &authorities(bundle)).await
            }
        };
        let outcome =
            timeout(WRITE, write).await.unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into())));
        match outcome {
            Ok(_) => {
                let bundle = Some(bundle.to_owned());
                self.standing.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned(), bundle);
                info!(namespace, "authorities were published");
                true
            }
            // It came, or went, meanwhile: the watch tells.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
            Err(error) => {
                warn!(namespace, error = causes(&error), "authorities could not be published, tried again");
                false
            }
        }
    }
}

fn authorities(bundle: &str) -> ConfigMap {
    let mut map = ConfigMap { data: Some([(KEY.to_owned(), bundle.to_owned())].into()), ..ConfigMap::default() };
    map.metadata.name = Some(AUTHORITIES.to_owned());
    map.metadata.labels = Some([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())].into());
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(namespace: &str, mode: &str) -> Box<Cluster> {
        let cluster = json!({"metadata": {"name": "mine", "namespace": namespace, "uid": "c"}, "spec": {"mode": mode}});
        serde_json::from_value(cluster).unwrap()
    }

    fn standing(namespace: &str, bundle: &str) -> Event<ConfigMap> {
        let mut map = authorities(bundle);
        map.metadata.namespace = Some(namespace.to_owned());
        Event::Apply(map)
    }

    #[test]
    fn only_namespaces_of_shared_clusters_where_it_differs_are_due() {
        let authorities = Authorities::default();
        authorities.take_in(&standing("right", "new"));
        authorities.take_in(&standing("stale", "old"));
        let clusters = [
            cluster("right", "shared"),
            cluster("stale", "shared"),
            cluster("none", "shared"),
            cluster("none", "shared"),
            cluster("other", "virtual"),
        ];
        assert_eq!(authorities.due(&clusters, "new"), [("none".to_owned(), false), ("stale".to_owned(), true)]);
        authorities.take_in(&standing("none", "new"));
        authorities.take_in(&standing("stale", "new"));
        assert_eq!(authorities.due(&clusters, "new"), []);
        assert_eq!(authorities.due(&clusters, "newer").len(), 3, "a rotation reaches all");
    }

    #[test]
    fn while_the_watch_lists_anew_nothing_is_taken_for_missing() {
        let authorities = Authorities::default();
        let clusters = [cluster("stays", "shared"), cluster("gone", "shared")];
        let listed = |event| match event {
            Event::Apply(map) => Event::InitApply(map),
            other => other,
        };
        for namespace in ["stays", "gone"] {
            authorities.take_in(&standing(namespace, "new"));
        }
        authorities.take_in(&Event::Init);
        assert_eq!(authorities.due(&clusters, "new"), []);
        authorities.take_in(&listed(standing("stays", "new")));
        assert_eq!(authorities.due(&clusters, "new"), []);
        authorities.take_in(&Event::InitDone);
        assert_eq!(authorities.due(&clusters, "new"), [("gone".to_owned(), false)]);
    }
}
