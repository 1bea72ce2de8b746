# The server, coturn, and the voices of translations in one image: turn/compose.yaml runs it twice. docs/deploy.md says how.
#   docker build -t rtc-server .
FROM python:3.11-slim-bookworm

RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends coturn espeak-ng \
 && rm -rf /var/lib/apt/lists/*

# Nobody: owns nothing but the models that it fetches.
RUN useradd --uid 1000 --create-home --home-dir /home/rtc --shell /usr/sbin/nologin rtc \
 && mkdir /models && chown rtc: /models

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY rtc_server rtc_server
COPY static static
COPY turn/turnserver.conf turn/turnserver.conf
# On x86-64 this is PyTorch's CUDA build, several gigabytes. For a relay, or for the
# model that comes with it, a CPU build will do:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu -t rtc-server .
ARG PIP_EXTRA_INDEX_URL=""
# For engines on a Ray cluster: --build-arg EXTRAS=[cluster]. For translated rooms: EXTRAS=[rooms], on several machines
# EXTRAS=[rooms,redis].
ARG EXTRAS=""
# moshi's own pins would hold back torch, aiohttp and numpy.
RUN pip install --no-cache-dir ".${EXTRAS}" && pip install --no-cache-dir --no-deps moshi==0.2.13

USER rtc
ENV HF_HOME=/models PYTHONUNBUFFERED=1
VOLUME /models

# Without bridges and port maps, the address is the container's own: docs/deploy.md has what they need.
EXPOSE 8080/tcp
# Of "serve". With --tls-cert in the container, or another port, give the service a check of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]

ENTRYPOINT ["rtc-server"]
CMD ["serve"]
