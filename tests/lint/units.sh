#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The systemd units: nothing to say against them, and little exposed.
#
#   units.sh SERVICE UNITS-DIRECTORY
#
# verify only warns about a misspelt setting and exits 0: any output is a failure.
set -euo pipefail

service=${1:?usage: units.sh SERVICE UNITS-DIRECTORY}
units=${2:?usage: units.sh SERVICE UNITS-DIRECTORY}
limit=5 # tenths: an exposure of 0.5

command -v systemd-analyze >/dev/null || { echo "no systemd-analyze: skipped"; exit 77; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp "$units"/*.socket "$scratch/"
# ExecStart= must exist on this machine to pass; ours is not installed.
sed 's,^ExecStart=[^ ]*,ExecStart=/bin/true,' "$service" >"$scratch/sparqd.service"

failed=0
for unit in sparqd.service sparqd.socket sparqd-control.socket; do
	output=$(cd "$scratch" && systemd-analyze verify --man=no --recursive-errors=no \
		"./$unit" 2>&1) || failed=1
	if [ -n "$output" ]; then
		echo "$unit: $output"
		failed=1
	fi
done
if ! systemd-analyze security --offline=true --threshold="$limit" --no-pager \
	"$scratch/sparqd.service" >"$scratch/exposure" 2>&1; then
	grep -v '✓' "$scratch/exposure"
	failed=1
fi
tail -n 1 "$scratch/exposure"

# The calls that the usual filter takes away and the daemon cannot do without.
for call in mbind set_mempolicy get_mempolicy move_pages sched_setaffinity \
	io_uring_setup io_uring_enter io_uring_register membarrier; do
	grep -qE "^SystemCallFilter=[^~]*\b$call\b" "$service" || {
		echo "sparqd.service: SystemCallFilter= does not name $call"
		failed=1
	}
done
exit $failed
