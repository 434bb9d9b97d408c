#!/bin/bash
# The first process of one machine of the test cluster, in namespaces of its own: gives it a hostname, a hosts file,
# a /dev/shm and a local disk, then only waits (and so reaps what others leave behind). With it dies all of the machine.
# Arguments: the machine's name, its directory, the path at which it finds its local disk.
set -eu
name=$1 dir=$2 local=$3

hostname "$name"
mount --bind "$dir/hosts" /etc/hosts
if [ -e /etc/hostname ]; then mount --bind "$dir/hostname" /etc/hostname; fi
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount --bind "$dir/local" "$local"
ip link set lo up

touch "$dir/up"
while :; do
    sleep infinity &
    wait "$!"
done
