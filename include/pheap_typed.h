/* SPDX-License-Identifier: MIT
 *
 * pheap_typed.h: pointers in the heap that know what they point to. Included by pheap.h unless
 * PHEAP_NO_MACROS is defined.
 *
 * What: PHEAP_PTR(T) is an 8-byte offset that the compiler keeps apart from those of other types, and
 * macros that load, make and follow it. They add no state and no check at run time; every function behind
 * them is one of pheap.h.
 * Why macros: the same source then compiles as C11 and as C++17, and a wrong type is an error where it is
 * written.
 *
 *	struct node;
 *	PHEAP_DECLARE(struct node, 7);			// once, before or after the struct
 *	struct node {
 *		PHEAP_PTR(struct node) next;
 *		uint64_t value;
 *	};
 *	PHEAP_DECLARE(struct list, 8);
 *	struct list {
 *		PHEAP_PTR(struct node) first;
 *	};
 *
 *	static int push(pheap_tx *tx, uint64_t value)
 *	{
 *		const struct list *list = PHEAP_ROOT(tx, "list", struct list);
 *		struct node *n = PHEAP_NEW(tx, struct node);
 *
 *		if (!list || !n)
 *			return pheap_error(tx);
 *		n->value = value;
 *		n->next = list->first;
 *		return PHEAP_SET(tx, list->first, PHEAP_REF(tx, struct node, n));
 *	}
 *
 *	static uint64_t sum(const pheap *h, const struct list *list)
 *	{
 *		uint64_t all = 0;
 *
 *		for (const struct node *n = PHEAP_GET(h, list->first); n; n = PHEAP_GET(h, n->next))
 *			all += n->value;
 *		return all;
 *	}
 *
 * The macros, the same in both languages; x is a pheap * or a pheap_tx *, anything else does not compile:
 *
 *  PHEAP_DECLARE(T, num)     gives T its type number, 0 (untyped) to 65535. T is `struct tag`, `union tag`
 *                            or a name of one word, always in one spelling; at file scope (C++: the global
 *                            namespace), once in a source file. char and uint64_t are declared below: 0
 *  PHEAP_TYPE(T)             that number, a constant uint32_t
 *  PHEAP_PTR(T)              the type of a pointer to T in the heap: 8 bytes, all zero is null, field `off`
 *                            is the pheap_off. Those of two types do not mix. As field, element or local
 *                            variable
 *  PHEAP_GET(x, ptr)         const T *: what ptr points to; NULL for null. One load and an add, unchecked
 *                            as pheap_at
 *  PHEAP_LOAD(x, slot)       the same of a PHEAP_PTR in the heap that another thread or process may change
 *                            meanwhile with pheap_defer_u64: one atomic acquire load
 *  PHEAP_REF(x, T, p)        PHEAP_PTR(T) to p, a T * or const T * into the same heap (not checked); null
 *                            for NULL
 *  PHEAP_NEW(tx, T)          T *: a zeroed block of sizeof(T), or NULL as pheap_zalloc
 *  PHEAP_ROOT(tx, name, T)   const T *: the root of that name, or NULL as pheap_root
 *  PHEAP_MODIFY(tx, p)       T *: *p made writable, or NULL as pheap_modify; p is a T * or const T *
 *  PHEAP_MODIFY_N(tx, p, n)  T *: p[0] to p[n - 1]; n * sizeof(T) must not overflow
 *  PHEAP_SET(tx, lval, v)    int: as pheap_store of v, converted to lval's type, to lval, a place in the
 *                            heap that may be const. v is evaluated before anything is stored
 *
 * Every argument that is evaluated is evaluated once. Names with a trailing underscore are not for use.
 */
#ifndef PHEAP_TYPED_H
#define PHEAP_TYPED_H

#include "pheap.h"

#ifndef __cplusplus

/* "struct node" pastes to "pheap__struct node__ptr": the first word vanishes, the tag is left. */
#define pheap__struct
#define pheap__union
#define PHEAP_PTR(T) union pheap__##T##__ptr

/* The members behind off are never stored to: they carry T, const T and the number, for the macros to ask. */
#define PHEAP_DECLARE(T, num) \
	PHEAP_PTR(T) \
	{ \
		pheap_off off; \
		T *rw_; \
		const T *ro_; \
		char(*num_)[(num) + 1]; \
	}; \
	_Static_assert(sizeof(PHEAP_PTR(T)) == 8, "8 bytes")
#define PHEAP_TYPE(T) ((uint32_t)(sizeof *((PHEAP_PTR(T) *)0)->num_ - 1))

/* Base of the mapping: the first word of a handle and of a transaction. */
#define PHEAP_BASE_(x) \
	(*(const char *const *)_Generic((x), \
		pheap *: (const void *)(x), \
		const pheap *: (const void *)(x), \
		pheap_tx *: (const void *)(x)))

/* A mapping is never at 0: told so, compilers take the test of off for that of the result. */
static inline const void *pheap_get_(const char *base, pheap_off off)
{
	if (!base)
		__builtin_unreachable();
	return off ? base + off : NULL;
}

