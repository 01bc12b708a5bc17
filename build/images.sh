# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables are those of build/lib.sh, and of describe
# Images in the cache: source it after lib.sh. Who does defines the function
#
# describe NAME: say what the image is made of, and see that it is there.
#   dockerfile, context  as for any builder of images
#   content              the folder, in the context, that all of the image's files come from
#   tag                  if it is not the hash of the content
#   stage                of the dockerfile, if it is not the last one
#
# In the cache, images/NAME/TAG/image.tar is then the image as `ctr images import`, `docker load`
# and `podman load` read it, and `digest`, next to it, is what containerd will call it by. The tag is a hash of the
# content where it is not a version: nothing is built twice, and a cluster rolls out exactly what has changed.

# ensure NAME: print NAME:TAG, after building the image if need be.
ensure() {
    local name=$1 dockerfile context content tag stage= made_from target building earlier
    mkdir -p "$cache_dir/images/$name"
    # One at a time, also of what leads up to it.
    exec 8>"$cache_dir/images/$name/lock"
    flock 8
    describe "$name"
    made_from=$({ uname -m && cat "$dockerfile" && cd "$content" && sha256sum -- *; } | hash)
    tag=${tag:-$made_from}
    target=$cache_dir/images/$name/$tag
    if [ "$(cat "$target/made-from" 2>/dev/null)" != "$made_from" ]; then
        "$build_dir/need" buildah
        building=$work/$name.new
        mkdir "$building"
        assemble "docker.io/library/$name:$tag" "$dockerfile" "$context" "$building" ||
            die "building the image $name:$tag failed, see above"
        echo "$made_from" >"$building/made-from"
        rm -rf "$target"
        # Renamed when whole: an interrupted build is never taken for a finished one.
        mv -T "$building" "$target"
        say "built the image $name:$tag"
        # Versions from days before are not needed again.
        find "$cache_dir/images/$name" -mindepth 1 -maxdepth 1 -type d -mtime +0 ! -name "$tag" -exec rm -rf {} +
    fi
    touch "$target"
    exec 8>&-
    echo "$name:$tag"
}

# assemble REFERENCE DOCKERFILE CONTEXT DIR: DIR/image.tar and DIR/digest.
assemble() {
    # The same content gets the same digest: no time of day in it.
    buildah_bud --timestamp=0 --file="$2" ${stage:+--target="$stage"} --tag="$1" "$3" &&
        buildah push --quiet --digestfile="$4/digest" "$1" "oci-archive:$4/image.tar:$1" >&2
}

# buildah ARGUMENT...: leaves nothing in the user's own store of images.
buildah() { command buildah --storage-driver=vfs --root="$work/storage" --runroot="$work/run" "$@"; }

# buildah_bud ARGUMENT...: needs no daemon, no network and no privileges that a container lacks. All files are in one layer,
# and buildah's own version is not in the image.
buildah_bud() { buildah bud --isolation=chroot --squash --identity-label=false --quiet "$@" >/dev/null; }

mkdir -p "$cache_dir/images"
# In the cache rather than in /tmp: finished images are renamed into place.
work=$(mktemp -d "$cache_dir/images/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
