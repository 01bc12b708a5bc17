# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this file
# The images that a release ships: source it after lib.sh.

shipped_images=(asyncqueue asyncqueue-example-function)

# shipped_programs IMAGE: the programs in it, each a binary of the workspace.
shipped_programs() {
    case $1 in
        asyncqueue) echo asyncqueue-operator asyncqueue-gateway asyncqueue-worker asyncqueue-console kubectl-aq ;;
        asyncqueue-example-function) echo asyncqueue-example-function ;;
        *) die "there is no image $1; there are: ${shipped_images[*]}" ;;
    esac
}

# shipped_dockerfile IMAGE
shipped_dockerfile() {
    case $1 in
        asyncqueue) echo Dockerfile ;;
        asyncqueue-example-function) echo examples/function/Dockerfile ;;
        *) die "there is no image $1; there are: ${shipped_images[*]}" ;;
    esac
}
