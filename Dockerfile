# headcount: built from source, run as a user without rights.
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag headcount:0.1.0 .

ARG RUST=1.95.0-bookworm
ARG DEBIAN=12.15-slim

FROM rust:${RUST} AS manifests
WORKDIR /build
COPY crates crates
COPY benches benches
# Cargo wants the benches that the root's manifest names. Empty ones change only when a file comes or goes.
RUN find crates -type f ! -name Cargo.toml -delete && find crates -type d -empty -delete \
    && find benches -type f -exec truncate --size 0 {} +

FROM rust:${RUST} AS build
WORKDIR /build
# Dependencies first, in a layer that stays while the manifests do.
COPY Cargo.toml Cargo.lock ./
COPY --from=manifests /build ./
RUN for package in . crates/*; do mkdir "$package/src" && touch "$package/src/lib.rs"; done \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --profile dist --locked --bin headcount
COPY crates crates
COPY src src
# What `--version`, the log and metrics tell: the repository itself is not here.
ARG REVISION=unknown
# Cargo compares times, and those of a checkout may be older than the empty program above.
RUN find src crates -name '*.rs' -exec touch {} + \
    && HEADCOUNT_COMMIT="${REVISION}" cargo build --profile dist --locked --bin headcount

FROM debian:${DEBIAN}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="headcount" \
      org.opencontainers.image.description="Exact distinct users per segment, now" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# OpenSSL and the authorities' certificates are the distribution's, so that its security updates reach them.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 headcount \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/headcount --shell /usr/sbin/nologin headcount \
    && install --directory --owner headcount --group headcount --mode 0750 \
        /var/lib/headcount /var/lib/headcount/data /var/lib/headcount/spool /var/lib/headcount/live /var/lib/headcount/tokens
COPY --from=build /build/target/dist/headcount /usr/local/bin/headcount

USER 10001:10001
WORKDIR /var/lib/headcount
# Beyond loopback the service asks for tokens, and does not start without a tokens file unless auth is off.
ENV HEADCOUNT_LISTEN=0.0.0.0:8080 \
    HEADCOUNT_DATA_DIR=/var/lib/headcount/data \
    HEADCOUNT_SPOOL_DIR=/var/lib/headcount/spool \
    HEADCOUNT_LIVE_DIR=/var/lib/headcount/live
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["headcount", "health"]
ENTRYPOINT ["headcount"]
CMD ["serve"]
