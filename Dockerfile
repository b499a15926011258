# The image by an ordinary container build, for amd64 and arm64:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag rehome .
#
# `make image` makes the same content without a container engine, with an SBOM, and reproducibly; it is
# what the tests run. This file has not been run: where it was written there was no engine.
FROM rust:1.95-bookworm AS build
WORKDIR /rehome
COPY . .
RUN program=$(tests/static-program .) && \
    install -D "$program" /image/usr/local/bin/rehome && \
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
