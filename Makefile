# make demo       builds pds and shows it at work in a throw-away home
# make test       builds pds and runs all tests
# make faults     runs the tests of faults once more, with twenty times as many tries (FACTOR=n for another number)
# make controls   takes the mechanisms away, one by one, and shows that a test goes red (hours)
# make            builds pds
# make install    installs it: for you in ~/.local, as root in /usr/local, elsewhere with PREFIX=...
# make uninstall  removes what install put there, and no data
# make check      format, lints, and the licenses and sources of the dependencies
# make fuzz       feeds every decoder made-up input, FUZZ_SECONDS=60 each
# make flood      floods the bus with the requests of 200 clients for 20 seconds
# make bench      prints how fast pds is, against the floor it cannot go below
#
# What the machine lacks is named and, as root on Debian or Ubuntu, installed; PDS_NO_INSTALL=1 forbids that.

SHELL := /bin/bash
CARGO ?= cargo
PREFIX ?= $(if $(filter 0,$(shell id -u)),/usr/local,$(HOME)/.local)
TARGET := $(or $(CARGO_TARGET_DIR),target)
DAEMONS := daemon-bus daemon-secrets daemon-profile daemon-launcher
# The names by which git, docker, cargo and ssh call pds: links to it.
HELPERS := git-credential-pds docker-credential-pds cargo-credential-pds pds-askpass

# The scripts of `pds completions`, each where its shell looks for those of others.
COMPLETIONS = bash:bash-completion/completions/pds zsh:zsh/site-functions/_pds fish:fish/vendor_completions.d/pds.fish

# Units for systemd: root's are for all users. For one user alone they go where his systemd looks, and without what is
# only good for programs that their user cannot read (deploy/install-units.sh says why).
FOR_ALL := $(filter 0,$(shell id -u))
UNITS = $(DESTDIR)$(if $(FOR_ALL),$(PREFIX)/lib/systemd/user,$(or $(XDG_DATA_HOME),$(HOME)/.local/share)/systemd/user)

# SQLCipher uses the system's libcrypto where there is one, else an OpenSSL that is built with it. Looked for when a
# recipe uses it, because the prerequisites may have been installed just before.
FEATURES = $(if $(shell pkg-config --exists libcrypto && echo found),,--features core-secrets/vendored-openssl)

# The build feature of all programs that has values encrypted once more on the bus. The whole workspace is named, so
# that the crates it depends on are those that are built already.
FIELDS = $(foreach program,cli daemon-secrets daemon-launcher,--features $(program)/ipc-field-encryption)

# What starts again and again, `pds`, and the launcher, of whose spawner the processes before each child are copies, are
# linked statically where there is a C library for it: so they start sooner, and no LD_PRELOAD gets into them. `pds`
# lives for one command and is linked to a fixed address as well: to relocate it takes a quarter of its start. Its stack
# and heap lie anywhere nevertheless, and the daemons altogether.
STATIC = $(if $(wildcard $(shell $(CC) -print-file-name=libc.a)),-C target-feature=+crt-static)
BUILD_QUICK_STARTERS = $(CARGO) rustc --locked --release -p cli --bin pds -- $(STATIC) -C relocation-model=static && \
	$(CARGO) rustc --locked --release -p daemon-launcher --bin daemon-launcher -- $(STATIC)

.PHONY: build demo test faults controls fuzz flood bench check install uninstall
.DEFAULT_GOAL := build

.PHONY: prerequisites-build prerequisites-test prerequisites-check
prerequisites-build prerequisites-test prerequisites-check: prerequisites-%:
	@deploy/prerequisites.sh $*

build: prerequisites-build
	$(CARGO) build --locked --release --workspace --exclude tests --exclude cli --exclude daemon-launcher --bins $(FEATURES)
	$(BUILD_QUICK_STARTERS)

demo: build
	@deploy/demo.sh $(TARGET)/release/pds

# One profile for the tests and the daemons they start, so that everything is compiled once.
test: prerequisites-test
	$(CARGO) build --locked --workspace --bins --tests $(FEATURES)
	$(CARGO) nextest run --locked --workspace $(FEATURES)
	$(CARGO) nextest run --locked --workspace --lib --bins $(FEATURES) $(FIELDS) -E 'test(/field/)'

