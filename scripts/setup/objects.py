"""The objects that registry_setup.sh puts into a cluster: the rendered manifests with its values, and what it asks of them.

`deploy` and `nodes` read the environment of the script (REGISTRY_...) and the files of its work folder; all print YAML or
lines for the script.
"""

import base64
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
MANAGER = {"app.kubernetes.io/managed-by": "edge-registry-setup"}
REGISTRY = "registry"
NODES = "node-setup"
EVERYWHERE = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
"""What Kubernetes puts into every namespace."""
RECORD = "configmap/edge-registry-setup"


def value(name: str) -> str:
    """A setting of the script."""
    return os.environ[f"REGISTRY_{name}"]


def rendered(name: str, component: str) -> Iterator[Object]:
    """The objects of one component in k8s/rendered."""
    for found in yaml.safe_load_all((ROOT / "k8s/rendered" / f"{name}.yaml").read_text()):
        if found["metadata"]["labels"]["app.kubernetes.io/component"] == component:
            yield found


def simple(kind: str, namespace: str, name: str, data: dict[str, bytes], sort: str = "Opaque") -> Object:
    """A ConfigMap or a Secret."""
    one: Object = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}
    if kind == "Secret":
        return one | {"type": sort, "data": {k: base64.b64encode(v).decode() for k, v in data.items()}}
    return one | {"data": {k: v.decode() for k, v in data.items()}}


def deploy(work: Path, htpasswd: Path, more: list[str]) -> list[Object]:
    """The registry, its secrets, and the objects of further files."""
    namespace = value("NAMESPACE")
    certs = work / "certs"
    keys = {"access-key": (work / "s3-access-key").read_bytes(), "secret-key": (work / "s3-secret-key").read_bytes()}
    pair = {"tls.crt": (certs / "server.crt").read_bytes(), "tls.key": (certs / "server.key").read_bytes()}
    found = list(rendered("edge-storage", REGISTRY))
    for one in found:
        one["metadata"]["namespace"] = namespace
    by_kind = {one["kind"]: one for one in found}
    configure(by_kind["ConfigMap"])
    expose(by_kind["Service"], by_kind["Deployment"])
    settings = by_kind["ConfigMap"]["data"]["registry.yaml"].encode()
    # The registry reads these two when it starts: a change of them needs new pods.
    by_kind["Deployment"]["spec"]["template"]["metadata"]["annotations"] = {
        "checksum/config": digest(settings),
        "checksum/s3": digest(json.dumps({k: v.decode() for k, v in keys.items()}, sort_keys=True).encode()),
    }
    return [
        simple("Secret", namespace, "edge-registry-users", {"htpasswd": htpasswd.read_bytes()}),
        simple("Secret", namespace, "edge-registry-tls", pair, "kubernetes.io/tls"),
        simple("Secret", namespace, "edge-registry-s3", keys),
        *found,
        *(one for file in more for one in yaml.safe_load_all(Path(file).read_text())),
    ]


def configure(config: Object) -> None:
    """Puts the store of the script into registry.yaml."""
    settings = yaml.safe_load(config["data"]["registry.yaml"])
    settings["storage"]["s3"] |= {
        "bucket": value("BUCKET"),
        "endpoint": value("S3_ENDPOINT"),
        "region": value("REGION"),
    }
    config["data"]["registry.yaml"] = yaml.safe_dump(settings)


def expose(service: Object, deployment: Object) -> None:
    """Image, replicas, and the way in: a port of the node, or a load balancer."""
    port = int(value("PORT"))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (inside,) = container["ports"]
    container["image"] = value("IMAGE")
    deployment["spec"]["replicas"] = int(value("REPLICAS"))
    service["spec"]["ports"][0]["port"] = port
    if value("EXPOSE") == "LoadBalancer":
        service["spec"]["type"] = "LoadBalancer"
        del inside["hostPort"]
        deployment["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": 1, "maxUnavailable": 0}
        return
    inside["hostPort"] = port
    if value("REPLICAS") == "1":
        pod["nodeSelector"] = {"kubernetes.io/hostname": value("NODE")}


def nodes(work: Path, *, removed: bool) -> list[Object]:
    """The DaemonSet that sets up nodes, or the one that takes that back, and what it reads."""
    namespace = value("NODES_NAMESPACE")
    found = list(rendered("k3s-private.nodes-removed" if removed else "k3s-private", NODES))
    for one in found:
        one["metadata"]["namespace"] = namespace
        if one["kind"] == "ConfigMap":
            one["data"]["node-setup.yaml"] = yaml.safe_dump(site())
        if one["kind"] == "DaemonSet":
            furnish(one["spec"]["template"]["spec"])
    if removed:
        return found
    authority = (work / "certs/ca.crt").read_bytes()
    return [simple("ConfigMap", namespace, "edge-registry-ca", {"ca.crt": authority}), *found]


