"""What the parts of the cluster read and are told: their files and their command lines, as text."""

import json
from typing import Any, Final

import yaml

from tests.services.cluster.programs import PLUGINS

API_PORT: Final = 6443
SERVICES: Final = "10.96.0.0/24"
API_SERVICE: Final = "10.96.0.1"
PODS: Final = "10.244.0.0/24"
PAUSE: Final = "registry.k8s.io/pause:3.10"
CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"
CERTS: Final = "/etc/containerd/certs.d"
FILES: Final = "/etc/kubernetes"
ETCD: Final = "http://127.0.0.1:2379"
NODE: Final = "node-1"
CONTAINERDS: Final = {
    1: f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{CERTS}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "/etc/cni/net.d"
""",
    2: f"""version = 3
[plugins.'io.containerd.cri.v1.images']
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{PAUSE}'
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = '{CERTS}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{PLUGINS}']
    conf_dir = '/etc/cni/net.d'
""",
}
"""config.toml by containerd's generation."""
NETWORK: Final = json.dumps(
    {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            # Each pod has a cable of its own to the node, so that all its packets pass the rules of the Services.
            {
                "type": "ptp",
                "ipMasq": True,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
)
ETCD_COMMAND: Final = (
    *("etcd", "--data-dir", "/var/lib/etcd", "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD),
    *("--listen-peer-urls", "http://127.0.0.1:2380"),
)
CONTROLLERS: Final = (
    *("--kubeconfig", f"{FILES}/admin.conf", "--service-account-private-key-file", f"{FILES}/service-accounts.key"),
    *("--root-ca-file", f"{FILES}/ca.crt", "--use-service-account-credentials=false", "--leader-elect=false"),
    *("--bind-address", "127.0.0.1", "--secure-port", "0"),
)
SCHEDULER: Final = (
    *("--kubeconfig", f"{FILES}/admin.conf", "--leader-elect=false", "--bind-address", "127.0.0.1"),
    *("--secure-port", "0"),
)


def kubeconfig(address: str, token: str, ca: str) -> str:
    """What kubectl and the parts themselves read; `ca` is the path of a PEM file."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "cluster",
                    "cluster": {"server": f"https://{address}:{API_PORT}", "certificate-authority": ca},
                }
            ],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "admin", "context": {"cluster": "cluster", "user": "admin"}}],
            "current-context": "admin",
        }
    )


def api_server(address: str) -> tuple[str, ...]:
    """The API server's options; `address` is the node's."""
    return (
        *("--etcd-servers", ETCD, "--secure-port", str(API_PORT), "--bind-address", address),
        *("--advertise-address", address, "--token-auth-file", f"{FILES}/tokens.csv"),
        *("--tls-cert-file", f"{FILES}/server.crt", "--tls-private-key-file", f"{FILES}/server.key"),
        *("--authorization-mode", "Node,RBAC", "--allow-privileged=true"),
        *("--service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
        *("--service-account-key-file", f"{FILES}/service-accounts.key"),
        *("--service-account-signing-key-file", f"{FILES}/service-accounts.key"),
        *("--service-cluster-ip-range", SERVICES, "--kubelet-preferred-address-types", "InternalIP"),
    )


def kubelet(address: str, cgroup: str) -> str:
    """The kubelet's file: one node whose disk and memory are never too full, under the control group `cgroup`."""
    return _document(
        "kubelet.config.k8s.io/v1beta1",
        "KubeletConfiguration",
        {
            "address": address,
            "clusterDNS": [address],
            "clusterDomain": "cluster.local",
            "healthzPort": 0,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "failCgroupV1": False,
            "imageMinimumGCAge": "24h",
            "imageGCHighThresholdPercent": 100,
            "evictionHard": dict.fromkeys(
                ("nodefs.available", "imagefs.available", "nodefs.inodesFree", "memory.available"), "0%"
            ),
            "localStorageCapacityIsolation": False,
            "registryPullQPS": 0,
            "serializeImagePulls": False,
            # Changed ConfigMaps and Secrets reach their pods within this time.
            "syncFrequency": "5s",
        },
    )


def kube_proxy(address: str) -> str:
    """kube-proxy's file: iptables, NodePorts on every address of the node, localhost too."""
    return _document(
        "kubeproxy.config.k8s.io/v1alpha1",
        "KubeProxyConfiguration",
        {
            "mode": "iptables",
            "bindAddress": address,
            "metricsBindAddress": "127.0.0.1:10249",
            "clusterCIDR": PODS,
            "clientConnection": {"kubeconfig": f"{FILES}/admin.conf"},
            # The limits of connection tracking are the whole machine's.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
            "hostnameOverride": NODE,
            "iptables": {"localhostNodePorts": True},
        },
    )


def coredns(address: str) -> str:
    """CoreDNS' file: it knows the names of the node's /etc/hosts and of the cluster; others do not exist."""
    return (
        f".:53 {{\n  bind {address}\n  errors\n  hosts {{\n    fallthrough\n  }}\n"
        f"  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {FILES}/admin.conf admin\n  }}\n"
        "  template ANY ANY . {\n    rcode NXDOMAIN\n  }\n}\n"
    )


def _document(version: str, kind: str, content: dict[str, Any]) -> str:
    return yaml.safe_dump({"apiVersion": version, "kind": kind, **content})
