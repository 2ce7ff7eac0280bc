/* Memory for one call's rows: blocks that never move, so pointers into them stay good, freed all at once. */
#ifndef DUROXIDE_ARENA_H
#define DUROXIDE_ARENA_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct dx_block { struct dx_block *before; size_t size, used; } dx_block;
typedef struct { dx_block *last; } dx_arena; /* starts as {NULL} */

#ifdef DX_ALONE /* each allocation a block of its own, to the byte, so that sanitizers and valgrind see where it ends */
enum { DX_ALIGN = 1, DX_FIRST_BLOCK = 0, DX_LARGEST_BLOCK = 0 };
#else
enum { DX_ALIGN = 16, DX_FIRST_BLOCK = 8 << 10, DX_LARGEST_BLOCK = 1 << 20 };
#endif

static inline size_t dx_round(size_t n)
{
    return (n + DX_ALIGN - 1) & ~(size_t)(DX_ALIGN - 1);
}

/* Not zeroed; NULL: out of memory. */
static inline void *dx_alloc(dx_arena *arena, size_t bytes)
{
    if (bytes > PTRDIFF_MAX / 2) return NULL;
    size_t need = dx_round(bytes ? bytes : 1), head = dx_round(sizeof(dx_block));
    dx_block *b = arena->last;
    if (b == NULL || b->size - b->used < need) {
        size_t size = b == NULL ? DX_FIRST_BLOCK : b->size < DX_LARGEST_BLOCK ? b->size * 2 : DX_LARGEST_BLOCK;
        if (size < need + head) size = need + head;
        if ((b = (dx_block *)malloc(size)) == NULL) return NULL;
        b->before = arena->last;
        b->size = size;
        b->used = head;
        arena->last = b;
    }
    void *p = (char *)b + b->used;
    b->used += need;
    return p;
}

static inline void *dx_alloc_zeroed(dx_arena *arena, size_t bytes)
{
    void *p = dx_alloc(arena, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

static inline void dx_arena_free(dx_block *last)
{
    while (last != NULL) {
        dx_block *before = last->before;
        free(last);
        last = before;
    }
}

#endif
