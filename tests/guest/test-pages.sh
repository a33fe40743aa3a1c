#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Pages of 1 GiB and of 2 MiB, nodes without any, and limits on memory: pages.sh.
#
#   test-pages.sh BUILD-DIRECTORY
#
# shellcheck source=tests/guest/functions.sh
. "$(dirname "$0")/functions.sh"
stage_program daemon/sparqd daemon/sparqd-hugepages client/sparqctl
cp "$build/units/sparqd-hugepages.service" "$stage/"
# More than 2 GiB, of which one must be left whole.
guest -n 2 -m 2304 -p 0 -g 1:1 -t 1200 -- pages