static inline pheap_off pheap_ref_(const char *base, const void *p)
{
	return p ? (pheap_off)((const char *)p - base) : 0;
}

/* The type of e without const: the comma makes it a value. e is not evaluated. */
#define PHEAP_BARE_(e) __typeof__(((void)0, (e)))

#define PHEAP_GET(x, ptr) ((PHEAP_BARE_((ptr).ro_))pheap_get_(PHEAP_BASE_(x), (ptr).off))
#define PHEAP_LOAD(x, slot) \
	((PHEAP_BARE_((slot).ro_))pheap_get_(PHEAP_BASE_(x), __atomic_load_n(&(slot).off, __ATOMIC_ACQUIRE)))

/* _Generic without a default: a void *, or a pointer to another type, does not compile. */
#define PHEAP_REF(x, T, p) \
	((PHEAP_PTR(T)){.off = pheap_ref_(PHEAP_BASE_(x), _Generic((p), T * : (p), const T * : (p)))})

#define PHEAP_NEW(tx, T) ((T *)pheap_zalloc((tx), sizeof(T), PHEAP_TYPE(T)))
#define PHEAP_ROOT(tx, name, T) ((const T *)pheap_root((tx), (name), sizeof(T), PHEAP_TYPE(T)))
#define PHEAP_MODIFY(tx, p) ((PHEAP_BARE_(*(p)) *)pheap_modify((tx), (p), sizeof *(p)))
#define PHEAP_MODIFY_N(tx, p, n) ((PHEAP_BARE_(*(p)) *)pheap_modify((tx), (p), (n) * sizeof *(p)))
#define PHEAP_SET(tx, lval, v) \
	__extension__({ \
		PHEAP_BARE_(lval) pheap_v_ = (v); \
		pheap_store((tx), &(lval), &pheap_v_, sizeof pheap_v_); \
	})

#else /* C++ */

/* Not "pheap": C++ forbids a namespace with a type's name. */
namespace pheapxx
{

template <class T> struct ptr {
	pheap_off off;
	explicit operator bool() const
	{
		return off != 0;
	}
};

/* Specialised by PHEAP_DECLARE. */
template <class T> struct number;

/* Base of the mapping: the first word of a handle and of a transaction. */
template <class X> const char *base(X *x)
{
	static_assert(sizeof(X *) && (__is_same(const X, const pheap) || __is_same(const X, const pheap_tx)),
		      "pheap * or pheap_tx *");
	return *reinterpret_cast<const char *const *>(x);
}

template <class X, class T> const T *get(X *x, ptr<T> p)
{
	const char *at = base(x);

	if (!at) /* as in C */
		__builtin_unreachable();
	return p.off ? reinterpret_cast<const T *>(at + p.off) : nullptr;
}

template <class X, class T> const T *load(X *x, const ptr<T> &p)
{
	return get(x, ptr<T>{__atomic_load_n(&p.off, __ATOMIC_ACQUIRE)});
}

template <class T, class X> ptr<T> ref(X *x, const T *p)
{
	return {p ? pheap_off(reinterpret_cast<const char *>(p) - base(x)) : 0};
}

template <class T> [[nodiscard]] T *modify(pheap_tx *t, const T *p, size_t n = 1)
{
	return static_cast<T *>(pheap_modify(t, p, n * sizeof(T)));
}

/* Keeps v from taking part in finding T: it is converted to the place's type. */
template <class T> struct same {
	using type = T;
};

template <class T> int set(pheap_tx *t, const T &l, const typename same<T>::type &v)
{
	T w = v;

	return pheap_store(t, &l, &w, sizeof w);
}

} // namespace pheapxx

#define PHEAP_PTR(T) ::pheapxx::ptr<T>
#define PHEAP_DECLARE(T, num) \
	template <> struct pheapxx::number<T> { \
		static constexpr uint32_t value = (num); \
	}
#define PHEAP_TYPE(T) (::pheapxx::number<T>::value)
#define PHEAP_GET(x, p) (::pheapxx::get((x), (p)))
#define PHEAP_LOAD(x, slot) (::pheapxx::load((x), (slot)))
#define PHEAP_REF(x, T, p) (::pheapxx::ref<T>((x), (p)))
#define PHEAP_NEW(tx, T) (static_cast<T *>(pheap_zalloc((tx), sizeof(T), PHEAP_TYPE(T))))
#define PHEAP_ROOT(tx, name, T) (static_cast<const T *>(pheap_root((tx), (name), sizeof(T), PHEAP_TYPE(T))))
#define PHEAP_MODIFY(tx, p) (::pheapxx::modify((tx), (p)))
#define PHEAP_MODIFY_N(tx, p, n) (::pheapxx::modify((tx), (p), (n)))
#define PHEAP_SET(tx, lval, v) (::pheapxx::set((tx), (lval), (v)))

#endif

PHEAP_DECLARE(char, 0);
PHEAP_DECLARE(uint64_t, 0);

#endif
