# Two images from one source:
#   docker build --target static .    depth static: the light core, without torch
#   docker build .                    every depth, with NVIDIA GPUs and without (target cuda, the last and so the default)
#
# The base is a slim Python also for CUDA: torch's wheels bring the CUDA libraries, the container runtime brings the
# driver. A release names the base by digest.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

# What to install, read from pyproject.toml, so that only a change of requirements rebuilds the layers that hold them:
# the core, and every extra but that for development. TORCH takes the place of the pinned torch; a build of it that PyPI
# does not have, such as torch==2.13.0+cpu, needs its index as PIP_EXTRA_INDEX_URL.
FROM ${BASE} AS requirements
ARG TORCH=torch==2.13.0
WORKDIR /requirements
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import tomllib; whole = tomllib.load(open("pyproject.toml", "rb")); project = whole["project"]; \
extras = {row for name, rows in project["optional-dependencies"].items() if name != "dev" for row in rows}; \
models = [row for row in sorted(extras) if not row.startswith(project["name"] + "[")]; \
print(*whole["build-system"]["requires"], sep="\n", file=open("build.txt", "w")); \
print(*project["dependencies"], sep="\n", file=open("core.txt", "w")); \
print(*models, sep="\n", file=open("models.txt", "w"))' \
    && sed "s|^torch==.*|${TORCH}|" constraints.txt > pins.txt

# The product alone, with its bytecode, laid out as it will lie in the image. A change of the source rebuilds this.
FROM ${BASE} AS product
WORKDIR /build
COPY --from=requirements /requirements/build.txt /requirements/constraints.txt ./
RUN python3 -m venv /opt/quant-verify \
    && /opt/quant-verify/bin/pip install --no-cache-dir --constraint constraints.txt --requirement build.txt
COPY pyproject.toml README.md LICENSE entrypoint.py ./
COPY checker checker
RUN /opt/quant-verify/bin/pip install --no-cache-dir --no-index --no-deps --no-build-isolation --root /product .

# What both images have. No USER: a job container of GitHub must start as root, and elsewhere --user names the caller.
# For any uid, with a name or without, and with a root that is read-only: HOME is /tmp, where caches then go
# (mount one at /tmp/.cache), and nobody writes bytecode, for all of it is there; that of the standard library, too,
# which official images of Python leave out.
FROM ${BASE} AS core
COPY --from=requirements /requirements/core.txt /requirements/constraints.txt /opt/quant-verify/
RUN python3 -m compileall -q "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && python3 -m venv /opt/quant-verify \
    && /opt/quant-verify/bin/pip install --no-cache-dir \
        --constraint /opt/quant-verify/constraints.txt --requirement /opt/quant-verify/core.txt \
    && install --directory --mode 1777 /work
ENV PATH=/opt/quant-verify/bin:${PATH} \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    QUANT_VERIFY_IN_IMAGE=1
WORKDIR /work
ENTRYPOINT ["quant-verify"]
CMD ["--help"]

FROM core AS static
COPY --from=product /product/ /
ARG BASE VERSION REVISION CREATED
LABEL org.opencontainers.image.title="quant-verify, depth static" \
      org.opencontainers.image.description="CI checker for quantized Hugging Face models, from their files alone" \
      org.opencontainers.image.source="https://github.com/org/quant-verify" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# What depths load and full need. The package kernels stays out: where it is installed, transformers fetches code from the
# Hub and runs it.
FROM core AS models
COPY --from=requirements /requirements/models.txt /requirements/pins.txt /opt/quant-verify/
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir \
        --constraint /opt/quant-verify/pins.txt --requirement /opt/quant-verify/models.txt
# Of the driver, its compute libraries and nvidia-smi. NVIDIA_VISIBLE_DEVICES is not set: docker run --gpus and the device
# plugin of Kubernetes set it to what they assign, and an image that says "all" takes every GPU of a shared node. Nor is
# NVIDIA_REQUIRE_CUDA: with too old a driver it would keep depth static from running, and doctor says more.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM models AS cuda
COPY --from=product /product/ /
ARG BASE VERSION REVISION CREATED
LABEL org.opencontainers.image.title="quant-verify" \
      org.opencontainers.image.description="CI checker for quantized Hugging Face models, with torch for NVIDIA GPUs" \
      org.opencontainers.image.source="https://github.com/org/quant-verify" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
