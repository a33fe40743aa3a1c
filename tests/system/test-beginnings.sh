#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Sequences that begin with rows of another program's: what they attend to is bit by bit what it
# would be without, and what programs leave behind is found by those that come later.
# shellcheck source=tests/system/functions.sh
. "$(dirname "$0")/functions.sh"

for format in f32 hier4 int8; do
	for policy in dense sparq; do
		start_daemon
		"$build/tests/system/beginnings" "$socket" "$format" "$policy" || fail "$format $policy"
		stop_daemon
	done
done
