#!/bin/sh
# The replica imports no clock, socket, file, thread or randomness: every undefined symbol of its
# objects is one of another pure part, or on the list below.
set -eu
archive=$1
allowed='^(memchr|memcmp|memcpy|memmove|memset|strcmp|strlen|strnlen|free|malloc|calloc|realloc|vsnprintf|__vsnprintf_chk|__snprintf_chk|__memcpy_chk|__assert_fail|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_)$'
parts='^(raft_[a-z_]+|lock_[a-z_]+|hf__[a-z_]+|protobuf_c_message_[a-z_]+|arena_[a-z]+|pack_[a-z_]+|buf_[a-z]+|xmalloc|xcalloc|xrealloc|xstrdup)$'
tools='^(__asan_|__ubsan_|__tsan_|__sanitizer_|__gcov|llvm_)'
defined=$(mktemp)
trap 'rm -f "$defined"' EXIT
nm "$archive" | awk '$2 ~ /^[TDBRVWtdbr]$/ { print $3 }' | sort -u >"$defined"
bad=$(nm -u "$archive" | awk '$1 == "U" { print $2 }' | sort -u | comm -23 - "$defined" |
    grep -Ev "$allowed" | grep -Ev "$parts" | grep -Ev "$tools" || true)
if [ -n "$bad" ]; then
    echo "the replica imports what a pure part may not:"
    echo "$bad"
    exit 1
fi
