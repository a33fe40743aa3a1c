#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs what building and testing need on Debian 12: the one place that names packages.
#
#   deps.sh [build] [tests]     both when none is named
#   deps.sh --names GROUP...    prints them; "machine" is what tests/machine/root installs,
#                               "kernel" what tests/machine/image unpacks
#
# Does nothing, and needs no root, when all is there.
set -euo pipefail

build=(
	gcc libc6-dev meson ninja-build pkgconf
	liburing-dev       # control loop, spill
	libncurses-dev     # sparqctl top
	libnuma-dev        # placement
	libsystemd-dev     # the journal
	libjson-c-dev      # varlink, --json
	libxxhash-dev      # checksums of the catalogue
	libmicrohttpd-dev  # sparqd-exporter
	systemtap-sdt-dev  # probes, of a header alone
	libopenblas-pthread-dev # the example's matrix products, not the daemon's
)
tests=(
	libcmocka-dev      # unit tests
	g++                # the public headers compile as C++
	mandoc             # man pages are linted
	spin               # models of the wake-up handshakes
	systemd            # systemd-analyze: units are verified
	clang-format       # style
	binutils           # symbols of the library
	python3 jq         # reading results
	python3-pyte       # reading the screen of sparqctl top
	procps util-linux  # kill, setarch, flock
	strace             # io_uring refused
	zsh                # sparqctl's completion for it
	bpftrace           # its examples are parsed
	curl               # scrapes
	prometheus         # promtool: names and format of the metrics
	python3-prometheus-client # the reference parser of OpenMetrics
	# The kernels of other processors, and of this one with less than it has.
	gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
	git
	# A machine of our own with systemd, and packages to install in it.
	systemd-container mmdebstrap
	build-essential debhelper fakeroot lintian
	# The same, with NUMA nodes: emulated, its disks made and read without mounting them.
	qemu-system-x86 e2fsprogs zstd
)
# Not for this machine: what the one of tests/machine has. Libraries that our packages depend on, so that
# apt installs them without a network.
machine=(
	systemd-sysv dbus
	procps jq          # ps; the journal's fields
	curl               # reads what the exporter says
	libjson-c5 libnuma1 liburing2 libsystemd0 libxxhash0
	libopenblas0       # sparq-generate
	libmicrohttpd12    # sparqd-exporter
	libncurses6        # sparqctl top
)
# The kernel of virtual machines, for tests/machine/image, which takes one file of it.
kernel=(linux-image-6.12-cloud-amd64)

names=no
if [ "${1:-}" = --names ]; then
	names=yes
	shift
fi
[ $# -gt 0 ] || set -- build tests
wanted=()
for group in "$@"; do
	case $group in
	build) wanted+=("${build[@]}") ;;
	tests) wanted+=("${tests[@]}") ;;
	machine | kernel)
		[ "$names" = yes ] || { echo "deps.sh: $group is not for this one" >&2; exit 64; }
		if [ "$group" = machine ]; then wanted+=("${machine[@]}"); else wanted+=("${kernel[@]}"); fi
		;;
	*) echo "usage: deps.sh [--names] [build] [tests]" >&2; exit 64 ;;
	esac
done
if [ "$names" = yes ]; then
	printf '%s\n' "${wanted[@]}"
	exit 0
fi

command -v dpkg-query >/dev/null || {
	echo "This is not Debian. What is needed, by Debian's names: ${wanted[*]}" >&2
	exit 1
}
missing=()
for package in "${wanted[@]}"; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || true
	[ "$status" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
	as_root=(sudo)
	command -v sudo >/dev/null || {
		echo "Run as root: apt-get install --no-install-recommends ${missing[*]}" >&2
		exit 1
	}
fi
echo "installing ${missing[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300)
"${apt[@]}" update
"${apt[@]}" install --no-install-recommends "${missing[@]}"
