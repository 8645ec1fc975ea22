# The L1 of a devnet, and what writes devnets. Not for production: everybody knows its keys.
# The context is build/images/contexts/devnet: a static binary in an archive, made by ops/docker/images.sh.
FROM scratch
ARG VERSION
ARG COMMIT
LABEL org.opencontainers.image.title="devnet L1" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$COMMIT \
      org.opencontainers.image.licenses="MIT"
ADD root.tar /
USER 65532:65532
WORKDIR /data
EXPOSE 8545 5052
# The beacon API listens before the RPC does.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/bin/healthcheck", "http://127.0.0.1:8545", "eth_blockNumber"]
ENTRYPOINT ["/bin/devnet"]
CMD ["l1"]
