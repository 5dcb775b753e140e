//! A virtual cluster, an agent, a host-api and a host, stepped by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k3k_expose_agent::outbox::Outbox;
use k3k_expose_agent::packed::Change;
use k3k_expose_agent::project::project;
use k3k_expose_agent::session::{Heard, Session};
use k3k_expose_host_api::cluster::{Cluster, ClusterState, SyncIngresses};
use k3k_expose_host_api::plan::Road;
use k3k_expose_host_api::refusal::Refusal;
use k3k_expose_host_api::registry::{Registry, Task};
use k3k_expose_host_api::services::HostName;
use k3k_expose_host_api::session::SessionId;
use k3k_expose_host_api::tenant::{self, ServerPod, Tenant};
use k3k_expose_host_api::{name, twin};
use k3k_expose_proto::line::{decode, encode};
use k3k_expose_proto::message::Answer;
use k3k_expose_proto::{FromAgent, FromHost, Outcome, Uid};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::api::{Api, Event};

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A virtual Service is created, or gets this content.
    Put(u8, u8),
    /// A virtual Service is deleted and made again, with another cluster IP.
    Renew(u8),
    /// A virtual Service is deleted.
    Delete(u8),
    /// The agent's watch loses events and lists anew.
    Relist,
    /// The agent opens a session.
    Connect,
    /// The agent says so many lines.
    Say(u8),
    /// host-api tells so many lines.
    Tell(u8),
    /// The writer looks at so many objects; one of its calls meets this fault.
    Work(u8, u8),
    /// host-api sees so many events.
    Events(u8),
    /// The connection ends.
    Cut,
    /// The agent forgets everything.
    AgentRestart,
    /// host-api forgets everything.
    HostApiRestart,
    /// Somebody edits or deletes a twin, or puts a finalizer on it.
    Damage(u8, u8),
    /// A foreign Service takes the node port that a virtual one may wish.
    Squat(u8),
    /// All foreign Services go.
    Leave,
    /// Time passes, in seconds.
    Wait(u16),
}

/// A virtual Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Object {
    life: u32,
    content: u8,
    /// The node port that the write-back gave it.
    port: Option<u16>,
}

