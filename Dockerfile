# The agent with what is in C compiled in. It loads programs into the host's kernel, with four capabilities:
#
#   docker build --tag wirespan .
#   docker run --rm --pid=host --network=host --read-only --ulimit nice=20 --security-opt no-new-privileges \
#       --cap-drop ALL --cap-add BPF --cap-add PERFMON --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH wirespan
#
# docs/deployment.md says what each of these is for.

FROM docker.io/library/debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends clang llvm libbpf-dev linux-libc-dev python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY scripts/build-bpf scripts/build-native scripts/
COPY bpf/ bpf/
COPY config/ config/
COPY exporters/ exporters/
COPY extensions/ extensions/
COPY processors/ processors/
COPY receiver/ receiver/
COPY wirespan/ wirespan/
# pip compiles by way of setup.py, and is of no use in the image.
RUN python3 -m venv /opt/wirespan \
    && /opt/wirespan/bin/pip install --no-cache-dir . \
    && /opt/wirespan/bin/pip uninstall --yes setuptools pip

FROM docker.io/library/debian:bookworm-slim
LABEL org.opencontainers.image.title="wirespan" \
      org.opencontainers.image.description="OpenTelemetry spans of every TCP exchange on a Linux machine" \
      org.opencontainers.image.licenses="Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libbpf1 python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/wirespan /opt/wirespan
ENV PATH=/opt/wirespan/bin:$PATH
ENTRYPOINT ["wirespan"]
CMD ["run"]
