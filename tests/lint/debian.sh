#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# debian/ agrees with the tree: version, what building needs, symbols, and which package has which file.
#
#   debian.sh SOURCE-DIRECTORY VERSION
#
# Suite machine makes the packages; this says in a moment what would fail there after minutes.
set -euo pipefail
export LC_ALL=C

cd "${1:?usage: debian.sh SOURCE-DIRECTORY VERSION}"
version=${2:?usage: debian.sh SOURCE-DIRECTORY VERSION}
failed=0
complain() {
	echo "$*"
	failed=1
}

changelog() {
	local latest
	latest=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
	[ "$latest" = "$version" ] || complain "debian/changelog is of $latest, the project of $version"
}

# The compiler, its library and ninja come with build-essential and meson.
needs() {
	tests/deps.sh --names build | grep -vxE 'gcc|libc6-dev|ninja-build' | sort >"$scratch/deps"
	sed -n '/^Build-Depends:/,/^[A-Z]/s/^ \([^ ,]*\).*/\1/p' debian/control |
		grep -vxE 'debhelper-compat|libcmocka-dev' | sort >"$scratch/control"
	diff "$scratch/deps" "$scratch/control" >"$scratch/differs" ||
		complain "tests/deps.sh (<) and Build-Depends (>): $(cat "$scratch/differs")"
}

symbols() {
	sed -n 's/^\t\(sparq_[a-z0-9_]*\);/\1/p' client/libsparq.map | sort >"$scratch/map"
	sed -n 's/^ \(sparq_[a-z0-9_]*\)@.*/\1/p' debian/libsparq0.symbols | sort >"$scratch/symbols"
	[ -s "$scratch/map" ] || complain "no symbols in client/libsparq.map"
	diff "$scratch/map" "$scratch/symbols" >"$scratch/differs" ||
		complain "libsparq.map (<) and debian/libsparq0.symbols (>): $(cat "$scratch/differs")"
}

# Where Debian has what tests/install/files lists, without what debian/rules leaves out.
installed() {
	sed 's/#.*//' tests/install/files | while read -r path feature; do
		[ "$feature" != cuda ] || continue
		case $path in
		'') ;;
		LIB/*) echo "usr/lib/any/${path#LIB/}" ;;
		lib/systemd/system/*) echo "$path" ;;
		*/*) echo "usr/$path" ;;
		*) echo "usr/share/man/man${path##*.}/$path" ;;
		esac
	done
}

each_in_one_package() {
	local path list pattern packages
	installed | while read -r path; do
		packages=
		for list in debian/*.install; do
			while read -r pattern _; do
				# A pattern, and a directory stands for what is in it.
				# shellcheck disable=SC2053
				if [[ $path == $pattern || $path == $pattern/* ]]; then
					packages+=" $(basename "$list" .install)"
				fi
			done < <(sed 's/#.*//; /^ *$/d' "$list")
		done
		[ "$(wc -w <<<"$packages")" = 1 ] || echo "$path is in:${packages:- no package}"
	done >"$scratch/packages"
	[ ! -s "$scratch/packages" ] || complain "$(cat "$scratch/packages")"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
changelog
needs
symbols
each_in_one_package
[ "$failed" = 0 ] && echo "debian/ agrees with the tree"
exit $failed
