# shellcheck shell=bash
# The cluster of kubectl's current context, for `demo`, which sources this file and defines tell and die.
#
# What the demo creates there is removed at its end. If AsyncQueue is in the namespace openfaas already, it is used and
# kept, and so is the example. A cluster with OpenFaaS is refused.
#
# Settings:
#   IMAGE, FUNCTION_IMAGE  images of AsyncQueue and of the example function that the cluster can pull. If they are not
#                          set, and kind, k3d or minikube made the context, docker builds them and they are loaded

asyncqueue_image=asyncqueue:0.1.0 function_image=asyncqueue-example-function:0.1.0
# What is applied and has to be removed, and a folder for a copy of the kubeconfig.
created=() private=

# prepare: use the current context, and see that AsyncQueue and the example are there.
prepare() {
    use_context
    local installed example=
    installed=$(is_installed)
    [ -z "$installed" ] || example=$(kubectl get --kustomize=examples/slow-queue --ignore-not-found --output=name)
    [ -n "$example" ] || have_images
    if [ -n "$installed" ]; then
        tell "AsyncQueue is installed already: it is used, and stays."
    else
        tell "AsyncQueue is installed, until the demo ends."
        create manifests/standalone
        is_up statefulset/nats deployment/asyncqueue-operator deployment/asyncqueue-gateway
        kubectl wait --namespace=openfaas --timeout=180s --for=create asyncqueue/faas-request >/dev/null
        kubectl wait --namespace=openfaas --timeout=180s --for=condition=Ready asyncqueue/faas-request >/dev/null
    fi
    [ -n "$example" ] || create examples/slow-queue
}

# use_context: the context of now, also if the user selects another one in the meantime.
use_context() {
    local context server
    command -v kubectl >/dev/null || die "CLUSTER=current needs kubectl in PATH"
    context=$(kubectl config current-context 2>/dev/null) ||
        die "kubectl has no current context. Select one with kubectl config use-context, or leave out CLUSTER=current"
    private=$(mktemp -d)
    kubectl config view --minify --flatten --raw >"$private/kubeconfig"
    export KUBECONFIG=$private/kubeconfig
    server=$(kubectl config view --minify --output='jsonpath={.clusters[0].cluster.server}')
    tell "The cluster is that of kubectl's context $context: $server"
    kubectl get --raw=/readyz --request-timeout=10s >/dev/null ||
        die "the cluster of the context $context can't be reached at $server, see above"
}

# is_installed: print something if AsyncQueue is installed where the demo looks for it. Nothing, if the cluster has
# neither AsyncQueue nor OpenFaaS.
is_installed() {
    local there
    there=$(kubectl get deployment/asyncqueue-gateway --namespace=openfaas --ignore-not-found --output=name)
    if [ -z "$there" ]; then
        there=$(kubectl get crd/asyncqueues.asyncqueue.io namespace/openfaas namespace/openfaas-fn \
            --ignore-not-found --output=name)
        [ -z "$there" ] || die "the cluster has ${there//$'\n'/, } and no AsyncQueue in the namespace openfaas." \
            "The demo would change what is there. Use a cluster without OpenFaaS and AsyncQueue"
    fi
    echo "$there"
}

# have_images: set the names of the images that the cluster has or can pull.
have_images() {
    local context load program
    if [ -n "${IMAGE:-}" ] && [ -n "${FUNCTION_IMAGE:-}" ]; then
        asyncqueue_image=$IMAGE function_image=$FUNCTION_IMAGE
        return
    fi
    context=$(kubectl config current-context)
    case $context in
        kind-*) load=(kind load docker-image --name "${context#kind-}") ;;
        k3d-*) load=(k3d image import --cluster "${context#k3d-}") ;;
        minikube) load=(minikube image load) ;;
        *) die "the cluster of the context $context needs images: set IMAGE and FUNCTION_IMAGE to images of" \
            "AsyncQueue and of the example function that it can pull. See docs/quickstart.md" ;;
    esac
    for program in docker "${load[0]}"; do
        command -v "$program" >/dev/null || die "$program is not in PATH. It is needed for images in the cluster of the" \
            "context $context, if IMAGE and FUNCTION_IMAGE are not set"
    done
    tell "Images, built and loaded into the cluster."
    run docker compose --file=examples/standalone/compose.yaml build gateway fast
    run "${load[@]}" "$asyncqueue_image"
    run "${load[@]}" "$function_image"
}

# create FOLDER: apply a kustomize folder, with the images that the cluster has.
create() {
    created=("$1" "${created[@]}")
    kubectl kustomize "$1" |
        sed -e "s|image: asyncqueue:0.1.0\$|image: $asyncqueue_image|" \
            -e "s|image: asyncqueue-example-function:0.1.0\$|image: $function_image|" |
        kubectl apply --server-side --filename=- >/dev/null
}

# is_up WORKLOAD...: wait for the rollout of workloads of AsyncQueue.
is_up() {
    local workload
    for workload; do
        kubectl rollout status --namespace=openfaas --timeout=180s "$workload" >/dev/null || {
            kubectl get pods --namespace=openfaas >&2
            die "$workload in the namespace openfaas does not come up: kubectl describe and kubectl logs say why"
        }
    done
}

# clean_up: remove what create has applied, the last first.
clean_up() {
    local folder
    [ ${#created[@]} = 0 ] || tell "What the demo has created is removed."
    for folder in "${created[@]}"; do
        remove "$folder" >/dev/null || printf 'demo: not removed: %s. Do it with kubectl delete -k\n' "$folder" >&2
    done
    [ -z "$private" ] || rm -rf "$private"
}

# remove FOLDER: delete its objects, and before the operator the queues that it has to release.
remove() {
    if [ "$1" = manifests/standalone ]; then
        kubectl delete asyncqueues --all --all-namespaces --timeout=180s &&
            kubectl wait --for=delete pods --selector=asyncqueue.io/queue --all-namespaces --timeout=180s || return
    fi
    kubectl delete --kustomize="$1" --ignore-not-found --timeout=180s
}
