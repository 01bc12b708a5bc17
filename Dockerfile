# The image of AsyncQueue: all of its programs, and nothing else. Each container names its own as
# its command: asyncqueue-operator, asyncqueue-gateway, asyncqueue-worker, asyncqueue-console or
# kubectl-aq.
#
#     docker build -t asyncqueue .       # from source; takes an engine, the network, and some minutes
#     make image                         # from static binaries that are built outside, without any of these
ARG RUST_VERSION=1.95.0

# What the image is, whichever way its programs come.
FROM scratch AS base
LABEL org.opencontainers.image.title="AsyncQueue" \
      org.opencontainers.image.description="Named queues for asynchronous function calls on Kubernetes, on NATS JetStream" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/bin
# A number, because without an /etc/passwd there are no names, and runAsNonRoot wants to see one.
USER 65532:65532

# The programs that build/programs has made: with --target=prebuilt, as build/image does. Nightly, what is tested is what ships.
FROM base AS prebuilt
COPY target/image/asyncqueue/ /bin/

# The same programs from source. It runs on the machine's own architecture, and builds for the one that is asked for.
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-slim-bookworm AS source
ARG RUST_VERSION
ARG TARGETARCH
# Instead of what rust-toolchain.toml names, which would be downloaded.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION}
WORKDIR /asyncqueue
COPY . .
RUN build/programs asyncqueue /programs "$TARGETARCH"

FROM base
COPY --from=source /programs/ /bin/
