/* SPDX-License-Identifier: MIT
 *
 * map.h: a small hash from a 64-bit key to an index, emptied in O(1).
 *
 * Why our own: it is emptied at the end of every transaction, and the common size is one to four entries.
 *
 * Invariant
 *   M1  A slot counts iff its stamp is the map's stamp.
 */
#ifndef PH_MAP_H
#define PH_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct ph_map_slot {
	uint64_t key;
	uint32_t stamp, value;
};

struct ph_map {
	struct ph_map_slot *slots; /* NULL until the first insert */
	uint32_t room, count;	   /* room: a power of two */
	uint32_t stamp;
};

static inline uint32_t ph_map_hash(uint64_t key)
{
	return (uint32_t)(key * 0x9e3779b97f4a7c15ull >> 32);
}

static inline void ph_map_clear(struct ph_map *m)
{
	m->count = 0;
	if (++m->stamp == 0) {
		for (uint32_t i = 0; i < m->room; i++)
			m->slots[i].stamp = 0;
		m->stamp = 1;
	}
}

/* The slot of key, or the empty one where it belongs. Needs room. */
static inline struct ph_map_slot *ph_map_slot(const struct ph_map *m, uint64_t key)
{
	for (uint32_t i = ph_map_hash(key);; i++) {
		struct ph_map_slot *s = &m->slots[i & (m->room - 1)];

		if (s->stamp != m->stamp || s->key == key)
			return s;
	}
}

/* -1: not there. */
static inline int64_t ph_map_get(const struct ph_map *m, uint64_t key)
{
	struct ph_map_slot *s;

	if (m->count == 0)
		return -1;
	s = ph_map_slot(m, key);
	return s->stamp == m->stamp ? (int64_t)s->value : -1;
}

static inline bool ph_map_grow(struct ph_map *m)
{
	struct ph_map next = {.room = m->room ? m->room * 2 : 16, .stamp = 1};

	next.slots = calloc(next.room, sizeof(*next.slots));
	if (!next.slots)
		return false;
	for (uint32_t i = 0; i < m->room; i++)
		if (m->slots[i].stamp == m->stamp) {
			struct ph_map_slot *s = ph_map_slot(&next, m->slots[i].key);

			*s = m->slots[i];
			s->stamp = next.stamp;
		}
	next.count = m->count;
	free(m->slots);
	*m = next;
	return true;
}

/* False: no memory; never for a key that is there. */
static inline bool ph_map_put(struct ph_map *m, uint64_t key, uint32_t value)
{
	struct ph_map_slot *s;

	if (m->stamp == 0)
		m->stamp = 1;
	s = m->room ? ph_map_slot(m, key) : NULL;
	if (!s || s->stamp != m->stamp) {
		if (!s || m->count * 2 >= m->room) {
			if (!ph_map_grow(m))
				return false;
			s = ph_map_slot(m, key);
		}
		m->count++;
		s->stamp = m->stamp;
		s->key = key;
	}
	s->value = value;
	return true;
}

#endif
