#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# "meson install" into a staging root is complete, and a program builds against what it left.
#
#   install.sh BUILD-DIRECTORY SOURCE-DIRECTORY VERSION FEATURE...
#
# Packagers rely on it: a file that is not in tests/install/files is one that no package asks for,
# and one that is there and was not installed is missing from them.
set -euo pipefail
export LC_ALL=C

build=$(cd "${1:?usage: install.sh BUILD-DIRECTORY SOURCE-DIRECTORY VERSION FEATURE...}" && pwd)
source=$2 version=$3
features=" ${*:4} "
stage=$(mktemp -d "${TMPDIR:-/tmp}/sparq-install.XXXXXX")
trap 'rm -rf "$stage"' EXIT
tree=$stage/tree
failed=0

complain() {
	echo "$*"
	failed=1
}

option() { meson introspect --buildoptions "$build" | jq -r ".[] | select(.name == \"$1\").value"; }
prefix=$(option prefix)
libdir=$prefix/$(option libdir)
mandir=$prefix/$(option mandir)

# A line of the list is a path below the prefix, of a page just its name, and then the feature without which
# it is not there.
expected() {
	local path feature
	sed 's/#.*//' "$source/tests/install/files" | while read -r path feature; do
		if [ -z "$path" ] || [[ -n $feature && $features != *" $feature "* ]]; then
			continue
		fi
		case $path in
		*/*) echo "$prefix/$path" ;;
		*.[1-8]) [[ $features == *" no-man "* ]] || echo "$mandir/man${path##*.}/$path" ;;
		esac
	done | sed "s,^$prefix/LIB/,$libdir/,"
}

complete() {
	expected | sort >"$stage/expected"
	[ -s "$stage/expected" ] || complain "the list is empty"
	(cd "$tree" && find . ! -type d -printf '/%P\n') | sort >"$stage/installed"
	diff "$stage/expected" "$stage/installed" >"$stage/differs" ||
		complain "tests/install/files (<) and what is installed (>): $(cat "$stage/differs")"
	# A link leads to what is installed beside it.
	find "$tree" -xtype l -printf '%P leads nowhere\n' >"$stage/broken"
	[ ! -s "$stage/broken" ] || complain "$(cat "$stage/broken")"
}

# Nothing of the build or of the staging directory may have got into a text.
relocatable() {
	local hits
	hits=$(grep -rlIF -e "$stage" -e "$build" "$tree") || return 0
	complain "the path of the build is in: $hits"
}

library() {
	local elf=$libdir/libsparq.so.$version soname
	soname=$(objdump -p "$tree$elf" | awk '$1 == "SONAME" { print $2 }')
	[ "$soname" = libsparq.so.0 ] || complain "the soname is $soname"
	! objdump -p "$tree$libdir/libsparq.so" "$tree$prefix/bin/sparqctl" | grep -E 'R(UN)?PATH' ||
		complain "a path of the build is what it looks for libraries in"
}

# The first program of libsparq(3), in C, and the headers in C++, by pkg-config alone.
builds() {
	local flags
	export PKG_CONFIG_LIBDIR=$tree$libdir/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tree
	export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
	pkg-config --validate sparq || complain "sparq.pc is not valid"
	[ "$(pkg-config --modversion sparq)" = "$version" ] ||
		complain "sparq.pc has version $(pkg-config --modversion sparq)"
	# The headers include nothing but the C library's, so there is nothing to require.
	[ -z "$(pkg-config --print-requires sparq)" ] || complain "sparq.pc requires something"
	flags=$(pkg-config --cflags --libs sparq)
	# Neither is quoted: words.
	# shellcheck disable=SC2086
	${CC:-cc} -std=c11 -Wall -Werror -o "$stage/hello" "$source/client/examples/hello.c" \
		$flags || complain "hello.c does not build with: $flags"
	# shellcheck disable=SC2086
	echo '#include <sparq.h>' | ${CXX:-c++} -Wall -Werror -fsyntax-only -x c++ - $flags ||
		complain "sparq.h does not compile as C++"
}

# It is the library of the staging root that runs, and it says where it looked for a daemon.
runs() {
	local said status=0
	said=$(LD_LIBRARY_PATH=$tree$libdir SPARQ_SOCKET=$stage/none "$stage/hello" 2>&1) || status=$?
	if [ "$status" = 0 ] || [[ $said != *"$stage/none"* ]]; then
		complain "hello without a daemon ended with $status and said: $said"
	fi
}

DESTDIR=$tree meson install -C "$build" --no-rebuild --quiet
complete
relocatable
library
builds
runs
[ "$failed" = 0 ] && echo "$(wc -l <"$stage/installed") files: as listed"
exit $failed
