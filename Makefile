# Keel: everything that is built, run and tested here. `make` explains.

VERSION  ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
PORT     ?= 2376
WEB_PORT ?= 8080
PREFIX   ?= /usr/local
MEMORY   ?= 1024
FRESH    ?=
# How long `make fuzz` spends on each parser.
SECONDS_EACH ?= 60
# How many hosts `make fleet` simulates.
HOSTS ?= 100000
EARLIER ?= $(shell git rev-list -n 1 --skip=20 HEAD)
# What the machine of `make run` is told of: an update repository, and registries that are spoken to without TLS.
UPDATE_URL ?=
INSECURE_REGISTRY ?=
# A person's further arguments, for example `make test ARGS=update`.
ARGS     ?=

# The same commit makes the same release.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date +%s)

TARGET    := x86_64-unknown-linux-gnu
HOST_PACKAGES := keel-init keel
TOOLS     := target/debug
IMAGE     := $(TOOLS)/keel-image
PACKAGES  := build-essential busybox-static ca-certificates casync containerd cpio cryptsetup-bin dosfstools e2fsprogs \
             erofs-utils git iproute2 crun kmod mtools nftables openssl ovmf docker-registry podman qemu-system-x86 rauc \
             runc sbsigntool skopeo squashfs-tools strace swtpm xz-utils zstd util-linux procps docker-compose apparmor secilc socat uidmap
SUDO      := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

FAULTS    := hang-init never-ready panic-init

# $(call install,FROM,TO): copies only what changed, so that nothing is built again for a newer date.
install = cmp -s $(1) $(2) || install -m 755 $(1) $(2)
# Static; relocations packed (glibc 2.36 unpacks them), equal functions once, no tables for unwinding, since a panic
# aborts: each makes the programs smaller.
host_flags = -C target-feature=+crt-static -C force-unwind-tables=no -C link-arg=-Wl,-z,pack-relative-relocs \
             -C link-arg=-Wl,--icf=all
cargo_host = CARGO_TARGET_DIR=build/cargo RUSTFLAGS='$(host_flags)' \
             cargo build -q --profile host --target $(TARGET)
BUILT     := build/cargo/$(TARGET)/host

.PHONY: help deps tools programs oci install-oci conformance-programs conformance faults load keys inputs release image run \
        publish demo test checks suites parts fuzz fleet earlier test-earlier bench lint clean

help:
	@echo 'make image    a signed release and a disk image, in build/cloud/'
	@echo 'make run      the image in QEMU, console on this terminal (FRESH=1: from the start; PORT=, WEB_PORT=, MEMORY=)'
	@echo 'make publish  VERSION=X.Y.Z: builds that version into the update repository build/cloud/repository'
	@echo 'make demo     boots, updates and breaks a machine, and shows what it does about it'
	@echo 'make test     formatting, lints, unit tests, then scenarios in QEMU (ARGS=NAME: these scenarios only)'
	@echo 'make oci      the OCI runtime as a command for this machine, build/programs/keel-oci (make install-oci PREFIX=/usr/local)'
	@echo 'make conformance  the OCI runtime against its specification, beside crun and runc, here and in a guest (ARGS=NAME-PART)'
	@echo 'make fuzz     all parsers on changed inputs (SECONDS_EACH=60 for each; ARGS=NAME: these only)'
	@echo 'make fleet    a bad release on 100,000 simulated hosts with the real update policy (HOSTS=)'
	@echo 'make bench    size, boot and memory, measured (ARGS=KEY: these figures only)'
	@echo 'make earlier  programs of an earlier revision (EARLIER=), from which make bench measures updates'
	@echo 'make test-earlier  from an earlier revision (EARLIER=) to this one and back, with containers and images'
	@echo 'make lint     formatting and lints alone'
	@echo 'make deps     the Debian packages that all this needs; the others call it'
	@echo 'make clean    removes what was built, but neither keys nor certificates'

# Asks dpkg first, so that it costs nothing when all is there. RUNLEVEL=1: services that come along aren't started.
# Any `docker` will do, client and daemon.
deps:
	@wanted="$(PACKAGES)"; missing=; \
	{ command -v docker && { command -v dockerd || ls /usr/sbin/dockerd; }; } >/dev/null 2>&1 || wanted="$$wanted docker.io"; \
	installed=" $$(dpkg-query -W -f '$${db:Status-Abbrev}$${Package} ' | sed 's/ii  */ /g') "; \
	for package in $$wanted; do case "$$installed" in *" $$package "*) ;; *) missing="$$missing $$package";; esac; done; \
	if [ -n "$$missing" ]; then \
		echo "installing:$$missing"; \
		$(SUDO) apt-get -q update && \
		$(SUDO) env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $$missing; \
	elif ! ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1; then $(SUDO) apt-get -q update; fi
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust 1.95 with rustup' >&2; exit 1; }

tools:
	@cargo build -q -p keel-image -p keel-qemu-tests --bins

# Static, small, and apart from target/, which has other flags.
programs: deps
	@$(cargo_host) $(addprefix -p ,$(HOST_PACKAGES))
	@mkdir -p build/programs
	@$(call install,$(BUILT)/keel-init,build/programs/init)
	@$(call install,$(BUILT)/keel,build/programs/keel)
	@ln -sfn keel build/programs/keelctl

