#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemon and the kernels on a processor without AVX: cpu.sh.
#
#   test-cpu.sh BUILD-DIRECTORY
#
# shellcheck source=tests/guest/functions.sh
. "$(dirname "$0")/functions.sh"
stage_program daemon/sparqd client/sparqctl tests/kernels/{checkkern,test-exec}
guest -n 1 -C Nehalem -t 1200 -- cpu scalar
