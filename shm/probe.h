/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Static probes (USDT) of the provider "sparqd", for bpftrace, perf and systemtap; sparqd(8) lists
 * them with their arguments. Each is one nop and a note in the ELF file that says where its
 * arguments lie: it has no branch, and whoever traces puts a breakpoint over the nop. Arguments are
 * numbers that are at hand at that place; none is computed for the probe.
 *
 * Without <sys/sdt.h> (package systemtap-sdt-dev), or with SPARQ_NO_PROBES, they are nothing.
 */
#pragma once

#if defined(__has_include) && !defined(SPARQ_NO_PROBES)
#if __has_include(<sys/sdt.h>)
#define SPARQ_PROBES 1
#endif
#endif

#ifdef SPARQ_PROBES
#include <sys/sdt.h>

#define PROBE3(name, a, b, c) STAP_PROBE3(sparqd, name, a, b, c)
#define PROBE4(name, a, b, c, d) STAP_PROBE4(sparqd, name, a, b, c, d)
#else
#define PROBE3(name, a, b, c) ((void)(a), (void)(b), (void)(c))
#define PROBE4(name, a, b, c, d) ((void)(a), (void)(b), (void)(c), (void)(d))
#endif
