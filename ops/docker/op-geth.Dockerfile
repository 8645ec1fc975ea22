# The context is build/images/contexts/op-geth: static binaries in an archive, made by ops/docker/images.sh.
FROM scratch
ARG VERSION
ARG COMMIT
LABEL org.opencontainers.image.title="op-geth with sessions" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$COMMIT \
      org.opencontainers.image.licenses="LGPL-3.0"
ADD root.tar /
USER 65532:65532
WORKDIR /data
EXPOSE 8545 8551 30303
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/bin/healthcheck", "http://127.0.0.1:8545", "eth_blockNumber"]
ENTRYPOINT ["/bin/op-geth"]
