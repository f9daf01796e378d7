"""``db.query.text`` of a Redis command: its words as redis-cli takes them, with ``?`` for what is not to be shown.

Which words are keys is known of the commands below (``COMMAND DOCS`` of Redis 7.0), whose keys come first; of all others no
word is shown as a key. Arguments of commands that carry credentials are never shown.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Final

from .resp import number_of

#: characters of a text; a longer one ends with ``…``, as does that of a command that was captured in part
TEXT_LIMIT: Final = 512
HIDDEN: Final = "?"
MORE: Final = "…"

_FIRST_IS_KEY = """
APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS DECR DECRBY GET GETBIT GETDEL GETEX GETRANGE GETSET INCR INCRBY INCRBYFLOAT
PSETEX SET SETBIT SETEX SETNX SETRANGE STRLEN SUBSTR DUMP EXPIRE EXPIREAT EXPIRETIME MOVE PERSIST PEXPIRE PEXPIREAT
PEXPIRETIME PTTL RESTORE SORT SORT_RO TTL TYPE HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX
HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET HSETEX
HSETNX HSTRLEN HTTL HVALS LINDEX LINSERT LLEN LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM RPOP RPUSH RPUSHX SADD SCARD
SISMEMBER SMEMBERS SMISMEMBER SPOP SRANDMEMBER SREM SSCAN ZADD ZCARD ZCOUNT ZINCRBY ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN
ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE
ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE GEOADD GEODIST GEOHASH GEOPOS GEOSEARCH XACK XADD XAUTOCLAIM
XCLAIM XDEL XLEN XPENDING XRANGE XREVRANGE XTRIM PFADD JSON.GET JSON.SET JSON.DEL JSON.TYPE TS.ADD TS.GET TS.RANGE
"""
_FIRST_TWO_ARE_KEYS = "RENAME RENAMENX COPY SMOVE LMOVE BLMOVE RPOPLPUSH BRPOPLPUSH"
_ALL_ARE_KEYS = (
    "DEL EXISTS UNLINK TOUCH MGET WATCH SDIFF SINTER SUNION SDIFFSTORE SINTERSTORE SUNIONSTORE PFCOUNT PFMERGE"
)

#: how many of the arguments are keys, from the first on
_KEYS: Final = {
    **dict.fromkeys(_FIRST_IS_KEY.split(), 1),
    **dict.fromkeys(_FIRST_TWO_ARE_KEYS.split(), 2),
    **dict.fromkeys(_ALL_ARE_KEYS.split(), sys.maxsize),
}
#: whose arguments are keys and values in turn
_PAIRS: Final = frozenset(("MSET", "MSETNX"))
#: of these, and of containers that begin with one, no argument is ever shown
_CREDENTIALS: Final = frozenset(("AUTH", "HELLO", "ACL", "CONFIG", "MIGRATE", "SENTINEL", "REPLCONF"))


class QueryText(StrEnum):
    """What is shown: no text at all; keys; all arguments."""

    NONE = "none"
    KEYS = "keys"
    LITERALS = "literals"


def query_text(request: bytes, command: str | None, mode: QueryText) -> str | None:
    """The text of the command that a head begins with, None if it is not known. command: its name, one word or two."""
    if command is None or mode is QueryText.NONE:
        return None
    words, is_whole = _array(request) if request[:1] == b"*" else _inline(request)
    name = command.split()
    arguments = enumerate(words[len(name) :])
    shown = [_shown(word) if _may_show(name[0], index, mode) else HIDDEN for index, word in arguments]
    text = " ".join((*name, *shown, *(() if is_whole else (MORE,))))
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + MORE


def _may_show(command: str, index: int, mode: QueryText) -> bool:
    """Of the argument at this index, from 0 on."""
    if command in _CREDENTIALS:
        return False
    if mode is QueryText.LITERALS:
        return True
    return index % 2 == 0 if command in _PAIRS else index < _KEYS.get(command, 0)


def _array(head: bytes) -> tuple[list[bytes], bool]:
    """The words of an array of bulk strings that were captured whole, and whether these are all."""
    line, _, rest = head.partition(b"\r\n")
    count, words = number_of(line), list[bytes]()
    while len(words) < count:
        line, end, rest = rest.partition(b"\r\n")
        length = number_of(line) if end else -1
        if length < 0 or len(rest) < length:
            break
        words.append(rest[:length])
        rest = rest[length + 2 :]
    return words, len(words) == count


def _inline(head: bytes) -> tuple[list[bytes], bool]:
    line, end, _ = head.partition(b"\n")
    words = line.split()
    return (words, True) if end else (words[:-1], False)


def _shown(word: bytes) -> str:
    """A word as redis-cli takes it: in quotes if it is empty, or not printable ASCII or UTF-8 without spaces and quotes."""
    try:
        text = word.decode()
    except UnicodeDecodeError:
        return '"' + "".join(chr(b) if 0x20 <= b < 0x7F and b not in b'"\\' else f"\\x{b:02x}" for b in word) + '"'
    plain = text.isprintable() and not any(c in " \"'\\" for c in text)
    return text if plain and text else json.dumps(text, ensure_ascii=not text.isprintable())
