// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Compiled for the BPF target only for its BTF, from which the test takes numpy dtypes. */
#include "output.h"

struct output output_layout;
struct turns turns_layout;
enum counter counter_names;
