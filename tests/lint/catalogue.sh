#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Each MESSAGE_ID that the daemon logs has its entry in the message catalogue, and no entry is of
# one that it does not; systemd takes the catalogue; the fields are those that sparqd(8) lists.
#
#   catalogue.sh SOURCE-DIRECTORY
set -euo pipefail
export LC_ALL=C.UTF-8

source=${1:?usage: catalogue.sh SOURCE-DIRECTORY}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

complain() {
	echo "$*"
	failed=1
}

# same WHAT FILE WHAT FILE: complains about lines that only one of them has.
same() {
	local only
	only=$(diff "$2" "$4" | grep '^[<>]' | sed "s/^</only in $1:/; s/^>/only in $3:/") || true
	[ -z "$only" ] || complain "$only"
}

events=$source/daemon/events.def catalogue=$source/units/sparqd.catalog
sed -n 's/^EVENT(.*"\([0-9a-f]*\)")$/\1/p' "$events" | sort >"$scratch/code"
sed -n 's/^-- \([0-9a-f]*\)$/\1/p' "$catalogue" | sort >"$scratch/catalogue"
[ -s "$scratch/code" ] || complain "no events in $events"
[ -z "$(uniq -d "$scratch/code")" ] || complain "an id of two events: $(uniq -d "$scratch/code")"
same events.def "$scratch/code" sparqd.catalog "$scratch/catalogue"
if grep -qvxE '[0-9a-f]{32}' "$scratch/code"; then
	complain "an id that is none: $(grep -vxE '[0-9a-f]{32}' "$scratch/code")"
fi

# An event that no line uses is one that nobody will ever look up.
sed -n 's/^EVENT(\([A-Z_]*\),.*/EVENT_\1/p' "$events" | sort >"$scratch/named"
grep -ohE 'log_event\(EVENT_[A-Z_]+' "$source"/daemon/*.c | sed 's/.*(//' | sort -u >"$scratch/used"
same events.def "$scratch/named" "the daemon" "$scratch/used"

grep -ohE '"SPARQ_[A-Z]+=' "$source/daemon/log.c" | tr -d '"' | sort >"$scratch/fields"
sed -n 's/^\.It Li \(SPARQ_[A-Z]*=\)$/\1/p' "$source/man/sparqd.8" | sort >"$scratch/listed"
[ -s "$scratch/fields" ] || complain "no fields in log.c"
same log.c "$scratch/fields" "sparqd(8)" "$scratch/listed"
# The catalogue may only speak of fields that there are.
grep -ohE '@[A-Z_]+@' "$catalogue" | tr -d @ | sort -u | while read -r field; do
	grep -q "^$field=" "$scratch/fields" || echo "sparqd.catalog: there is no field $field"
done >"$scratch/strangers"
[ ! -s "$scratch/strangers" ] || complain "$(cat "$scratch/strangers")"

if command -v journalctl >/dev/null; then
	mkdir -p "$scratch/usr/lib/systemd/catalog" "$scratch/var/lib/systemd/catalog"
	cp "$catalogue" "$scratch/usr/lib/systemd/catalog/"
	journalctl --root="$scratch" --update-catalog >"$scratch/said" 2>&1 ||
		complain "journalctl --update-catalog: $(cat "$scratch/said")"
	journalctl --root="$scratch" --list-catalog | awk '{ print $1 }' | sort >"$scratch/taken"
	same events.def "$scratch/code" "journalctl --list-catalog" "$scratch/taken"
else
	echo "no journalctl: the catalogue was not compiled"
fi
[ "$failed" = 0 ] && echo "$(wc -l <"$scratch/code") messages, each explained"
exit $failed
