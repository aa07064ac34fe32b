# syntax=docker/dockerfile:1
# Two stages: the toolchain stays behind, the image holds the binary, the C library and CA certificates.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# librdkafka and its TLS are built from source by the build scripts; gcc, make and perl are in the base image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p viaduct && \
    mkdir -p /out/state && cp target/release/viaduct /out/viaduct

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="viaduct" \
      org.opencontainers.image.description="A bridge from the Alvaria Cloud event stream to Kafka and NATS JetStream" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out/viaduct /usr/local/bin/viaduct
# An owned, empty directory: a volume mounted here takes its owner over.
COPY --from=build --chown=nonroot:nonroot /out/state /var/lib/viaduct
# By number, so that a cluster can see that it is not root (runAsNonRoot). 65532 is `nonroot`.
USER 65532:65532
WORKDIR /var/lib/viaduct
EXPOSE 9464 8900
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/viaduct"]
CMD ["run", "-c", "/etc/viaduct/viaduct.toml"]