# The tests that kill, damage, fill and race; PDS_TEST_SEED=n makes them take other chances.
FACTOR ?= 20
faults: prerequisites-test
	$(CARGO) build --locked --workspace --bins --tests $(FEATURES)
	PDS_TEST_FACTOR=$(FACTOR) $(CARGO) nextest run --locked -p tests -p core-secrets --no-capture $(FEATURES) -E 'binary(/^fault_/)'

controls: prerequisites-test
	tests/controls/run.sh

# libFuzzer finds its way by these counters. With --target they stay out of build scripts.
FUZZ_SECONDS ?= 60
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares

fuzz: prerequisites-build
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --locked --release --target $(FUZZ_HOST) \
		--manifest-path tests/fuzz/Cargo.toml --target-dir $(TARGET)/fuzz
	@for corpus in tests/fuzz/corpus/*; do \
		target=$$(basename $$corpus); found=$(TARGET)/fuzz/corpus/$$target; mkdir -p $$found; \
		echo "fuzz: $$target"; \
		PDS_FUZZ_TARGET=$$target $(TARGET)/fuzz/$(FUZZ_HOST)/release/fuzz -timeout=10 -rss_limit_mb=512 -max_len=4096 \
			-verbosity=0 -print_final_stats=1 -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(TARGET)/fuzz/ \
			$$found $$corpus || exit 1; \
	done

flood: prerequisites-test
	$(CARGO) build --locked --release --workspace --exclude cli --exclude daemon-launcher --bins $(FEATURES)
	$(BUILD_QUICK_STARTERS)
	PDS_FLOOD_SECONDS=20 $(CARGO) nextest run --locked --release -p tests --test flood --no-capture $(FEATURES)

# Measured are copies, as `make install` makes them: the kernel keeps a file that a linker wrote in smaller pieces, and
# to start a program from it takes longer.
bench: prerequisites-build
	$(CARGO) build --locked --release --workspace --exclude cli --exclude daemon-launcher --bins $(FEATURES)
	$(BUILD_QUICK_STARTERS)
	@install -D -t $(TARGET)/installed $(addprefix $(TARGET)/release/,pds $(DAEMONS) bench)
	@$(TARGET)/installed/bench

check: prerequisites-check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets $(FEATURES) -- -D warnings
	$(CARGO) deny check bans licenses sources

# Under sudo, what was built before is installed: root need not have Rust, and root's files stay out of the build.
install: $(if $(SUDO_USER),,build)
	@test -x $(TARGET)/release/pds || { echo "pds: nothing is built: run make first, without sudo" >&2; exit 1; }
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(TARGET)/release/pds
	for name in $(HELPERS); do ln -sfn pds $(DESTDIR)$(PREFIX)/bin/$$name || exit 1; done
	install -D -m $(if $(FOR_ALL),0711,0755) -t $(DESTDIR)$(PREFIX)/lib/pds $(addprefix $(TARGET)/release/,$(DAEMONS))
	umask 022; $(TARGET)/release/pds man $(DESTDIR)$(PREFIX)/share/man
	umask 022; for place in $(COMPLETIONS); do \
		script=$(DESTDIR)$(PREFIX)/share/$${place#*:}; \
		mkdir -p $${script%/*} && $(TARGET)/release/pds completions $${place%%:*} > $$script || exit 1; \
	done
	deploy/install-units.sh "$(PREFIX)" "$(UNITS)" $(if $(FOR_ALL),all,one)
	$(if $(FOR_ALL),deploy/install-pam.sh install "$(PREFIX)" "$(DESTDIR)")
	@echo "pds: installed in $(DESTDIR)$(PREFIX); daemons that run already are replaced by: pds daemon restart"

uninstall:
	deploy/uninstall-units.sh "$(UNITS)"
	$(if $(FOR_ALL),deploy/install-pam.sh uninstall "$(PREFIX)" "$(DESTDIR)")
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,pds $(HELPERS)) $(addprefix $(DESTDIR)$(PREFIX)/lib/pds/,$(DAEMONS))
	rm -f $(DESTDIR)$(PREFIX)/share/man/man[157]/pds{,-*}.[157]
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/share/,$(foreach place,$(COMPLETIONS),$(lastword $(subst :, ,$(place)))))
	-@rmdir --ignore-fail-on-non-empty $(DESTDIR)$(PREFIX)/lib/pds 2>/dev/null
	@echo "pds: removed from $(DESTDIR)$(PREFIX); vaults, configuration and audit log are where they were"
