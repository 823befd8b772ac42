# Build:  docker build -t scorenode .
# GPU:    docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t scorenode:gpu .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/scorenode
ENV PATH=/opt/scorenode/bin:$PATH
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --extra-index-url ${TORCH_INDEX} "$(grep ^torch== constraints.txt)"
COPY storage storage
COPY models models
COPY sr_templates sr_templates
COPY pipelines pipelines
COPY node node
RUN pip install --no-cache-dir -c constraints.txt .

FROM ${BASE_IMAGE}
RUN useradd --system --uid 10001 --home-dir /var/lib/scorenode --create-home scorenode \
    && mkdir -p /etc/scorenode && chown scorenode /etc/scorenode
COPY --from=build /opt/scorenode /opt/scorenode
ENV PATH=/opt/scorenode/bin:$PATH PYTHONUNBUFFERED=1
USER scorenode
WORKDIR /var/lib/scorenode
VOLUME /var/lib/scorenode
EXPOSE 11112
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8088/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["scorenode"]
CMD ["serve", "--config", "/etc/scorenode/scorenode.yaml"]
