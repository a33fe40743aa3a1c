/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into tests that are said to have one thread (meson.build): they are not run under
 * ThreadSanitizer, which would have nothing to look at. One that makes a thread all the same ends.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "shm/base.h"

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
		   void *arg)
{
	static const char text[] = "This test makes a thread: name it in threaded_tests of "
				   "tests/unit/meson.build, so that "
				   "ThreadSanitizer looks at it.\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(EXIT_FAILURE);
	abort();
}
