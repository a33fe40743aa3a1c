#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# includes.sh ROOT: who may include whom. What is not in the table below is not allowed.
set -eu

# folder: what of ours it may include (shell patterns of paths from the root)
table='
shm: shm/*
numa: numa/* shm/base.h
kernels: kernels/* shm/base.h
client: client/* shm/*
daemon: daemon/* shm/* numa/* kernels/kernels.h kernels/gpu.h
'
# Found by -I in every folder: the configuration, and the installed headers as users spell them.
everywhere='config.h sparq.h sparq-abi.h'

# Prints each include of ROOT that the table does not allow.
violations() {
	echo "$table" | while IFS=: read -r folder allowed; do
		[ -n "$folder" ] && [ -d "$1/$folder" ] || continue
		find "$1/$folder" -name '*.[ch]' -o -name '*.cu' | sort | while read -r file; do
			sed -n 's/^[ \t]*#[ \t]*include[ \t]*"\([^"]*\)".*/\1/p' "$file" |
				while read -r header; do
					set -f
					for pattern in $allowed $everywhere; do
						# shellcheck disable=SC2254 # a pattern it shall be
						case $header in
						*..*) ;;
						$pattern) continue 2 ;;
						esac
					done
					echo "${file#"$1"/}: may not include \"$header\""
				done
		done
	done
}

# A lint that finds nothing may be one that cannot: a small tree with every wrong direction.
control() {
	bad=$(mktemp -d)
	trap 'rm -rf "$bad"' EXIT
	expected=0
	while read -r folder header verdict; do
		mkdir -p "$bad/$folder"
		expected=$((expected + 1))
		echo "  #  include \"$header\"" >"$bad/$folder/$expected-$verdict.c"
		[ "$verdict" = bad ] || expected=$((expected - 1))
	done <<-END
		shm numa/arena.h bad
		shm kernels/kernels.h bad
		shm daemon/cache.h bad
		numa kernels/kernels.h bad
		numa shm/ring.h bad
		kernels numa/arena.h bad
		kernels/policy daemon/cache.h bad
		kernels shm/../daemon/cache.h bad
		client kernels/kernels.h bad
		client daemon/cache.h bad
		daemon kernels/plan.h bad
		daemon client/sparq.h bad
		daemon kernels/kernels.h good
		client/examples sparq.h good
		kernels shm/base.h good
		shm shm/atomic.h good
	END
	found=$(violations "$bad")
	if [ "$(echo "$found" | wc -l)" -ne $expected ] || echo "$found" | grep -- -good >/dev/null; then
		echo "positive control: expected $expected violations, found"
		echo "$found"
		exit 1
	fi
}

control
found=$(violations "$1")
[ -z "$found" ] || { echo "$found"; exit 1; }