/// Everything at once.
pub struct World {
    tenant: Tenant,
    cluster: BTreeMap<u8, Object>,
    lives: u32,
    outbox: Outbox,
    session: Option<(Session, SessionId)>,
    registry: Registry,
    epoch: u32,
    api: Api,
    now: Duration,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            tenant: tenant(),
            cluster: BTreeMap::new(),
            lives: 0,
            outbox: Outbox::default(),
            session: None,
            registry: Registry::new(uid("e0"), 0),
            epoch: 0,
            api: Api::default(),
            now: Duration::ZERO,
        };
        world.relist();
        world
    }

    pub fn step(&mut self, step: &Step) {
        match *step {
            Step::Put(index, content) => self.put(index, content),
            Step::Renew(index) => {
                if let Some(object) = self.cluster.get(&index).copied() {
                    self.delete(index);
                    self.put(index, object.content);
                }
            }
            Step::Delete(index) => self.delete(index),
            Step::Relist => self.relist(),
            Step::Connect => self.connect(),
            Step::Say(lines) => (0..lines).for_each(|_| _ = self.say()),
            Step::Tell(lines) => (0..lines).for_each(|_| _ = self.tell()),
            Step::Work(objects, fault) => (0..objects).for_each(|_| _ = self.work(Some(fault))),
            Step::Events(events) => (0..events).for_each(|_| _ = self.event()),
            Step::Cut => self.cut(),
            Step::AgentRestart => {
                self.cut();
                self.outbox = Outbox::default();
                self.relist();
            }
            Step::HostApiRestart => self.restart(),
            Step::Damage(index, how) => self.damage(index, how),
            Step::Squat(index) => {
                let spec = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": node_port(index)}]});
                self.api.squat(&squatter(index), &spec);
            }
            Step::Leave => (0..5).for_each(|index| self.api.remove(&squatter(index))),
            Step::Wait(seconds) => self.now += Duration::from_secs(seconds.into()),
        }
        let now = self.now;
        self.registry.tick(now);
    }

    /// Nothing more happens but what either side does by itself.
    pub fn settle(&mut self) {
        self.step(&Step::Leave);
        for index in 0..5 {
            // What waits for a finalizer goes on when that is gone.
            let at = self.place(index);
            self.api.force(&at, |object| object["metadata"]["finalizers"] = json!([]));
            if self.api.get(&at).is_some_and(|twin| twin.metadata.deletion_timestamp.is_some()) {
                self.api.remove(&at);
            }
        }
        // A contest calms down after ten minutes; every other delay is shorter.
        for _ in 0..6 {
            loop {
                if self.session.is_none() {
                    self.connect();
                }
                let moved = [self.event(), self.work(None), self.say(), self.tell()];
                if self.session.is_some() && !moved.contains(&true) {
                    break;
                }
            }
            self.now += Duration::from_secs(301);
            self.registry.tick(self.now);
        }
    }

    pub fn check(&self) -> Result<(), String> {
        let mut expected: BTreeMap<String, (String, Value)> = BTreeMap::new();
        for (index, object) in &self.cluster {
            let service = virtual_service(*index, *object);
            let ports = json!(service.spec.as_ref().unwrap().ports);
            expected.insert(self.place(*index).name, (service.metadata.uid.unwrap(), ports));
        }
        let found: BTreeMap<String, (String, Value)> = self
            .api
            .list()
            .into_iter()
            .map(|service| {
                let annotations = service.metadata.annotations.unwrap_or_default();
                let uid = annotations.get(twin::VIRTUAL_UID).cloned().unwrap_or_default();
                (service.metadata.name.unwrap(), (uid, json!(service.spec.unwrap().ports)))
            })
            .collect();
        if found != expected {
            return Err(format!("on the host stand {found:#?}, wanted are {expected:#?}"));
        }
        self.outbox.in_sync().map_err(|behind| format!("the agent is behind: {behind}"))
    }

    fn put(&mut self, index: u8, content: u8) {
        self.lives += 1;
        let life = self.cluster.get(&index).map_or(self.lives, |object| object.life);
        let object = Object { life, content, port: None };
        self.cluster.insert(index, object);
        self.apply(change(index, object));
    }

    fn delete(&mut self, index: u8) {
        if let Some(object) = self.cluster.remove(&index) {
            let service = virtual_service(index, object);
            let gone = Change::of(k3k_expose_agent::project::gone(&service));
            self.apply(gone.unwrap());
        }
    }

    fn apply(&mut self, change: Change) {
        self.outbox.apply(change);
    }

    fn relist(&mut self) {
        let listed = self.cluster.iter().map(|(index, object)| change(*index, *object)).collect();
        self.outbox.replace(k3k_expose_proto::Resource::Services, &uid("virtual-cluster"), listed);
    }

    fn connect(&mut self) {
        self.now += Duration::from_secs(21);
        let Some(hello) = self.outbox.hello() else { return };
        let state = off();
        let (id, welcome) = self
            .registry
            .open(&self.tenant, state, ServerPod { uid: uid("pod"), ordinal: 0 }, &hello, self.now)
            .expect("no crowd");
        if let Some((_, older)) = self.session.take() {
            self.registry.close(older, self.now);
        }
        let mut session = Session::default();
        let heard = session.hear(&mut self.outbox, FromHost::Welcome(welcome));
        assert!(matches!(heard, Heard::Opened(_)), "{heard:?}");
        self.session = Some((session, id));
    }

    /// The agent's next line arrives. Gives whether there was one.
    fn say(&mut self) -> bool {
        let Some((session, id)) = &self.session else {
            return false;
        };
        let line = match session.has_next(&self.outbox) {
            Ok(true) => session.next(&mut self.outbox),
            Ok(false) => None,
            Err(_) => {
                self.cut();
                return true;
            }
        };
        let Some(line) = line else { return false };
        let line: FromAgent = decode(encode(&line).unwrap().trim_ascii_end()).unwrap();
        let id = *id;
        if let Err(bye) = self.registry.line(id, line, self.now) {
            panic!("an honest agent is sent away: {bye:?}");
        }
        true
    }

    /// host-api's next line arrives. Gives whether there was one.
    fn tell(&mut self) -> bool {
        let Some((session, id)) = &mut self.session else {
            return false;
        };
        let Some(line) = self.registry.next_line(*id) else {
            return false;
        };
        let line: FromHost = decode(encode(&line).unwrap().trim_ascii_end()).unwrap();
        let answer = if let FromHost::Answer(answer) = &line { Some(answer.clone()) } else { None };
        if let Heard::Over(_) = session.hear(&mut self.outbox, line) {
            self.cut();
        }
        if let Some(answer) = answer {
            self.write_back(&answer);
        }
        true
    }

    /// The agent gives a virtual Service whose node port was drawn the one that the host found for it.
    fn write_back(&mut self, answer: &Answer) {
        let port =
            answer.numbers.as_ref().and_then(|numbers| numbers.node_ports.first()).map(|port| port.node_port.get());
        let named = |index: &u8| answer.key.name() == format!("s{index}");
        let Some((&index, object)) = self.cluster.iter_mut().find(|(index, _)| named(index)) else { return };
        let mine = virtual_service(index, *object).metadata.uid.as_deref() == Some(answer.uid.as_str());
        if mine && object.content == DRAWN && answer.outcome == Outcome::Applied && port.is_some() {
            object.port = port;
            let object = *object;
            self.apply(change(index, object));
        }
    }

    fn cut(&mut self) {
        if let Some((session, id)) = self.session.take() {
            self.registry.close(id, self.now);
            if let Some(generation) = session.generation() {
                self.outbox.close(generation);
            }
        }
    }

    fn restart(&mut self) {
        self.cut();
        self.epoch += 1;
        self.registry = Registry::new(uid(&format!("e{}", self.epoch)), 0);
        self.registry.cluster_seen(self.tenant.id(), off());
        // A new watch begins with a list, after which come only later events.
        self.api.events.clear();
        let listed: BTreeSet<HostName> =
            self.api.list().iter().map(|service| HostName::of(&service.metadata)).collect();
        for service in self.api.list() {
            self.registry.service_seen(service, self.now);
        }
        self.registry.services_listed(&listed, self.now);
    }

    fn event(&mut self) -> bool {
        match self.api.events.pop_front() {
            None => return false,
            Some(Event::Seen(service)) => self.registry.service_seen(*service, self.now),
            Some(Event::Gone(at, revision)) => self.registry.service_gone(&at, Some(&revision), self.now),
        }
        true
    }

    /// The writer works on its next object, as `host-api/src/write.rs` does.
    fn work(&mut self, mut fault: Option<u8>) -> bool {
        let Some((tenant, key)) = self.registry.take(9, self.now) else {
            return false;
        };
        let now = self.now;
        let mut road = Road::default();
        let mut settled = false;
        for _ in 0..8 {
            let task = self.registry.decide(&tenant, &key, road, now);
            let at = match &task {
                Task::Settled => {
                    settled = true;
                    break;
                }
                Task::Create(at, _) | Task::Patch(at, _) | Task::Delete { at, .. } => at.clone(),
                Task::InspectPods { .. } => unreachable!("no twin of k3k's here"),
                Task::CreateIngress(..) | Task::CreateSecret(..) | Task::DeleteSecret(_) => {
                    unreachable!("no Ingress here")
                }
                Task::CreateSlice(..) | Task::PatchSlice(..) | Task::DeleteSlice { .. } => {
                    unreachable!("no endpoints here")
                }
            };
            // 0: refused for now; 1: carried out, but the answer is lost; 2: the event overtakes the answer.
            let fault = fault.take();
            if fault == Some(0) {
                self.registry.refused(&tenant, &key, Refusal::Unavailable, &task.asked(), now);
                settled = true;
                break;
            }
            let result = match &task {
                Task::Create(_, service) => self.api.create(&at, service).map(Some),
                Task::Patch(_, patch) => self.api.patch(&at, patch).map(Some),
                Task::Delete { uid, resource_version, .. } => {
                    self.api.delete(&at, uid, resource_version).map(|()| None)
                }
                _ => unreachable!(),
            };
            if fault == Some(1) {
                self.registry.refused(&tenant, &key, Refusal::Unavailable, &task.asked(), now);
                settled = true;
                break;
            }
            if fault == Some(2) {
                while self.event() {}
            }
            match result {
                Ok(Some(service)) => self.registry.service_answered(service, now),
                Ok(None) => {
                    let Task::Delete { uid, .. } = &task else { unreachable!() };
                    if self.registry.deleted(&tenant, &key, uid) {
                        settled = true;
                        break;
                    }
                }
                Err(Refusal::Immutable) => road = road.next().expect("a road"),
                Err(refusal) => {
                    let found = self.api.get(&at);
                    let absent = found.is_none();
                    match found {
                        Some(service) => self.registry.service_read(service, now),
                        None => self.registry.service_gone(&at, None, now),
                    }
                    if absent && matches!(refusal, Refusal::Held(_)) {
                        self.registry.refused(&tenant, &key, refusal, &task.asked(), now);
                        settled = true;
                        break;
                    }
                }
            }
        }
        if !settled {
            self.registry.contested(&tenant, &key, now);
        }
        self.registry.done(&tenant, &key, self.now);
        true
    }

    fn damage(&mut self, index: u8, how: u8) {
        let at = self.place(index);
        match how {
            0 => self.api.force(&at, |object| object["spec"]["ports"][0]["port"] = json!(4242)),
            1 => self.api.force(&at, |object| object["spec"]["selector"] = json!({"app": "evil"})),
            2 => self.api.force(&at, |object| object["metadata"]["finalizers"] = json!(["example.com/slow"])),
            _ => self.api.remove(&at),
        }
    }

    fn place(&self, index: u8) -> HostName {
        HostName {
            namespace: self.tenant.namespace().to_owned(),
            name: name::twin(&format!("s{index}"), "default", self.tenant.cluster()),
        }
    }
}

