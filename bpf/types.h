/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Integer names shared by the kernel side and the host build that unit-tests these headers. */
#ifndef WIRESPAN_TYPES_H
#define WIRESPAN_TYPES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#ifndef NULL
#define NULL ((void *)0)
#endif

#define inline_always static inline __attribute__((always_inline))

/* Which way is the rule: the other one is laid out behind the code that runs for every packet. */
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* Hides a value's range from the compiler, which would otherwise remove a mask that only the verifier needs. */
#define opaque(value) __asm__ volatile("" : "+r"(value))

/* The compiler moves no access to memory across it. */
#define barrier() asm volatile("" ::: "memory")

#endif
