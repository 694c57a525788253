# nuncio: `make demo` shows it, `make test` proves it, `make install` keeps it.

PREFIX  ?= /usr/local
UNITDIR ?= /etc/systemd/system
KEEP    ?=
IMAGE   ?=

CARGO  := $(shell command -v cargo 2>/dev/null || echo $(HOME)/.cargo/bin/cargo)
export PATH := $(dir $(CARGO)):/usr/local/sbin:/usr/sbin:/sbin:$(PATH)
# .cargo/config.toml builds for the host's triple by name, so the binaries lie in a directory of that name.
TRIPLE  = $(shell $(dir $(CARGO))rustc -vV 2>/dev/null | sed -n "s/^host: //p")
RELEASE = target/$(TRIPLE)/release/nuncio

.DEFAULT_GOAL := help
.PHONY: help build demo demo-down test bench faults scale bench-tools lint screenshots install uninstall deps deps-test toolchain images ambassador-image

help: ## list the targets
	@echo "nuncio: containers that find each other by name, on one host or on two hundred"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: deps build ## redis across two hosts, three ways, with nothing left behind (KEEP=1 leaves it up, IMAGE=redis:7 pulls)
	@NUNCIO=$(RELEASE) KEEP=$(KEEP) IMAGE=$(IMAGE) examples/demo/demo.sh

demo-down: ## take down what `make demo KEEP=1` left up
	@examples/demo/down.sh

build: toolchain ## build the release binary
	@echo "== build (the first takes about ten minutes on two cores)"
	cargo build --release --locked --bin nuncio
	@echo "built $(RELEASE)"

ambassador-image: deps toolchain ## pack the ambassador alone into an image of at most 15 MiB, for `docker load`
	cargo build --release --locked --bin nuncio-ambassador
	@MOST=15728640 examples/ambassador/build.sh $(dir $(RELEASE))nuncio-ambassador

test: deps-test toolchain images ## unit tests, and the binary in real namespaces; needs root
	@tests/run.sh

bench: deps build bench-tools ## measure the ambassador beside HAProxy, nginx and others, the runtime and the networks beside docker's, names beside dnsmasq, updates of services under load; needs root
	@NUNCIO=$(RELEASE) LOAD=$(dir $(RELEASE))nuncio-bench bench/run.sh
	@NUNCIO=$(RELEASE) LOAD=$(dir $(RELEASE))nuncio-bench bench/dns.sh
	@NUNCIO=$(RELEASE) LOAD=$(dir $(RELEASE))nuncio-bench bench/scale.sh
	@NUNCIO=$(RELEASE) LOAD=$(dir $(RELEASE))nuncio-bench bench/runtime.sh
	@NUNCIO=$(RELEASE) LOAD=$(dir $(RELEASE))nuncio-bench bench/overlay.sh
	@NUNCIO=$(RELEASE) LOAD=$(dir $(RELEASE))nuncio-bench bench/updates.sh
	@NUNCIO=$(RELEASE) LOAD=$(dir $(RELEASE))nuncio-bench bench/monitoring.sh
	@LOAD=$(dir $(RELEASE))examples/registry_load bench/registry.sh

faults: deps-test toolchain images ## how long hosts take to agree again after each fault of the registry; needs root
	@bench/faults.sh

scale: deps bench-tools ## simulate the control traffic of 10,000 hosts, for docs/SCALE.md
	@$(dir $(RELEASE))nuncio-bench control

bench-tools: toolchain
	cargo build --release --locked --package nuncio-bench
	cargo build --release --locked --package nuncio-registry --example registry_load
	cargo build --release --locked --bin nuncio-ambassador

lint: deps toolchain ## formatting, clippy and docs, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

screenshots: deps-test toolchain images ## make the pictures of README.md and docs/DASHBOARD.md anew, of hosts with traffic; needs root
	PATH=$(CURDIR)/target/tools:$$PATH cargo test --test dashboard pictures -- --ignored

install: build ## install the binary, the systemd unit and shell completions under PREFIX
	install -D -m 0755 $(RELEASE) $(DESTDIR)$(PREFIX)/bin/nuncio
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|@PREFIX@|$(PREFIX)|' examples/systemd/nuncio.service >$(DESTDIR)$(UNITDIR)/nuncio.service
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	    $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(RELEASE) completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/nuncio
	$(RELEASE) completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_nuncio
	$(RELEASE) completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/nuncio.fish
	@echo "installed; start it with: systemctl enable --now nuncio"

uninstall: ## remove what `make install` put in place (containers and images stay in /var/lib/nuncio)
	rm -f $(DESTDIR)$(PREFIX)/bin/nuncio $(DESTDIR)$(UNITDIR)/nuncio.service \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/nuncio \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_nuncio \
	    $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/nuncio.fish

deps: ## install the Debian packages a build and the demo need
	@packaging/deps.sh build

deps-test: deps ## install the Debian packages the tests need on top
	@packaging/deps.sh test

toolchain:
	@packaging/toolchain.sh

images: ## make the OCI archives the demo and the tests load
	@examples/redis/build.sh
	@tests/support/busybox.sh
