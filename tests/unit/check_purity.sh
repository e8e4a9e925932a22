#!/bin/sh
# The lock table is pure: the static library imports nothing but memory and comparisons.
#
#     check_purity.sh LIBRARY
#
# Purity is measured, not promised (style: "The core is pure"). Symbols that one of the library's
# own objects defines don't count; those of sanitizers and coverage neither.
set -eu

library=$1
allowed='memcpy memmove memset memcmp memchr strlen malloc calloc realloc free qsort
xmalloc xcalloc xrealloc xmemdup __assert_fail __stack_chk_fail __memcpy_chk __memmove_chk
__memset_chk _GLOBAL_OFFSET_TABLE_ __udivti3 __umodti3 bcmp'

defined=$(nm --defined-only "$library" | awk 'NF == 3 { print $3 }' | sort -u)
imported=$(nm -u "$library" | awk '$1 == "U" { print $2 }' | sort -u)
[ -n "$imported" ] || { echo "nm found no symbols in $library"; exit 1; }

bad=
for symbol in $imported; do
    case $symbol in __asan_* | __ubsan_* | __tsan_* | __msan_* | __sanitizer_* | __gcov_* | __llvm_*)
        continue ;;
    esac
    if printf '%s\n' "$defined" | grep -qx -- "$symbol"; then continue; fi
    if printf '%s\n' $allowed | grep -qx -- "$symbol"; then continue; fi
    bad="$bad $symbol"
done
if [ -n "$bad" ]; then
    echo "raftstore/lock imports:$bad"
    exit 1
fi
# Writable data would be a global: state outside the table (sanitizers and coverage add their own).
if ! printf '%s\n' "$imported" | grep -q '^__[a-z]*san_\|^__gcov_'; then
    bytes=$(size -A "$library" | awk '$1 ~ /^\.(data|bss)$/ { n += $2 } END { print n + 0 }')
    [ "$bytes" = 0 ] || { echo "raftstore/lock has $bytes bytes of global data"; exit 1; }
fi
echo "1 passed, 0 failed"