def site() -> Object:
    """What nodes must know: see app/nodes/README.md."""
    names = [f"{value('ADDRESS')}:{value('PORT')}"]
    document: Object = {"ca_file": "/etc/edge-registry/nodes/ca.crt", "hosts": names}
    if value("NAME") != "-":
        names.append(f"{value('NAME')}:{value('PORT')}")
        document["addresses"] = {value("NAME"): {"service": f"edge-registry.{value('NAMESPACE')}.svc"}}
    return document


def furnish(pod: Object) -> None:
    """Image, and the folders of the node."""
    folders = value("NODE_FOLDERS").split()
    whole = "/etc" in folders

    def kept(volume: Object) -> bool:
        return not volume["name"].startswith("folder-") and not (whole and volume["name"] == "hosts")

    pod["volumes"] = [one for one in pod["volumes"] if kept(one)]
    for place, folder in enumerate(folders):
        pod["volumes"].append({"name": f"folder-{place}", "hostPath": {"path": folder, "type": "Directory"}})
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        container["image"] = value("IMAGE")
        if "volumeMounts" not in container:
            continue
        container["volumeMounts"] = [one for one in container["volumeMounts"] if kept(one)]
        for place, folder in enumerate(folders):
            container["volumeMounts"].append({"name": f"folder-{place}", "mountPath": f"/node{folder}"})


def digest(data: bytes) -> str:
    """What changes when the data does, and tells nothing about them."""
    return hashlib.sha256(data).hexdigest()


def mine(objects: list[Object]) -> str:
    """The objects with the label by which they are known as the script's."""
    for one in objects:
        one["metadata"]["labels"] = one["metadata"].get("labels", {}) | MANAGER
    return yaml.safe_dump_all(objects, sort_keys=False)


def identity(one: Object) -> str:
    """KIND NAMESPACE NAME."""
    return f"{one['kind']} {one['metadata']['namespace']} {one['metadata']['name']}"


def others(record: Path, found: Object) -> Iterator[str]:
    """What a listing of a namespace holds that is neither recorded nor made by Kubernetes by itself."""
    lines = set(record.read_text().splitlines()) if record.exists() else set()
    for one in found.get("items", []):
        name = f"{one['kind'].lower()}/{one['metadata']['name']}"
        recorded = any(line.endswith(f" object {identity(one)}") for line in lines)
        if name in EVERYWHERE | {RECORD} or recorded or one["metadata"].get("ownerReferences"):
            continue
        if one["kind"] in ("Endpoints", "EndpointSlice", "PodMetrics", "Lease"):
            continue
        yield name


def plain(one: Object) -> Object:
    """An object of the cluster as it would be written: without what the cluster added."""
    kept = {key: one[key] for key in ("apiVersion", "kind", "type", "data") if key in one}
    return kept | {"metadata": {key: one["metadata"][key] for key in ("name", "namespace")}}


def paths(clients: list[Object]) -> Iterator[str]:
    """The files that `edge-registry node-config --json` names, each once."""
    yield from dict.fromkeys(file["path"] for one in clients for file in (*one["files"], *one["merge"]))


def reasons(pods: Object) -> Iterator[str]:
    """Why pods are not ready, a line each."""
    for pod in pods["items"]:
        name, status = pod["metadata"]["name"], pod["status"]
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield f"  {name}: {condition.get('message', 'cannot be scheduled')}"
        for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
            state = container["state"].get("waiting") or container.get("lastState", {}).get("terminated") or {}
            if not container["ready"]:
                told = ": ".join(str(part) for part in (state.get("reason"), state.get("message")) if part)
                yield f"  {name}: {container['name']} is not ready{': ' if told else ''}{told}"


def main(verb: str, *arguments: str) -> None:
    """One verb; see the script."""
    work = Path(os.environ["REGISTRY_WORK"])
    if verb == "deploy":
        print(mine(deploy(work, Path(arguments[0]), list(arguments[1:]))), end="")
    elif verb in ("nodes", "nodes-removed"):
        print(mine(nodes(work, removed=verb == "nodes-removed")), end="")
    elif verb in ("plain", "paths"):
        document = json.load(sys.stdin)
        print(yaml.safe_dump(plain(document)) if verb == "plain" else "\n".join(paths(document)))
    elif verb in ("names", "only"):
        objects = list(yaml.safe_load_all(Path(arguments[0]).read_text()))
        if verb == "names":
            print("\n".join(identity(one) for one in objects))
        else:
            there = {line.rpartition(" ")[0] for line in Path(arguments[1]).read_text().splitlines()}
            print(yaml.safe_dump_all([one for one in objects if identity(one) in there]))
    else:
        text = sys.stdin.read()
        document = json.loads(text) if text.strip() else {"items": []}
        lines = others(Path(arguments[0]), document) if verb == "others" else reasons(document)
        print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
