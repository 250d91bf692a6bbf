# Image of all roles: docker run tracker-plane ROLE …; compose.yaml runs a whole system of them.
# Docker and Podman build it: docker build --tag tracker-plane .

FROM debian:bookworm-slim AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv
WORKDIR /source
COPY setup.cfg pyproject.toml README.rst LICENSE ./
COPY packaging packaging
COPY systemd systemd
COPY ops/redis ops/redis
COPY twisted twisted
COPY tracker tracker
# The environment is replaced by images, not changed by pip.
RUN DESTDIR=/image PYTHON=/usr/bin/python3 packaging/install.sh \
    && /image/opt/tracker/bin/python -m pip uninstall --quiet --yes pip setuptools


FROM debian:bookworm-slim

# That of tracker/__init__.py; a test compares them.
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="tracker-plane" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses="MIT"

# Volumes that are mounted at these folders get their owner: control ports, and data of standalone.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 tracker \
    && useradd --system --uid 10001 --gid tracker --no-create-home --home-dir /nonexistent tracker \
    && install --directory --owner tracker --group tracker --mode 750 /run/tracker /var/lib/tracker
COPY --from=build /image/opt/tracker /opt/tracker

ENV PATH=/opt/tracker/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/tracker
# The usual ports of Queclink, Concox and Teltonika devices.
EXPOSE 5004 5023 5027

# For a role with --http tcp:9127: healthy if it is ready, else with the reasons.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from http.client import *; c = HTTPConnection('127.0.0.1', 9127, timeout=4); c.request('GET', '/readyz'); r = c.getresponse(); print(r.read().decode()); raise SystemExit(r.status != 200)"]
ENTRYPOINT ["tracker"]
CMD ["--help"]
