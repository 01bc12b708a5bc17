# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this file
# Shared by the scripts that build: source it first.

build_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

# Everything worth keeping between runs is here: programs and images, each under a name that
# holds the hash of what it was made from.
cache_dir=${XDG_CACHE_HOME:-${HOME:?is not set: say where the cache is with XDG_CACHE_HOME}/.cache}/asyncqueue

# Progress goes to stderr, so that stdout stays free for results. $SECONDS counts from the
# start of the script.
say() { printf '%4ds  %s\n' "$SECONDS" "$*" >&2; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# hash: 16 hex digits of what comes on stdin; enough to tell a handful of versions apart.
hash() { sha256sum | cut -c 1-16; }

# linux_triple [ARCHITECTURE]: what Rust calls Linux on it. None: this machine's.
linux_triple() {
    case ${1:-$(uname -m)} in
        amd64 | x86_64) echo x86_64-unknown-linux-gnu ;;
        arm64 | aarch64) echo aarch64-unknown-linux-gnu ;;
        *) die "the architecture ${1:-$(uname -m)} is not one that this project is built for: amd64 or arm64" ;;
    esac
}
