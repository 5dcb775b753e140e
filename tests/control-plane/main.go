// Command control-plane is every server binary of a Kubernetes control plane in one file.
//
// It runs as the component that argv[0] (or, failing that, the first argument) names, so that one build and one
// cached file serve the whole test rig.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	etcd "go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
)

func main() {
	name := filepath.Base(os.Args[0])
	if name == "control-plane" && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	switch name {
	case "etcd":
		etcd.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(cli.Run(controllermanager.NewControllerManagerCommand()))
	case "kube-proxy":
		os.Exit(cli.Run(proxy.NewProxyCommand()))
	case "supervise":
		supervise()
	case "sign-token":
		signToken(os.Args[1:])
	default:
		fmt.Fprintf(os.Stderr, "control-plane: no component is called %q; "+
			"use etcd, kube-apiserver, kube-controller-manager, kube-proxy, supervise or sign-token\n", name)
		os.Exit(2)
	}
}
