# The image of Edge Registry: a Python environment from the lock file, and nothing that builds.

FROM python:3.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY requirements.lock requirements-dev.lock ./
# The build's own environment holds the build backend, the image's holds the service; every file is checked by its hash.
RUN pip install --quiet --require-hashes -r requirements-dev.lock \
 && python -m venv --without-pip /opt/edge-registry \
 && pip --python /opt/edge-registry/bin/python install --quiet --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY storage storage
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/edge-registry/bin/python install --quiet --no-deps --no-index /wheels/*.whl \
 && python -m compileall -q -j 2 /opt/edge-registry

FROM python:3.13-slim-bookworm
# Nothing at run time installs packages.
RUN pip uninstall --yes --quiet --root-user-action ignore pip \
 && mkdir -p /etc/edge-registry /var/lib/edge-registry \
 && chown 65532:65532 /etc/edge-registry /var/lib/edge-registry
COPY --from=build /opt/edge-registry /opt/edge-registry
ENV PATH=/opt/edge-registry/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    EDGE_REGISTRY_STORAGE__FILESYSTEM__ROOT=/var/lib/edge-registry
WORKDIR /var/lib/edge-registry
USER 65532:65532
VOLUME /var/lib/edge-registry
EXPOSE 5045
# The check asks this process alone, over whichever of HTTP and TLS it speaks; who it is does not matter on loopback.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", "\
import os, ssl, urllib.request as u\n\
tls = bool(os.environ.get('EDGE_REGISTRY_HTTP__TLS__CERTIFICATE'))\n\
port = os.environ.get('EDGE_REGISTRY_HTTP__PORT', '5045')\n\
u.urlopen(('https' if tls else 'http') + '://127.0.0.1:' + port + '/livez', timeout=4, context=ssl._create_unverified_context() if tls else None)"]
ENTRYPOINT ["edge-registry"]
CMD ["serve"]
