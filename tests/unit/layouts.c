/* Compiled for BPF only for its BTF. A type that no variable has is not in BTF. */
#include "layouts.h"

struct integers integers_layout;
struct padded padded_layout;
struct nested nested_layout;
struct packed_tight packed_tight_layout;
enum wide_offset wide_offset_names;

struct with_union {
	int kind;
	union {
		int number;
		float real;
	} value;
} with_union_layout;

struct with_bits {
	unsigned int whole;
	unsigned int low : 3, high : 29;
} with_bits_layout;

struct with_pointer {
	struct inner *to;
} with_pointer_layout;

struct with_unnamed {
	struct {
		int number;
	};
} with_unnamed_layout;

struct with_128_bits {
	unsigned __int128 number;
} with_128_bits_layout;

const volatile unsigned long long limit = 5;
const volatile unsigned char key[2] = {1, 2};
unsigned int counted = 0;
int started = 3;