/// The content whose node port was drawn.
const DRAWN: u8 = 3;

fn tenant() -> Tenant {
    let owner = |kind: &str, version: &str, name: &str| json!([{"apiVersion": version, "kind": kind, "name": name, "uid": format!("{kind}-uid"), "controller": true}]);
    let pod = json!({"metadata": {"name": "k3k-mine-server-0", "namespace": "ns", "uid": "pod",
        "ownerReferences": owner("StatefulSet", "apps/v1", "k3k-mine-server")}});
    let set = json!({"metadata": {"name": "k3k-mine-server", "uid": "StatefulSet-uid",
        "ownerReferences": owner("Cluster", "k3k.io/v1beta1", "mine")},
        "spec": {"replicas": 1, "template": {}, "selector": {"matchLabels": {"cluster": "mine", "role": "server"}}}});
    let cluster: Cluster =
        serde_json::from_value(json!({"metadata": {"name": "mine", "namespace": "ns", "uid": "Cluster-uid"}})).unwrap();
    let (pod, set) = (serde_json::from_value(pod).unwrap(), serde_json::from_value(set).unwrap());
    tenant::tenant_of(&pod, Some(&set), Some(&cluster)).unwrap()
}

/// The Cluster with k3k's own sync off.
fn off() -> ClusterState {
    ClusterState {
        revision: 1,
        k3k_syncs: false,
        mass_delete: None,
        selector: BTreeMap::new(),
        ingresses: SyncIngresses::default(),
        namespace: String::new(),
        name: String::new(),
        labels: BTreeMap::new(),
    }
}

