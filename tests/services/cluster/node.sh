#!/usr/bin/env bash
# The first process of a node, in namespaces of its own: gives it its own /etc, /var, /run and /srv from the folder $1, says
# "ready", and ends when its standard input does. With it end all processes, mounts and interfaces of the node.

set -euo pipefail
# Kubernetes' volumes need mounts that are shared; nothing of it leaves this namespace.
mount --make-rprivate /
mount --make-rshared /
for place in etc var run srv; do
  mount --bind "$1/$place" "/$place"
done
# What the cluster knows and its images die with it: no disk need be waited for.
for place in etcd containerd; do
  mkdir -p "/var/lib/$place"
  mount -t tmpfs -o mode=0711 tmpfs "/var/lib/$place"
done
ip link set lo up
echo ready
while read -r _; do :; done
