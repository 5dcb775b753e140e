//! Volumes as folders, filled from the API server and swapped at once, as kubelet's atomic writer does: the files are links to
//! `..data/<file>`, and `..data` is a link that is renamed over the old one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::core::v1::{
    ConfigMap, KeyToPath, Pod, ProjectedVolumeSource, Secret, ServiceAccountTokenProjection, Volume,
};
use kube::{Api, Client, ResourceExt};
use tokio::time::{Duration, Instant};

use crate::token::{self, BoundPod, TokenWish};

/// The spec asks for something that this kubelet does not know.
#[derive(Debug)]
pub(super) struct NotPlayed(String);

impl std::fmt::Display for NotPlayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is not played", self.0)
    }
}

impl std::error::Error for NotPlayed {}

type Files = BTreeMap<String, Vec<u8>>;

/// The volumes of one pod.
pub(super) struct Volumes {
    client: Client,
    namespace: String,
    account: String,
    pod: BoundPod,
    folder: PathBuf,
    volumes: Vec<Volume>,
    filled: BTreeMap<String, Files>,
    tokens: BTreeMap<(String, String), Issued>,
    passed: Duration,
    swaps: u64,
}

/// A token, and when it was asked for.
#[derive(Clone)]
struct Issued {
    token: String,
    at: Instant,
    /// How much more time had passed by then than the clock says.
    passed: Duration,
    life: Duration,
}

impl Issued {
    /// kubelet asks for another one once four fifths of its life are over (`requiresRefresh` in its token manager).
    fn is_due(&self, now: Instant, passed: Duration) -> bool {
        now - self.at + passed.saturating_sub(self.passed) >= self.life * 4 / 5
    }
}

impl Volumes {
    pub(super) fn new(client: &Client, pod: &Pod, folder: &Path) -> anyhow::Result<Self> {
        let spec = pod.spec.clone().unwrap_or_default();
        let mounted = |volume: &Volume| {
            let mounts = spec.init_containers.iter().flatten().flat_map(|init| init.volume_mounts.iter().flatten());
            mounts.clone().any(|mount| mount.name == volume.name)
        };
        let volumes: Vec<Volume> = spec.volumes.iter().flatten().filter(|volume| mounted(volume)).cloned().collect();
        for volume in &volumes {
            fs::create_dir(folder.join(&volume.name))?;
        }
        Ok(Self {
            client: client.clone(),
            namespace: pod.namespace().unwrap_or_default(),
            account: spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
            pod: BoundPod { name: pod.name_any(), uid: pod.uid().context("a stored pod has a UID")? },
            folder: folder.to_owned(),
            volumes,
            filled: BTreeMap::new(),
            tokens: BTreeMap::new(),
            passed: Duration::ZERO,
            swaps: 0,
        })
    }

    /// The folder of a volume.
    pub(super) fn folder(&self, volume: &str) -> anyhow::Result<PathBuf> {
        let known = self.volumes.iter().any(|it| it.name == volume);
        known.then(|| self.folder.join(volume)).with_context(|| format!("no volume {volume}"))
    }

    /// Brings every volume up to date, with new tokens where they are due when so much more time had passed; says whether any was.
    pub(super) async fn fill(&mut self, passed: Duration) -> anyhow::Result<bool> {
        let (now, known) = (Instant::now(), self.tokens.len());
        self.tokens.retain(|_, issued| !issued.is_due(now, passed));
        let renewed = self.tokens.len() < known;
        self.passed = passed;
        for volume in self.volumes.clone() {
            let files = if let Some(projected) = &volume.projected {
                self.projected(&volume.name, projected).await?
            } else if let Some(secret) = &volume.secret {
                let name = secret.secret_name.as_deref().unwrap_or_default();
                self.secret(name, secret.optional, secret.items.as_deref()).await?
            } else {
                return Err(NotPlayed(format!("the kind of volume {}", volume.name)).into());
            };
            if self.filled.get(&volume.name) != Some(&files) {
                self.swaps += 1;
                swap(&self.folder.join(&volume.name), self.swaps, &files)?;
                self.filled.insert(volume.name, files);
            }
        }
        Ok(renewed)
    }

    async fn projected(&mut self, volume: &str, projected: &ProjectedVolumeSource) -> anyhow::Result<Files> {
        let mut files = Files::new();
        for source in projected.sources.iter().flatten() {
            if let Some(wish) = &source.service_account_token {
                files.insert(wish.path.clone(), self.token(volume, wish).await?.into_bytes());
            } else if let Some(map) = &source.config_map {
                files.extend(self.config_map(&map.name, map.optional, map.items.as_deref()).await?);
            } else {
                return Err(NotPlayed(format!("a source of volume {volume}")).into());
            }
        }
        Ok(files)
    }

    /// The token that is not due yet, or a new one.
    async fn token(&mut self, volume: &str, wish: &ServiceAccountTokenProjection) -> anyhow::Result<String> {
        let key = (volume.to_owned(), wish.path.clone());
        if let Some(issued) = self.tokens.get(&key) {
            return Ok(issued.token.clone());
        }
        let seconds = wish.expiration_seconds.context("the API server fills in how long a token lives")?;
        let audiences = wish.audience.clone().into_iter().collect();
        let asked = TokenWish { audiences, seconds, pod: Some(self.pod.clone()) };
        let token = token::request(&self.client, &self.namespace, &self.account, asked).await?;
        let life = Duration::from_secs(u64::try_from(seconds)?);
        let issued = Issued { token: token.clone(), at: Instant::now(), passed: self.passed, life };
        self.tokens.insert(key, issued);
        Ok(token)
    }

    async fn config_map(
        &self,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
    ) -> anyhow::Result<Files> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = maps.get_opt(name).await?;
        let data =
            found.map(|map| map.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes())).collect());
        select(name, data, optional == Some(true), items)
    }

    async fn secret(&self, name: &str, optional: Option<bool>, items: Option<&[KeyToPath]>) -> anyhow::Result<Files> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = secrets.get_opt(name).await?;
        let data = found.map(|secret| secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect());
        select(name, data, optional == Some(true), items)
    }
}

/// The files that are asked for; without items all.
fn select(name: &str, data: Option<Files>, optional: bool, items: Option<&[KeyToPath]>) -> anyhow::Result<Files> {
    let mut data = match data {
        Some(data) => data,
        None if optional => return Ok(Files::new()),
        None => anyhow::bail!("there is no {name}"),
    };
    let Some(items) = items else { return Ok(data) };
    let mut files = Files::new();
    for item in items {
        match data.remove(&item.key) {
            Some(content) => drop(files.insert(item.path.clone(), content)),
            None if optional => {}
            None => anyhow::bail!("{name} has no key {}", item.key),
        }
    }
    Ok(files)
}

fn swap(folder: &Path, number: u64, files: &Files) -> anyhow::Result<()> {
    let data = format!("..{number}");
    fs::create_dir(folder.join(&data))?;
    for (path, content) in files {
        fs::write(folder.join(&data).join(path), content)?;
    }
    let old = fs::read_link(folder.join("..data")).ok();
    symlink(&data, folder.join("..data_tmp"))?;
    fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
    for path in files.keys().filter(|path| fs::symlink_metadata(folder.join(path)).is_err()) {
        symlink(Path::new("..data").join(path), folder.join(path))?;
    }
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !files.contains_key(name.as_ref()) {
            fs::remove_file(folder.join(name.as_ref()))?;
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(folder.join(old))?;
    }
    Ok(())
}
