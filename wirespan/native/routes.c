/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a list of patterns the path of a request matches. A pattern is literal but for segments in braces, each of which is
 * any one segment, and a last segment `*`, which is any rest. Paths are compared as they travel, percent-encoded.
 */
#include "types.h"

static int matches(const u8 *path, u64 path_size, const u8 *pattern, u64 size)
{
	u64 at = 0;

	for (u64 i = 0; i < size; i++) {
		u64 begin = at;

		if (pattern[i] == '*')
			return 1;
		if (pattern[i] != '{') {
			if (at == path_size || path[at++] != pattern[i])
				return 0;
			continue;
		}
		while (i < size && pattern[i] != '}')
			i++;
		while (at < path_size && path[at] != '/')
			at++;
		if (at == begin)
			return 0;
	}
	return at == path_size;
}

static s64 first_match(const u8 *path, u64 size, const u8 *patterns, const s64 *ends, u64 pattern_count)
{
	for (u64 i = 0; i < pattern_count; i++)
		if (matches(path, size, patterns + ends[i], (u64)(ends[i + 1] - ends[i])))
			return (s64)i;
	return -1;
}

/* found[i]: the first pattern that text i matches, -1 if it matches none or is absent (a negative length). Pattern i is
 * patterns[ends[i]] to patterns[ends[i + 1]].
 */
void match_routes(const u8 *texts, const s64 *begins, const s64 *lengths, u64 count, const u8 *patterns,
		  const s64 *ends, u64 pattern_count, s64 *found)
{
	for (u64 i = 0; i < count; i++)
		found[i] = lengths[i] < 0
				   ? -1
				   : first_match(texts + begins[i], (u64)lengths[i], patterns, ends, pattern_count);
}
