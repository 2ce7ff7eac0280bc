/* A VFS over SQLite's own, named "broken", that fails at the n-th operation of a kind, as an operating system would.
 *
 * Loaded as an extension; declares the few things of SQLite's public interface that it uses. It never really syncs.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stddef.h>
#include <string.h>

typedef struct file file;
typedef struct vfs vfs;

typedef struct {
    int version;
    int (*close)(file *);
    int (*read)(file *, void *, int, int64_t);
    int (*write)(file *, const void *, int, int64_t);
    int (*truncate)(file *, int64_t);
    int (*sync)(file *, int);
    int (*size)(file *, int64_t *);
    int (*lock)(file *, int);
    int (*unlock)(file *, int);
    int (*check_reserved)(file *, int *);
    int (*control)(file *, int, void *);
    int (*sector)(file *);
    int (*characteristics)(file *);
    int (*shm_map)(file *, int, int, int, void volatile **);
    int (*shm_lock)(file *, int, int, int);
    void (*shm_barrier)(file *);
    int (*shm_unmap)(file *, int);
} methods;

struct file { const methods *methods; };

struct vfs {
    int version, file_size, longest_path;
    vfs *next;
    const char *name;
    void *data;
    int (*open)(vfs *, const char *, file *, int, int *);
    int (*delete)(vfs *, const char *, int);
    int (*access)(vfs *, const char *, int, int *);
    int (*full_path)(vfs *, const char *, int, char *);
    void *(*dl[4])(void);
    int (*randomness)(vfs *, int, char *);
    int (*sleep)(vfs *, int);
    int (*time)(vfs *, double *);
    int (*last_error)(vfs *, int, char *);
    int (*time64)(vfs *, int64_t *);
};

enum { FIND = 141, REGISTER = 142, LOADED_FOR_GOOD = 256, FULL = 13, UNLOCK_SHM = 1 };

/* As in OPERATIONS of broken.py. */
enum { OPEN, READ, WRITE, SYNC, TRUNCATE, SIZE, LOCK, UNLOCK, RESERVED, DELETE, ACCESS, SHM_MAP, SHM_LOCK };

static atomic_llong operation = -1, code, first, burst, count, struck, room = -1;
static vfs broken, *base;

typedef struct { file head; file *real; } wrapped;

__attribute__((visibility("default"))) void broken_plan(int64_t what, int64_t how, int64_t from, int64_t times)
{
    operation = room = -1;
    count = struck = 0;
    code = how;
    first = from;
    burst = times;
    operation = what;
}

__attribute__((visibility("default"))) void broken_room(int64_t bytes) { room = bytes; }
__attribute__((visibility("default"))) int64_t broken_count(void) { return count; }
__attribute__((visibility("default"))) int64_t broken_struck(void) { return struck; }

static int meet(int what)
{
    if (what != operation) return 0;
    long long n = ++count;
    if (n < first || n >= first + burst) return 0;
    ++struck;
    return (int)code;
}

#define REAL(f) (((wrapped *)(f))->real)
#define CALL(f, method, ...) (REAL(f)->methods->method(REAL(f), __VA_ARGS__))
#define FAIL(what) do { int failed_ = meet(what); if (failed_) return failed_; } while (0)