/// Content 0 is a plain Service, 1 has a node port that somebody asked for, 2 is headless, 3 has one that was drawn.
fn virtual_service(index: u8, Object { life, content, port: written }: Object) -> Service {
    let ip = if content == 2 { "None".to_owned() } else { format!("10.43.{}.{}", life / 250, life % 250) };
    let mut port = json!({"name": "", "port": 80 + u16::from(content), "protocol": "TCP", "targetPort": 80});
    let external = content == 1 || content == DRAWN;
    if external {
        port["nodePort"] = json!(written.unwrap_or(node_port(index)));
    }
    let asked = json!([{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {
        r#"k:{"port":81,"protocol":"TCP"}"#: {"f:nodePort": {}}}}}}]);
    serde_json::from_value(json!({
        "metadata": {"name": format!("s{index}"), "namespace": "default", "uid": format!("life-{life}"),
            "managedFields": if content == 1 { asked } else { json!([]) }},
        "spec": {"type": if external { "NodePort" } else { "ClusterIP" }, "clusterIP": ip, "clusterIPs": [ip],
            "selector": {"app": "web"}, "ports": [port], "sessionAffinity": "None"}
    }))
    .map(|service: Service| Service { spec: service.spec.map(twin::normalize), ..service })
    .unwrap()
}

fn change(index: u8, object: Object) -> Change {
    Change::of(project(&virtual_service(index, object), &BTreeSet::new())).unwrap()
}

fn squatter(index: u8) -> HostName {
    HostName { namespace: "other".to_owned(), name: format!("squatter{index}") }
}

fn node_port(index: u8) -> u16 {
    30_000 + u16::from(index)
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}
