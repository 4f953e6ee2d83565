#!/bin/bash
# SPDX-License-Identifier: MIT
#
# header.sh: what must not compile with the public header, and what must. Usage: header.sh SOURCE_ROOT
#
# Each case is one snippet, compiled twice by each compiler that is installed: with -DGOOD it must compile without a
# warning, without it must fail with the diagnostic given. So a snippet that fails for a wrong reason is noticed.

set -u
root=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
inc=$root/include
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 2' INT TERM HUP
passed=0
failed=0

warn="-Wall -Wextra -Wconversion -Werror"
c_flags="-std=c11 $warn -O1 -c -o /dev/null"
cpp_flags="-std=c++17 $warn -O1 -c -o /dev/null"

compilers() { # c or cpp
	local cc
	for cc in $([ "$1" = c ] && echo gcc clang || echo g++ clang++); do
		command -v "$cc" >/dev/null && echo "$cc"
	done
}

pass() {
	passed=$((passed + 1))
}

fail() { # what, file with the compiler's output
	failed=$((failed + 1))
	echo "FAILED: $1"
	sed 's/^/    /' "$2" | head -20
}

# What the snippets of bad() start with.
prelude() {
	cat <<'END'
#include "pheap.h"
struct node;
struct other;
PHEAP_DECLARE(struct node, 7);
PHEAP_DECLARE(struct other, 8);
struct node {
	PHEAP_PTR(struct node) next;
	PHEAP_PTR(struct other) side;
	uint64_t value;
};
struct other {
	uint64_t value;
};
void use(const void *p);
int f(pheap *h, pheap_tx *tx, const struct node *n, const struct other *o, struct node *w);
int f(pheap *h, pheap_tx *tx, const struct node *n, const struct other *o, struct node *w)
{
	(void)h, (void)tx, (void)n, (void)o, (void)w;
END
}

# bad NAME LANGUAGES PATTERN < snippet: function body with #ifdef GOOD ... #else ... #endif
bad() {
	local name=$1 languages=$2 pattern=$3 language cc flags file
	cat >"$tmp/body"
	for language in $languages; do
		file=$tmp/case.$language
		{ prelude; cat "$tmp/body"; printf '\treturn 0;\n}\n'; } >"$file"
		[ "$language" = c ] && flags=$c_flags || flags=$cpp_flags
		for cc in $(compilers "$language"); do
			# shellcheck disable=SC2086
			if $cc $flags -I"$inc" -DGOOD "$file" >"$tmp/out" 2>&1; then
				pass
			else
				fail "$name, $cc: the right form does not compile" "$tmp/out"
			fi
			# shellcheck disable=SC2086
			if LC_ALL=C $cc $flags -I"$inc" "$file" >"$tmp/out" 2>&1; then
				fail "$name, $cc: compiled, and must not" "$tmp/body"
			elif grep -qE "$pattern" "$tmp/out"; then
				pass
			else
				fail "$name, $cc: refused, but not with: $pattern" "$tmp/out"
			fi
		done
	done
}

# good NAME LANGUAGE FLAGS < file
good() {
	local name=$1 language=$2 extra=$3 cc flags
	cat >"$tmp/good.$language"
	[ "$language" = c ] && flags=$c_flags || flags=$cpp_flags
	for cc in $(compilers "$language"); do
		# shellcheck disable=SC2086
		if $cc $flags $extra -I"$inc" "$tmp/good.$language" >"$tmp/out" 2>&1; then
			pass
		else
			fail "$name, $cc" "$tmp/out"
		fi
	done
}

read_only='read-only|const-qualified|is const'
drops='discards|invalid conversion|cannot initialize|drops|assigning to .* from .*const'
mixes='incompatible|no match for|invalid initializ|not compatible with any association|no matching function|cannot convert|could not convert|no viable|invalid conversion|cannot initialize|controlling expression'
ignored='unused-result|ignoring return value|unused-value|value computed is not used|nodiscard'

# --- the header alone ---
for flags in "" "-DPHEAP_NO_MACROS"; do
	good "header alone $flags" c "-pedantic $flags" <<<'#include "pheap.h"
#include "pheap.h"
int x;'
	good "header alone $flags" cpp "-pedantic $flags" <<<'#include "pheap.h"
#include "pheap.h"
int x;'
done
good "header after nothing but its own includes, -O0 -g" c "-O0 -g -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla" \
	<<<'#include "pheap.h"
int x;'
good "header as gnu17" c "-std=gnu17" <<<'#include "pheap.h"
int x;'
good "header as C++20" cpp "-std=c++20" <<<'#include "pheap.h"
int x;'
good "functions without macros" c "-DPHEAP_NO_MACROS" <<'END'
#include "pheap.h"
#if defined(PHEAP_GET) || defined(PHEAP_DECLARE) || defined(PHEAP_PTR)
#error "macros are there"
#endif
int f(pheap *h);
int f(pheap *h)
{
	pheap_tx *tx;
	int rc = pheap_begin(h, PHEAP_CONCURRENT | PHEAP_NOWAIT, &tx);
	return rc ? rc : pheap_end(tx, 0);
}
END
good "fixed layout of the structs" c "" <<'END'
#include "pheap.h"
_Static_assert(sizeof(struct pheap_type) == 40, "type");
_Static_assert(sizeof(struct pheap_options) == 88, "options: no padding");
_Static_assert(offsetof(struct pheap_options, layout) == 48, "layout");
_Static_assert(offsetof(struct pheap_info, base) == 24, "base");
_Static_assert(sizeof(struct pheap_info) % 8 == 0 && sizeof(struct pheap_stats) % 8 == 0, "whole words");
_Static_assert((PHEAP_CREATE | PHEAP_EXCL | PHEAP_RDONLY | PHEAP_EPHEMERAL | PHEAP_FIXED | PHEAP_GUARD) == 0x3f, "open");
_Static_assert((PHEAP_CONCURRENT | PHEAP_READ | PHEAP_NEST | PHEAP_NOWAIT) == 0xf0000, "begin");
_Static_assert(PHEAP_ECORRUPT == -5001 && PHEAP_EFOREIGN == -5010, "codes");
END

# --- a forgotten modify ---
bad "store through PHEAP_GET" "c cpp" "$read_only" <<'END'
#ifdef GOOD
	struct node *m = PHEAP_MODIFY(tx, PHEAP_GET(h, n->next));
	m->value = 1;
#else
	PHEAP_GET(h, n->next)->value = 1;
#endif
END
bad "store through PHEAP_LOAD" "c cpp" "$read_only" <<'END'
#ifdef GOOD
	use(PHEAP_LOAD(tx, n->next));
#else
	PHEAP_LOAD(tx, n->next)->value = 1;
#endif
END
bad "store through PHEAP_ROOT" "c cpp" "$read_only" <<'END'
	const struct node *r = PHEAP_ROOT(tx, "r", struct node);
#ifdef GOOD
	struct node *m = PHEAP_MODIFY(tx, r);
	m->value++;
#else
	r->value++;
#endif
END
bad "assignment of a pointer field through const" "c cpp" "$read_only|no viable overloaded|passing .* as .this. argument discards" <<'END'
#ifdef GOOD
	w->next = PHEAP_REF(h, struct node, n);
#else
	((const struct node *)w)->next = PHEAP_REF(h, struct node, n);
#endif
END
bad "memset on what pheap_find gives" "c cpp" "$drops|no matching function" <<'END'
#ifdef GOOD
	void *p = pheap_modify(tx, pheap_find(h, "r"), 8);
	memset(p, 0, 8);
#else
	memset(pheap_find(h, "r"), 0, 8);
#endif
END
bad "memcpy to what pheap_at gives" "c cpp" "$drops|no matching function" <<'END'
#ifdef GOOD
	(void)pheap_store(tx, pheap_at(h, 4096), "x", 1);
#else
	memcpy(pheap_at(h, 4096), "x", 1);
#endif
END

# --- dropped const ---
bad "PHEAP_GET into a plain pointer" "c cpp" "$drops" <<'END'
#ifdef GOOD
	const struct node *m = PHEAP_GET(h, n->next);
#else
	struct node *m = PHEAP_GET(h, n->next);
#endif
	use(m);
END
bad "PHEAP_ROOT into a plain pointer" "c cpp" "$drops" <<'END'
#ifdef GOOD
	const struct node *m = PHEAP_ROOT(tx, "r", struct node);
#else
	struct node *m = PHEAP_ROOT(tx, "r", struct node);
#endif
	use(m);
END
bad "pheap_root into a plain pointer" "c cpp" "$drops|incompatible|invalid conversion" <<'END'
#ifdef GOOD
	const void *m = pheap_root(tx, "r", 8, 1);
#else
	void *m = pheap_root(tx, "r", 8, 1);
#endif
	use(m);
END
bad "pheap_next into a plain pointer" "c cpp" "$drops" <<'END'
#ifdef GOOD
	const void *m = pheap_next(h, 1, NULL);
#else
	void *m = pheap_next(h, 1, NULL);
#endif
	use(m);
END

# --- mixed types ---
bad "PHEAP_GET of another type" "c cpp" "$mixes" <<'END'
#ifdef GOOD
	const struct other *m = PHEAP_GET(h, n->side);
#else
	const struct other *m = PHEAP_GET(h, n->next);
#endif
	use(m);
END
bad "PHEAP_REF of another type" "c cpp" "$mixes" <<'END'
#ifdef GOOD
	w->side = PHEAP_REF(tx, struct other, o);
#else
	w->side = PHEAP_REF(tx, struct other, n);
#endif
END
bad "PHEAP_REF of void" "c cpp" "$mixes" <<'END'
	const void *v = n;
#ifdef GOOD
	w->next = PHEAP_REF(h, struct node, (const struct node *)v);
#else
	w->next = PHEAP_REF(h, struct node, v);
#endif
END
bad "PHEAP_REF into a pointer of another type" "c cpp" "$mixes" <<'END'
#ifdef GOOD
	w->next = PHEAP_REF(h, struct node, n);
#else
	w->side = PHEAP_REF(h, struct node, n);
#endif
END
bad "assignment between pointers of two types" "c cpp" "$mixes" <<'END'
#ifdef GOOD
	w->next = n->next;
#else
	w->next = n->side;
#endif
END
bad "assignment of a number" "c cpp" "$mixes" <<'END'
#ifdef GOOD
	w->next.off = 0;
#else
	w->next = (pheap_off)4096;
#endif
END
bad "PHEAP_NEW of another type" "c cpp" "$mixes" <<'END'
#ifdef GOOD
	struct other *m = PHEAP_NEW(tx, struct other);
#else
	struct other *m = PHEAP_NEW(tx, struct node);
#endif
	use(m);
END
bad "PHEAP_MODIFY into another type" "c cpp" "$mixes" <<'END'
#ifdef GOOD
	struct node *m = PHEAP_MODIFY(tx, n);
#else
	struct other *m = PHEAP_MODIFY(tx, n);
#endif
	use(m);
END
bad "PHEAP_SET of another type" "c cpp" "$mixes" <<'END'
#ifdef GOOD
	int rc = PHEAP_SET(tx, n->next, n->next);
#else
	int rc = PHEAP_SET(tx, n->next, n->side);
#endif
	(void)rc;
END
bad "PHEAP_GET with what is no heap" "c cpp" "$mixes|static assertion|static_assert" <<'END'
#ifdef GOOD
	use(PHEAP_GET(tx, n->next));
#else
	use(PHEAP_GET(w, n->next));
#endif
END
bad "type that was not declared" "c cpp" "incomplete|undeclared|undefined|does not name|implicit instantiation|invalid use|not a member" <<'END'
	struct stranger { int x; };
#ifdef GOOD
	use(PHEAP_NEW(tx, struct node));
#else
	use(PHEAP_NEW(tx, struct stranger));
#endif
END
bad "transaction where the heap belongs" "c cpp" "$mixes" <<'END'
#ifdef GOOD
	use(pheap_find(h, "r"));
#else
	use(pheap_find(tx, "r"));
#endif
END

# --- ignored results ---
bad "ignored commit" "c cpp" "$ignored" <<'END'
#ifdef GOOD
	if (pheap_commit(tx))
		return 1;
#else
	pheap_commit(tx);
#endif
END
bad "ignored end" "c cpp" "$ignored" <<'END'
#ifdef GOOD
	return pheap_end(tx, 0);
#else
	pheap_end(tx, 0);
#endif
END
bad "ignored begin" "c cpp" "$ignored" <<'END'
#ifdef GOOD
	return pheap_begin(h, 0, &tx);
#else
	pheap_begin(h, 0, &tx);
#endif
END
bad "ignored run" "c cpp" "$ignored" <<'END'
#ifdef GOOD
	return pheap_run(h, 0, NULL, NULL);
#else
	pheap_run(h, 0, NULL, NULL);
#endif
END
bad "ignored open" "c cpp" "$ignored" <<'END'
#ifdef GOOD
	return pheap_open("x", 0, NULL, &h);
#else
	pheap_open("x", 0, NULL, &h);
#endif
END
bad "ignored lock" "c cpp" "$ignored" <<'END'
	const uint64_t key = 1;
#ifdef GOOD
	return pheap_lock(tx, &key, 1);
#else
	pheap_lock(tx, &key, 1);
#endif
END
bad "ignored modify" "c cpp" "$ignored" <<'END'
#ifdef GOOD
	use(pheap_modify(tx, n, 8));
#else
	pheap_modify(tx, n, 8);
#endif
END
# not in C: the macro's cast silences clang there
bad "ignored PHEAP_MODIFY" "cpp" "$ignored" <<'END'
#ifdef GOOD
	use(PHEAP_MODIFY(tx, n));
#else
	PHEAP_MODIFY(tx, n);
#endif
END
bad "ignored alloc" "c cpp" "$ignored" <<'END'
#ifdef GOOD
	use(pheap_alloc(tx, 8, 1));
#else
	pheap_alloc(tx, 8, 1);
#endif
END
bad "ignored realloc" "c cpp" "$ignored" <<'END'
#ifdef GOOD
	use(pheap_realloc(tx, n, 8));
#else
	pheap_realloc(tx, n, 8);
#endif
END

# --- one spelling of every macro in a whole file ---
for language in c cpp; do
	{
		prelude
		cat <<'END'
	struct node *m = PHEAP_NEW(tx, struct node);
	if (!m)
		return pheap_error(tx);
	m->next = PHEAP_REF(tx, struct node, n);
	m->side = PHEAP_REF(h, struct other, o);
	m = PHEAP_MODIFY(tx, PHEAP_GET(tx, m->next));
	m = PHEAP_MODIFY_N(tx, n, 3);
	uint64_t sum = PHEAP_GET(h, m->side)->value + PHEAP_LOAD(h, n->side)->value + PHEAP_TYPE(struct other);
	PHEAP_PTR(struct node) copy = n->next;
	PHEAP_PTR(char) text = PHEAP_REF(h, char, PHEAP_GET(h, PHEAP_REF(h, char, (const char *)pheap_at(h, 8))));
	if (PHEAP_SET(tx, n->value, sum) || PHEAP_SET(tx, n->next, copy))
		return pheap_error(tx);
	use(PHEAP_GET(h, text));
	return 0;
}
END
	} | good "every macro" "$language" ""
done

# --- the example of the README ---
if [ -f "$root/README.md" ]; then
	awk '/^```c$/ { on = 1; next } /^```/ { if (on) exit } on' "$root/README.md" >"$tmp/example.c"
	if grep -q pheap "$tmp/example.c"; then
		good "the README's first example" c "-std=gnu11 -Wno-unused-parameter" <"$tmp/example.c"
	fi
fi

for cc in gcc clang g++ clang++; do
	command -v "$cc" >/dev/null || echo "SKIPPED: $cc is not installed"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
