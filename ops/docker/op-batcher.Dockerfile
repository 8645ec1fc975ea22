# The context is build/images/contexts/op-batcher: static binaries in an archive, made by ops/docker/images.sh.
FROM scratch
ARG VERSION
ARG COMMIT
LABEL org.opencontainers.image.title="op-batcher as the optimism module has it" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$COMMIT \
      org.opencontainers.image.licenses="MIT"
ADD root.tar /
USER 65532:65532
EXPOSE 8545 7300
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/bin/healthcheck", "http://127.0.0.1:8545", "health_status"]
ENTRYPOINT ["/bin/op-batcher"]
