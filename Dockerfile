# The image of AsyncQueue: all of its programs, and nothing else. Each container names its own as
# its command: asyncqueue-operator, asyncqueue-gateway, asyncqueue-worker or kubectl-aq.
#
# It is made from static binaries that are there already, not built in a stage of this file: that stage
# would need an image with Rust and all crates from the network, each time; like this it takes a second,
# anywhere, and what is tested is what ships.
#
#     make image                         # builds the binaries into target/image, and the image
#     docker build -t asyncqueue .       # or podman: the image again, from these binaries
FROM scratch
LABEL org.opencontainers.image.title="AsyncQueue" \
      org.opencontainers.image.description="Named queues for asynchronous function calls on Kubernetes, on NATS JetStream" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY target/image/asyncqueue/ /bin/
ENV PATH=/bin
# A number, because without an /etc/passwd there are no names, and runAsNonRoot wants to see one.
USER 65532:65532
