# The agent with what is in C compiled in. It loads programs into the host's kernel:
#
#   docker run --rm --pid=host --network=host --privileged wirespan
#
# --pid=host makes the process ids of the host visible under /proc, where service names come from.

FROM docker.io/library/debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends clang llvm libbpf-dev linux-libc-dev python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# What changes rarely comes first, so that a change of the sources repeats neither compilation nor download.
COPY scripts/build-bpf scripts/build-native scripts/
COPY bpf/ bpf/
RUN scripts/build-bpf
COPY wirespan/native/ wirespan/native/
RUN scripts/build-native
RUN python3 -m venv /opt/wirespan
COPY pyproject.toml README.md LICENSE ./
COPY config/ config/
COPY exporters/ exporters/
COPY receiver/ receiver/
COPY wirespan/ wirespan/
RUN /opt/wirespan/bin/pip install --no-cache-dir .

FROM docker.io/library/debian:bookworm-slim
LABEL org.opencontainers.image.title="wirespan" \
      org.opencontainers.image.description="OpenTelemetry spans of every TCP exchange on a Linux machine" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libbpf1 python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/wirespan /opt/wirespan
ENV PATH=/opt/wirespan/bin:$PATH
ENTRYPOINT ["wirespan"]
CMD ["run"]