# For workstations and other engines: Podman, containerd, Docker.
oci: deps
	@$(cargo_host) -p keel-oci
	@mkdir -p build/programs
	@$(call install,$(BUILT)/keel-oci,build/programs/keel-oci)

install-oci: oci
	install -D -m 755 build/programs/keel-oci $(DESTDIR)$(PREFIX)/bin/keel-oci

# The OCI runtime as a command, and the suite that holds it to its specification. Static, for bundles and bare guests.
conformance-programs: deps
	@$(cargo_host) -p keel-oci -p keel-oci-conformance
	@mkdir -p build/conformance
	@$(foreach p,keel-oci keel-oci-conformance keel-oci-probe,$(call install,$(BUILT)/$(p),build/conformance/$(p)) &&) true

# The whole table, with crun and runc as the check of the suite itself; then engines that are told to use our runtime.
conformance: conformance-programs inputs
	@$(TOOLS)/keel-conformance --peers --table $(ARGS)
	@$(if $(ARGS),true,$(TOOLS)/keel-conformance --engines)

# Programs that break a release on purpose, for tests.
faults: deps
	@$(cargo_host) -p keel-faults
	@mkdir -p build/faults
	@$(foreach p,$(FAULTS),$(call install,$(BUILT)/$(p),build/faults/$(p)) &&) true

# What `make bench` measures with: the client that works engines, and the updater's code on a disk image.
load: deps
	@$(cargo_host) -p keel-load
	@$(cargo_host) -p keel-updater --example install_to_image
	@mkdir -p build/load
	@$(call install,$(BUILT)/keel-load,build/load/keel-load)
	@$(call install,$(BUILT)/examples/install_to_image,build/load/install_to_image)

# Programs of an earlier revision, for `make bench ARGS=update_ratio_programs` and `make test-earlier`.
earlier: deps
	@rm -rf build/earlier/source; mkdir -p build/earlier/source build/earlier/programs
	@git archive $(EARLIER) | tar -x -C build/earlier/source
	@$(MAKE) --no-print-directory -C build/earlier/source programs
	@cp -a build/earlier/source/build/programs/. build/earlier/programs/; rm -r build/earlier/source

# Whether a machine may go back to that revision: its state is what this one leaves.
test-earlier: deps programs inputs keys earlier
	@$(TOOLS)/keel-scenarios earlier-release

inputs: deps tools
	@$(IMAGE) inputs

keys: deps tools
	@$(IMAGE) keys
	@$(IMAGE) certs
	@$(IMAGE) tuf-keys >/dev/null

release: programs inputs keys
	@$(IMAGE) release --version $(VERSION) --programs build/programs --out build/cloud/release $(ARGS)

image: release
	@$(IMAGE) disk --release build/cloud/release --out build/cloud/disk.raw

run: image
	@$(IMAGE) config --out build/run/keel.toml --port $(PORT) $(if $(UPDATE_URL),--update-url $(UPDATE_URL)) \
		$(addprefix --insecure-registry ,$(INSECURE_REGISTRY))
	@$(IMAGE) run --port $(PORT) --web-port $(WEB_PORT) --memory $(MEMORY) $(if $(FRESH),--fresh)

# A release of its own beside that of `make image`, added to the update repository.
publish: programs inputs keys
	@$(IMAGE) release --version $(VERSION) --programs build/programs --out build/cloud/published/$(VERSION) $(ARGS)
	@$(IMAGE) publish --release build/cloud/published/$(VERSION) --repository build/cloud/repository

demo: programs faults inputs keys
	@$(TOOLS)/keel-demo $(ARGS)

lint:
	@cargo fmt --all --check
	@cargo clippy -q --workspace --all-targets -- -D warnings

# The programs' link-time optimisation keeps one processor busy for minutes, and the unit tests are seldom busy with two:
# both run side by side.
test: deps
	@mkdir -p build; $(MAKE) --no-print-directory suites > build/suites.log 2>&1 & built=$$!; \
		trap 'kill $$built' INT TERM; $(MAKE) --no-print-directory checks; checked=$$?; \
		wait $$built || { cat build/suites.log; exit 1; }; grep ' passed' build/suites.log; exit $$checked
	@$(TOOLS)/keel-scenarios $(ARGS)

# What the programs are held to without a whole machine.
suites: parts
	@$(TOOLS)/keel-conformance --quiet
	@$(TOOLS)/keel-store-guest

checks: lint
	@cargo test -q --workspace

parts: programs faults inputs keys conformance-programs

# Inputs that crash a parser are left in build/fuzz/.
fuzz:
	@cargo build -q -p keel-fuzz
	@$(TOOLS)/keel-fuzz --seconds $(SECONDS_EACH) --seed $$(date +%s) --out build/fuzz $(ARGS)

# Optimised apart from target/: there are a hundred million decisions.
fleet:
	@CARGO_TARGET_DIR=build/fleet cargo run -q --release -p keel-updater --example fleet -- $(HOSTS)

bench: release faults conformance-programs load
	@cargo build -q -p keel-fuzz
	@$(TOOLS)/keel-bench $(ARGS)

clean:
	@rm -rf target build/cargo build/programs build/faults build/conformance build/load build/cloud build/run build/tests build/fleet build/bench* build/earlier build/inputs
