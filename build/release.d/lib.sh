# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this file
# What the parts of a release share: source it first. It changes into the repository.

# Gives build_dir, cache_dir, say and die.
# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$build_dir/.." || exit
"$build_dir/need" git jq

# The version, the registry and the repository are in Cargo.toml, and nowhere else.
metadata=$(cargo metadata --locked --no-deps --format-version=1)
of_workspace() { jq --exit-status --raw-output "$1" <<<"$metadata" || die "Cargo.toml does not say $1 of cargo metadata"; }
release_version=$(of_workspace '.packages[] | select(.name == "asyncqueue") | .version')
release_registry=${RELEASE_REGISTRY:-$(of_workspace .metadata.release.registry)}
release_repository=${RELEASE_REPOSITORY:-$(of_workspace '.packages[] | select(.name == "asyncqueue") | .repository')}
release_folder=$(realpath --canonicalize-missing "${RELEASE_FOLDER:-target/release-$release_version}")
read -ra release_architectures <<<"${RELEASE_ARCHITECTURES:-amd64 arm64}"

release_revision=$(git rev-parse HEAD)
# What is not committed can't be found by its revision.
[ -z "$(git status --porcelain)" ] || release_revision+=-dirty

# The one time in all files. Programs that know the variable use it, too.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
# Neither the user's language nor the user's rights are in a file.
export LC_ALL=C TZ=UTC
umask 022

# archive FILE FOLDER: a tar archive of all that is in a folder, the same for the same content. Compressed if its name
# ends in gz.
archive() {
    local file=$1 folder=$2 compress=(cat)
    case $file in *gz) compress=(gzip --no-name --best) ;; esac
    tar --create --directory="$folder" --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" \
        --owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX . | "${compress[@]}" >"$file"
}

# temporary_folder: set `work` to a folder that goes with the script.
temporary_folder() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
}

# runs PROGRAM ARCHITECTURE: fail unless a program starts and says this version, on this machine or as if on the other.
runs() {
    local emulator=()
    case $2-$(uname -m) in
        amd64-x86_64 | arm64-aarch64) ;;
        amd64-*) emulator=(qemu-x86_64) ;;
        arm64-*) emulator=(qemu-aarch64) ;;
    esac
    [ ${#emulator[@]} -eq 0 ] || "$build_dir/need" "${emulator[@]}"
    local answer
    answer=$("${emulator[@]}" "$1" --version) || die "$1 does not start on $2"
    [[ $answer = *" $release_version" ]] || die "$1 says \"$answer\", not version $release_version"
}
