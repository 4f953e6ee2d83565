/* The shape of include/pheap.h: names, signatures, one-line meaning, and a typed layer tried with gcc 12, clang 14, C11 and C++17.
   See README.md for a tour and src/FORMAT.md for the file. */
#ifndef PHEAP_H         /* C11 or C++17, 64-bit. -DPHEAP_NO_MACROS leaves only the functions (bindings) */
#define PHEAP_H
#define PHEAP_VERSION 0x010000u
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __cplusplus
extern "C" {
#endif
#define PHEAP_API  __attribute__((visibility("default")))
#define PHEAP_MUST __attribute__((visibility("default"), warn_unused_result))
typedef struct pheap pheap;             /* handle; its first word is the mapping's base (frozen ABI); shared by all threads */
typedef struct pheap_tx pheap_tx;       /* first word: the same base; belongs to the thread that began it */
typedef uint64_t pheap_off;             /* bytes from the heap's start; 0 is null */
typedef uint64_t pheap_savepoint_id;
/* three groups of disjoint bits: a flag given to the wrong call is -EINVAL. Macros, never enum; fixed for ever */
#define PHEAP_CREATE     0x01u          /* open */
#define PHEAP_EXCL       0x02u
#define PHEAP_RDONLY     0x04u          /* user mapping PROT_READ; still a member, may PHEAP_READ; read-only medium: only a clean heap */
#define PHEAP_EPHEMERAL  0x08u
#define PHEAP_FIXED      0x10u
#define PHEAP_GUARD      0x20u          /* development: PROT_READ outside modified pages, diff at commit -> PHEAP_EUNLOGGED */
#define PHEAP_CONCURRENT 0x10000u       /* begin: shares the heap with other CONCURRENT ones, excludes 0; caller uses pheap_lock */
#define PHEAP_READ       0x20000u       /* begin: whole heap stands still, shared with other READ ones; with CONCURRENT: caller uses lock_shared */
#define PHEAP_NEST       0x40000u       /* begin: if this thread has one open, begin a savepoint in it; else as usual */
#define PHEAP_NOWAIT     0x80000u       /* begin: -EAGAIN instead of waiting */
#define PHEAP_PROCESS    0x1000000u     /* durability; 0 = what the heap was created with; another one than the heap's: -EINVAL */
#define PHEAP_EPOCH      0x2000000u
#define PHEAP_SYNC       0x3000000u     /* default at creation */
#define PHEAP_ECORRUPT  (-5001)         /* own errors; all others are -errno (deadlock: -EDEADLK) */
#define PHEAP_EFORMAT   (-5002)         /* not a heap, or an unknown incompat feature */
#define PHEAP_ELAYOUT   (-5003)         /* layout, type table or root size differ from the file's */
#define PHEAP_EREBOOT   (-5004)         /* PROCESS heap, machine went down: refused */
#define PHEAP_EPOISONED (-5005)         /* a sync failed: outcome of the commit unknown, no more writes */
#define PHEAP_EFORKED   (-5006)         /* handle of the parent: close it and open again */
#define PHEAP_EACTIVE   (-5007)         /* this thread already has a transaction in this heap (use NEST), or close with one open */
#define PHEAP_EENDED    (-5008)         /* transaction already committed or aborted */
#define PHEAP_EUNLOGGED (-5009)         /* GUARD found a store without pheap_modify; detail names offset and type */
#define PHEAP_EFOREIGN  (-5010)         /* address is not in this heap */
struct pheap_type {                     /* static table given at open; kept in the heap for ELAYOUT, fsck reachability and dump */
	uint32_t number, align; uint64_t size; const char *name; const uint32_t *ptr_offs; uint64_t ptr_count;
};
struct pheap_options {                  /* fixed widths, no padding, 0 = default; an unknown non-zero tail is -E2BIG */
	uint64_t size; uint32_t durability, mode; uint64_t initial_size, max_size, journal_size;
	uint32_t epoch_ms, lock_timeout_ms; const char *layout; const struct pheap_type *types; uint64_t type_count;
	uint32_t member_count, lane_count;      /* creation: processes and threads that can be attached at once */
};
#define PHEAP_OPTIONS_INIT { sizeof(struct pheap_options), 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, 0, 0 }
struct pheap_info {                     /* filled up to ret_size; a newer library adds fields at the end */
	uint64_t size;                  /* bytes the library filled in */
	uint8_t uuid[16];
	const void *base;               /* address of the mapping */
	uint64_t file_size, max_size;   /* bytes */
	uint64_t chunk_count, chunk_size;
	uint32_t durability, format_version;
	char layout[64];
	uint64_t member;                /* attachment number of this process */
	uint64_t recovered_back, recovered_forward;     /* transactions that this open undid and completed */
	uint64_t recovery_ns, open_ns;  /* what it took */
	uint32_t member_max, lane_max, read_only, was_clean;
};
struct pheap_stats {                    /* same rule; a scan of the whole directory */
	uint64_t size;
	uint64_t file_size, allocated_size, free_size;  /* bytes: of the file, in blocks (rounded sizes), in free chunks and free blocks */
	uint64_t block_count, run_count, extent_count, free_chunk_count, free_chunk_run_max;    /* the last: longest row of free chunks */
	uint64_t journal_size, directory_size;  /* bytes */
	uint64_t tx_count, private_size;        /* transactions ended since the lanes were made; bytes of process memory for this heap */
	uint32_t member_count, lane_count;      /* in use now */
};
PHEAP_MUST int pheap_open(const char *path, uint32_t flags, const struct pheap_options *opt, pheap **ret);
PHEAP_API int pheap_close(pheap *h);                            /* NULL ok; EACTIVE leaves it open; the only legal call on a forked handle */
PHEAP_API int pheap_info(const pheap *h, struct pheap_info *ret, size_t ret_size);      /* uuid, base, sizes, durability, layout, member */
PHEAP_API pheap *pheap_of(const void *p);                       /* the open heap of this process that holds p, or NULL */
PHEAP_API uint32_t pheap_version(void);                         /* of the library; PHEAP_VERSION is the header's */
/* offsets and roots: what is read is const */
PHEAP_API inline const void *pheap_at(const pheap *h, pheap_off off) { return off ? *(const char *const *)(const void *)h + off : NULL; }  /* also exported */
PHEAP_API pheap_off pheap_offset(const pheap *h, const void *p);        /* 0 for NULL and for p outside the heap */
PHEAP_MUST const void *pheap_root(pheap_tx *tx, const char *name, size_t n, uint32_t type);     /* find, or create zeroed; wrong size or type dooms */
PHEAP_API int pheap_root_set(pheap_tx *tx, const char *name, const void *p);    /* name (at most 63 bytes) now means block p; NULL removes the name */
PHEAP_API const void *pheap_find(const pheap *h, const char *name);     /* outside a transaction too; NULL: no such name */
PHEAP_API int pheap_root_next(const pheap *h, char name[64]);           /* "" first; -ENOENT at the end */
/* transactions: one per thread and heap. The first failure dooms it: later calls do nothing and return that error or NULL, commit returns it */
PHEAP_MUST int pheap_begin(pheap *h, uint32_t flags, pheap_tx **ret);
PHEAP_MUST int pheap_commit(pheap_tx *tx);                      /* ends it whatever it returns; an error other than EPOISONED means: nothing happened */
PHEAP_MUST int pheap_commit_async(pheap_tx *tx, uint64_t *ret_lsn);     /* visible now, durable later; all levels */
PHEAP_API void pheap_abort(pheap_tx *tx);                       /* NULL ok */
PHEAP_MUST int pheap_end(pheap_tx *tx, int rc);                 /* rc 0: commit; else abort and return rc */
PHEAP_MUST int pheap_run(pheap *h, uint32_t flags, int (*fn)(pheap_tx *tx, void *arg), void *arg);      /* begin, fn, end; again on -EDEADLK */
PHEAP_API int pheap_wait(pheap *h, uint64_t lsn, int32_t timeout_ms);   /* -1 for ever, 0 asks */
PHEAP_MUST int pheap_savepoint(pheap_tx *tx, pheap_savepoint_id *ret);
PHEAP_API int pheap_rollback(pheap_tx *tx, pheap_savepoint_id sp);      /* also lifts a doom that came after sp; locks stay */
PHEAP_MUST int pheap_on_end(pheap_tx *tx, void (*fn)(void *arg, int committed), void *arg);     /* called after unlock; 0 also when rolled back */
PHEAP_API pheap_tx *pheap_current(const pheap *h);              /* this thread's open one, or NULL */
PHEAP_API pheap *pheap_heap(const pheap_tx *tx);
PHEAP_API int pheap_error(const pheap_tx *tx);                  /* what doomed it, or 0: check it in every loop that waits for its own stores */
/* changing memory: p and dst are const because only these calls may take the const away */
PHEAP_MUST void *pheap_modify(pheap_tx *tx, const void *p, size_t n);   /* returns p, to store in place until commit; fresh or covered: free of cost; NULL p: NULL */
PHEAP_API int pheap_store(pheap_tx *tx, const void *dst, const void *src, size_t n);    /* modify + memcpy: visible to your next load */
PHEAP_API int pheap_defer(pheap_tx *tx, const void *dst, const void *src, size_t n);    /* (was pheap_write) at commit: your own loads see the OLD bytes */
PHEAP_API int pheap_defer_u64(pheap_tx *tx, const uint64_t *dst, uint64_t value);       /* one atomic release store, after all others: publication */
/* allocation. type 0 is untyped, at most 65535 */
PHEAP_MUST void *pheap_alloc(pheap_tx *tx, size_t n, uint32_t type);
PHEAP_MUST void *pheap_zalloc(pheap_tx *tx, size_t n, uint32_t type);
PHEAP_MUST void *pheap_alloc_aligned(pheap_tx *tx, size_t align, size_t n, uint32_t type);
PHEAP_MUST void *pheap_dup(pheap_tx *tx, const void *src, size_t n, uint32_t type);     /* strdup: n = strlen + 1 */
PHEAP_MUST void *pheap_realloc(pheap_tx *tx, const void *p, size_t n);  /* keeps the type; all n bytes may be stored to; store the result's offset yourself; n or p 0: -EINVAL */
PHEAP_API int pheap_free(pheap_tx *tx, const void *p);          /* NULL ok; readable and not reused until commit and until open read sections end */
PHEAP_MUST void *pheap_reserve(pheap *h, size_t n, uint32_t type);      /* no transaction, no lock: fill a block at leisure; gone if the process dies */
PHEAP_API int pheap_publish(pheap_tx *tx, void *p);             /* the reserved block becomes allocated at commit, reserved again on abort */
PHEAP_API void pheap_cancel(pheap *h, void *p);
PHEAP_API size_t pheap_usable_size(const pheap *h, const void *p);      /* 0: p is not the start of a block */
PHEAP_API uint32_t pheap_type_of(const pheap *h, const void *p);
PHEAP_API const void *pheap_next(const pheap *h, uint32_t type, const void *prev);      /* cursor; UINT32_MAX: any type; prev may be freed in this transaction */
/* isolation between threads and processes */
PHEAP_MUST int pheap_lock(pheap_tx *tx, const uint64_t *keys, size_t n);        /* to the end; again is a no-op; -EDEADLK, -ETIMEDOUT; key of an object: its offset */
PHEAP_MUST int pheap_lock_shared(pheap_tx *tx, const uint64_t *keys, size_t n);
PHEAP_API int pheap_watch(pheap *h, const uint64_t *word, uint64_t seen, int32_t timeout_ms);   /* sleep while *word == seen; futex between processes */
PHEAP_API int pheap_notify(pheap_tx *tx, const uint64_t *word); /* wake the watchers of word after commit */
PHEAP_API uint64_t pheap_member(const pheap *h);                /* this process's attachment; never reused in the life of the file: store it as an owner */
PHEAP_API int pheap_member_alive(const pheap *h, uint64_t member);      /* 1, 0, or an error */
/* care */
PHEAP_API int pheap_stats(pheap *h, struct pheap_stats *ret, size_t ret_size);  PHEAP_API int pheap_recover(pheap *h, uint32_t *ret_members);
PHEAP_API const char *pheap_strerror(int rc);
PHEAP_API const char *pheap_error_detail(const pheap *h);       /* this thread's last failure on h; h NULL: of its last open or check */
#ifdef __cplusplus
}
#endif
/* typed layer. x: a pheap * or a pheap_tx *. PHEAP_DECLARE once per type, at file scope, before or after the struct, always in one spelling */
#ifndef PHEAP_NO_MACROS
#ifndef __cplusplus
#define pheap__struct           /* "struct node" pastes to "pheap__struct node__ptr": the first word vanishes, the tag is left */
#define pheap__union
#define PHEAP_PTR(T) union pheap__##T##__ptr
#define PHEAP_DECLARE(T, num) PHEAP_PTR(T) { pheap_off off; T *rw_; const T *ro_; char (*num_)[(num) + 1]; }; \
	_Static_assert(sizeof(PHEAP_PTR(T)) == 8, "8 bytes")
