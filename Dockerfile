# docker build -t coterie .                                  # CPU
# docker build -t coterie:cuda --build-arg EXTRAS=cuda,analysis,lbforaging,mpe .
# docker run --rm -v "$PWD/runs:/home/coterie/runs" coterie train vdn lbf/5x5-2p-1f --steps 1e5 --out runs/first
# With the NVIDIA container toolkit: docker run --rm --gpus all coterie:cuda doctor
FROM python:3.11-slim
ARG EXTRAS=analysis,lbforaging,mpe
COPY pyproject.toml README.md LICENSE constraints.txt /src/coterie/
COPY src /src/coterie/src
RUN pip install --no-cache-dir -c /src/coterie/constraints.txt "/src/coterie[${EXTRAS}]" \
    && useradd --create-home --uid 1000 coterie
USER 1000
WORKDIR /home/coterie
ENTRYPOINT ["coterie"]
CMD ["doctor"]
