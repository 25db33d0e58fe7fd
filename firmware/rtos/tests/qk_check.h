/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_CHECK_H
#define QK_CHECK_H

#include <stdio.h>
#include <stdlib.h>

/* A test is a function; its name is a sentence. The first check that does not hold ends the program. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                               \
		if (!(condition)) {                                                                                            \
			printf("FAILED %s:%d in %s: %s\n", __FILE__, __LINE__, __func__, #condition);                              \
			exit(1);                                                                                                   \
		}                                                                                                              \
	} while (0)

#define RUN(test)                                                                                                      \
	do {                                                                                                               \
		test();                                                                                                        \
		printf("ok %s\n", #test);                                                                                      \
	} while (0)

#endif