static int do_close(file *f) { return REAL(f)->methods->close(REAL(f)); }
static int do_read(file *f, void *to, int n, int64_t at) { FAIL(READ); return CALL(f, read, to, n, at); }
static int do_truncate(file *f, int64_t size) { FAIL(TRUNCATE); return CALL(f, truncate, size); }
static int do_sync(file *f, int flags) { (void)f, (void)flags; return meet(SYNC); }
static int do_size(file *f, int64_t *out) { FAIL(SIZE); return CALL(f, size, out); }
static int do_lock(file *f, int level) { FAIL(LOCK); return CALL(f, lock, level); }
static int do_unlock(file *f, int level) { int rc = CALL(f, unlock, level); FAIL(UNLOCK); return rc; }
static int do_reserved(file *f, int *out) { FAIL(RESERVED); return CALL(f, check_reserved, out); }
static int do_control(file *f, int what, void *value) { return CALL(f, control, what, value); }
static int do_sector(file *f) { return REAL(f)->methods->sector(REAL(f)); }
static int do_characteristics(file *f) { return REAL(f)->methods->characteristics(REAL(f)); }
static int do_shm_map(file *f, int page, int size, int extend, void volatile **out) { FAIL(SHM_MAP); return CALL(f, shm_map, page, size, extend, out); }
static void do_shm_barrier(file *f) { REAL(f)->methods->shm_barrier(REAL(f)); }
static int do_shm_unmap(file *f, int delete) { return CALL(f, shm_unmap, delete); }

/* Half of it is there, as after a failed write. */
static int do_write(file *f, const void *from, int n, int64_t at)
{
    int failed = meet(WRITE);
    int64_t size = 0;
    if (!failed && room >= 0 && CALL(f, size, &size) == 0 && at + n > size && at + n > room) failed = FULL, ++struck;
    if (!failed) return CALL(f, write, from, n, at);
    if (failed != FULL || room < 0) CALL(f, write, from, n / 2, at);
    return failed;
}

static int do_shm_lock(file *f, int offset, int n, int flags)
{
    if (!(flags & UNLOCK_SHM)) FAIL(SHM_LOCK);
    return CALL(f, shm_lock, offset, n, flags);
}

static const methods broken_methods = {
    2, do_close, do_read, do_write, do_truncate, do_sync, do_size, do_lock, do_unlock, do_reserved, do_control, do_sector,
    do_characteristics, do_shm_map, do_shm_lock, do_shm_barrier, do_shm_unmap,
};

static int do_open(vfs *self, const char *name, file *f, int flags, int *out)
{
    (void)self;
    wrapped *w = (wrapped *)f;
    w->head.methods = NULL;
    FAIL(OPEN);
    w->real = (file *)(w + 1);
    memset(w->real, 0, (size_t)base->file_size);
    int rc = base->open(base, name, w->real, flags, out);
    if (w->real->methods != NULL) w->head.methods = &broken_methods;
    return rc;
}

static int do_delete(vfs *self, const char *name, int sync) { (void)self; FAIL(DELETE); return base->delete(base, name, sync); }
static int do_access(vfs *self, const char *name, int flags, int *out) { (void)self; FAIL(ACCESS); return base->access(base, name, flags, out); }
static int do_full_path(vfs *self, const char *name, int n, char *out) { (void)self; return base->full_path(base, name, n, out); }
static int do_randomness(vfs *self, int n, char *out) { (void)self; return base->randomness(base, n, out); }
static int do_sleep(vfs *self, int us) { (void)self; return base->sleep(base, us); }
static int do_time(vfs *self, double *out) { (void)self; return base->time(base, out); }
static int do_last_error(vfs *self, int n, char *out) { (void)self; return base->last_error(base, n, out); }
static int do_time64(vfs *self, int64_t *out) { (void)self; return base->time64(base, out); }

__attribute__((visibility("default"))) int sqlite3_broken_init(void *db, char **message, void (*const *routines)(void))
{
    (void)db, (void)message;
    base = ((vfs *(*)(const char *))routines[FIND])(NULL);
    broken = (vfs){
        .version = 2, .file_size = (int)sizeof(wrapped) + base->file_size, .longest_path = base->longest_path, .name = "broken",
        .open = do_open, .delete = do_delete, .access = do_access, .full_path = do_full_path, .randomness = do_randomness,
        .sleep = do_sleep, .time = do_time, .last_error = do_last_error, .time64 = do_time64,
    };
    int rc = ((int (*)(vfs *, int))routines[REGISTER])(&broken, 0);
    return rc ? rc : LOADED_FOR_GOOD;
}
