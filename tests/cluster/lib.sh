# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this file
# Shared by the scripts of this folder: source it first.

cluster_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

# Gives cache_dir, say, die and hash.
# shellcheck source=build/lib.sh
. "$cluster_dir/../../build/lib.sh"

# Everything of the running cluster is here, and goes with it. The same path for every checkout and
# user, so that a second cluster cannot come up next to the first unnoticed; on disk, because
# images and etcd's data are in it; short, because the path of a Unix socket ends at 107 bytes.
run_dir=/var/lib/asyncqueue-cluster

# The control groups that hold all processes of the cluster, and nothing else, are called this.
cgroup_name=asyncqueue-cluster

# Where the node finds programs: its own, then the machine's.
node_path=/opt/kubernetes:/opt/others:/usr/sbin:/usr/bin:/sbin:/bin

# need_root WHY
need_root() {
    [ "$(id -u)" = 0 ] || die "must run as root: $1. For example: sudo env PATH=\"\$PATH\" HOME=\"\$HOME\" $0"
}

# One up or down at a time, on the whole machine. The lock is on a folder that exists anyway, so
# that it leaves nothing behind. A script that was called by the holder of the lock has it too.
# Whatever outlives the script must close descriptor 9, or it would keep the lock.
lock() {
    local place
    place=$(realpath "$(dirname "$run_dir")")
    [ "$(readlink /proc/self/fd/9)" != "$place" ] || return 0
    exec 9<"$place"
    if ! flock -n 9; then
        say "another up or down is under way, waiting for it"
        flock 9
    fi
}

# is_ours PID: it is alive and belongs to the cluster. A recorded number alone says nothing: after
# a restart of the machine somebody else may have it.
is_ours() { grep -qs ":.*/$cgroup_name\(/\|\$\)" "/proc/$1/cgroup"; }

# holder: print the PID of the process that holds the node's namespaces; fails when it is gone.
holder() {
    local pid
    pid=$(cat "$run_dir/holder.pid" 2>/dev/null) && is_ours "$pid" && echo "$pid"
}

owner() { cat "$run_dir/owner" 2>/dev/null; }

# require_cluster: go on only if the cluster of this very checkout is there.
require_cluster() {
    [ "$(owner)" = "" ] || [ "$(owner)" = "$cluster_dir" ] ||
        die "the cluster of this machine belongs to another checkout: $(owner)"
    holder >/dev/null || die "no cluster is running: $cluster_dir/up starts it"
}

# in_node COMMAND...: run it in the node's namespaces, with nothing of the caller's environment. Takes root.
in_node() {
    nsenter --target "$(holder)" --mount --net --pid --uts --ipc --cgroup -- \
        env -i PATH="$node_path" HOME=/root TERM="${TERM:-dumb}" "$@"
}
