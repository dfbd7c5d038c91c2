# syntax=docker/dockerfile:1
# One image for every role: the binary, the libraries it is linked to, and the public CAs. No shell, not root.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin isthmus
# The loader and what it loads, at their own paths; nothing else of the system is needed.
RUN mkdir -p /out/usr/bin /out/etc/ssl/certs /out/tmp \
 && cp target/release/isthmus /out/usr/bin/ \
 && ldd target/release/isthmus | grep -o '/[^ ]*' | sort -u | xargs -I{} cp -L --parents {} /out \
 && cp -L /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/

FROM scratch
COPY --from=build /out /
USER 65532:65532
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# Two arenas of the C library's allocator: a tenth less memory, and more versions a second (docs/figures.md).
ENV MALLOC_ARENA_MAX=2
ENTRYPOINT ["/usr/bin/isthmus"]
