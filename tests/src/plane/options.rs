//! What a control plane is made with. Pure.

/// How one control plane differs from another.
#[derive(Clone, Debug)]
pub struct PlaneOptions {
    /// Names its folder and turns up in messages.
    pub name: String,
    /// Controllers that kube-controller-manager runs; with none it is not started.
    pub controllers: Vec<String>,
    /// `--service-cluster-ip-range`: one range, or one of each family with a comma between, the primary family first.
    ///
    /// k3k gives a shared-mode cluster the ranges of its host.
    pub service_cidr: String,
    /// `--service-node-port-range`; the API server's default if absent.
    pub node_port_range: Option<String>,
    /// Further flags of kube-apiserver, as `--name=value`.
    pub api_server_flags: Vec<String>,
}

impl PlaneOptions {
    /// A plane with the controllers that Services and their owners depend on.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let controllers = [
            "endpointslice-controller",
            "garbage-collector-controller",
            "namespace-controller",
            "serviceaccount-controller",
            "resourcequota-controller",
        ];
        Self {
            name: name.to_owned(),
            controllers: controllers.map(str::to_owned).to_vec(),
            service_cidr: "10.43.0.0/16".to_owned(),
            node_port_range: None,
            api_server_flags: Vec::new(),
        }
    }

    /// Without kube-controller-manager, which saves a second of boot and 100 MB.
    #[must_use]
    pub fn without_controllers(self) -> Self {
        self.with_controllers(&[])
    }

    /// With exactly these controllers.
    #[must_use]
    pub fn with_controllers(mut self, names: &[&str]) -> Self {
        self.controllers = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// With these controllers besides.
    #[must_use]
    pub fn with_more_controllers(mut self, names: &[&str]) -> Self {
        self.controllers.extend(names.iter().map(|&name| name.to_owned()));
        self
    }

    /// With other ranges of cluster IPs.
    #[must_use]
    pub fn with_service_cidr(mut self, cidr: &str) -> Self {
        cidr.clone_into(&mut self.service_cidr);
        self
    }

    /// With another range of node ports, as `first-last`.
    #[must_use]
    pub fn with_node_port_range(mut self, range: &str) -> Self {
        self.node_port_range = Some(range.to_owned());
        self
    }

    /// With one more flag of kube-apiserver.
    #[must_use]
    pub fn with_api_server_flag(mut self, flag: &str) -> Self {
        self.api_server_flags.push(flag.to_owned());
        self
    }
}
