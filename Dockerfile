# The image by an ordinary container build, for amd64 and arm64:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag rehome .
#
# `make image` makes the same content without a container engine, with an SBOM, and reproducibly; it is
# what the tests run. This file has not been run: where it was written there was no engine.
FROM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /rehome
COPY . .
# Linked statically; with --target the flags are not those of build scripts.
RUN case "$TARGETARCH" in \
      amd64) target=x86_64-unknown-linux-gnu ;; \
      arm64) target=aarch64-unknown-linux-gnu ;; \
      *) echo "no image for $TARGETARCH" >&2; exit 1 ;; \
    esac && \
    RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/usr/local/cargo=/cargo" \
      cargo build --locked --release --package rehome --bin rehome --target "$target" && \
    install -D "target/$target/release/rehome" /image/usr/local/bin/rehome && \
    install -D --mode=644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt && \
    install -D --mode=644 LICENSE /image/usr/share/doc/rehome/LICENSE && \
    printf 'root:x:0:0:root:/:/sbin/nologin\nrehome:x:65532:65532:rehome:/:/sbin/nologin\n' \
      > /image/etc/passwd && \
    printf 'root:x:0:\nrehome:x:65532:\n' > /image/etc/group && \
    printf 'hosts: files dns\n' > /image/etc/nsswitch.conf

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Rehome" \
      org.opencontainers.image.description="Device provisioning and reprovisioning for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/rehome-dev/rehome" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /image/ /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/rehome"]