#define PHEAP_TYPE(T) ((uint32_t)(sizeof *((PHEAP_PTR(T) *)0)->num_ - 1))
#define PHEAP_BASE_(x) (*(const char *const *)_Generic((x), pheap *: (const void *)(x), const pheap *: (const void *)(x), pheap_tx *: (const void *)(x)))
static inline const void *pheap_get_(const char *base, pheap_off off) { return off ? base + off : NULL; }
static inline pheap_off pheap_ref_(const char *base, const void *p) { return p ? (pheap_off)((const char *)p - base) : 0; }
#define PHEAP_BARE_(e) __typeof__(((void)0, (e)))       /* e's type without const (comma makes it a value); e is not evaluated */
#define PHEAP_GET(x, ptr) ((PHEAP_BARE_((ptr).ro_))pheap_get_(PHEAP_BASE_(x), (ptr).off))                                       /* const T * */
#define PHEAP_LOAD(x, slot) ((PHEAP_BARE_((slot).ro_))pheap_get_(PHEAP_BASE_(x), __atomic_load_n(&(slot).off, __ATOMIC_ACQUIRE)))
#define PHEAP_REF(x, T, p) ((PHEAP_PTR(T)) { .off = pheap_ref_(PHEAP_BASE_(x), _Generic((p), T *: (p), const T *: (p))) })      /* no void * */
#define PHEAP_NEW(tx, T) ((T *)pheap_zalloc((tx), sizeof(T), PHEAP_TYPE(T)))
#define PHEAP_ROOT(tx, name, T) ((const T *)pheap_root((tx), (name), sizeof(T), PHEAP_TYPE(T)))
#define PHEAP_MODIFY(tx, p) ((PHEAP_BARE_(*(p)) *)pheap_modify((tx), (p), sizeof *(p)))                                         /* T * */
#define PHEAP_MODIFY_N(tx, p, n) ((PHEAP_BARE_(*(p)) *)pheap_modify((tx), (p), (n) * sizeof *(p)))
#define PHEAP_SET(tx, lval, v) __extension__({ PHEAP_BARE_(lval) pheap_v_ = (v); pheap_store((tx), &(lval), &pheap_v_, sizeof pheap_v_); })
#else
namespace pheapxx {             /* not "pheap": C++ forbids a namespace with a type's name */
template <class T> struct ptr { pheap_off off; explicit operator bool() const { return off != 0; } };
template <class T> struct number;
template <class X> const char *base(X *x) { static_assert(sizeof(X *) && (__is_same(const X, const pheap) || __is_same(const X, const pheap_tx)), "pheap * or pheap_tx *"); return *reinterpret_cast<const char *const *>(x); }
template <class X, class T> const T *get(X *x, ptr<T> p) { return p.off ? reinterpret_cast<const T *>(base(x) + p.off) : nullptr; }
template <class X, class T> const T *load(X *x, const ptr<T> &p) { return get(x, ptr<T>{__atomic_load_n(&p.off, __ATOMIC_ACQUIRE)}); }
template <class T, class X> ptr<T> ref(X *x, const T *p) { return {p ? pheap_off(reinterpret_cast<const char *>(p) - base(x)) : 0}; }
template <class T> [[nodiscard]] T *modify(pheap_tx *t, const T *p, size_t n = 1) { return static_cast<T *>(pheap_modify(t, p, n * sizeof(T))); }
template <class T> struct same { using type = T; };
template <class T> int set(pheap_tx *t, const T &l, const typename same<T>::type &v) { T w = v; return pheap_store(t, &l, &w, sizeof w); }
}
#define PHEAP_PTR(T) ::pheapxx::ptr<T>
#define PHEAP_DECLARE(T, num) template <> struct pheapxx::number<T> { static constexpr uint32_t value = (num); }
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
PHEAP_DECLARE(char, 0);  PHEAP_DECLARE(uint64_t, 0);
#endif
#endif
