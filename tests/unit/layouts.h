/* Structs that test_btf.py compiles twice: for the host, which says where C puts everything, and for BPF. */
typedef unsigned char byte;
typedef const volatile unsigned short port;

enum colour {
	RED = 1,
	GREEN,
	BLUE = 1000
};
enum offset {
	BEFORE = -1,
	AFTER = 1
};
enum wide {
	NARROW = 3,
	WIDE = 0x123456789abcdefULL
};
enum wide_offset {
	FAR_BEFORE = -0x123456789abLL,
	NEAR = 0
};

struct inner {
	byte tag;
	unsigned long long value;
};

struct integers {
	signed char s8;
	unsigned char u8;
	short s16;
	port u16;
	int s32;
	unsigned int u32;
	long long s64;
	unsigned long long u64;
	char letter;
	_Bool flag;
	float single;
	double twice;
};

struct padded {
	byte first;
	unsigned int second;
	byte third;
	unsigned long long fourth;
	byte last;
};

struct nested {
	byte before;
	struct inner one;
	struct inner several[3];
	byte text[17];
	short matrix[2][5];
	const struct inner constant;
	enum colour colour;
	enum offset offset;
	enum wide wide;
};

struct __attribute__((packed)) packed_tight {
	byte first;
	unsigned int second;
	unsigned long long third;
};
