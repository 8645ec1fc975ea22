# The context is build/images/contexts/op-node: static binaries in an archive, made by ops/docker/images.sh.
FROM scratch
ARG VERSION
ARG COMMIT
LABEL org.opencontainers.image.title="op-node with the shared sequencer" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$COMMIT \
      org.opencontainers.image.licenses="MIT"
ADD root.tar /
USER 65532:65532
WORKDIR /data
EXPOSE 8545 8570 7300 26656
# It answers; without its agreement it would have ended. Whether chains are ready is for sharedseq_status: a restart would
# not help them. `op-node healthcheck` says the same and costs the start of op-node each time.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/bin/healthcheck", "http://127.0.0.1:8570", "sharedseq_status"]
ENTRYPOINT ["/bin/op-node"]
