/* The entries of SQLite's extension routine table that the store calls, and nothing else of SQLite.
 *
 * SQLite hands the table to every extension that it loads and only ever appends to it, so an entry's place is fixed for good
 * (tests/test_c_abi.py checks each against the system's sqlite3ext.h). Calls go through here, never to a linked SQLite.
 */
#ifndef DUROXIDE_SQLITE_ABI_H
#define DUROXIDE_SQLITE_ABI_H

#include <stdint.h>

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
typedef struct sqlite3_mutex sqlite3_mutex;
typedef void (*dx_destructor)(void *);

enum {
    SQLITE_OK = 0, SQLITE_BUSY = 5, SQLITE_LOCKED = 6, SQLITE_INTERRUPT = 9, SQLITE_FULL = 13, SQLITE_CONSTRAINT = 19,
    SQLITE_MISUSE = 21, SQLITE_ROW = 100, SQLITE_DONE = 101, SQLITE_NULL = 5 /* a column type */,
    SQLITE_PREPARE_PERSISTENT = 1, SQLITE_UTF8 = 1
};
#define SQLITE_STATIC ((dx_destructor)0)

/* X(place in the table, result, name, parameters) */
#define DX_SQLITE_ROUTINES(X) \
    X(5, int, bind_int64, (sqlite3_stmt *, int, int64_t)) \
    X(6, int, bind_null, (sqlite3_stmt *, int)) \
    X(13, int, busy_handler, (sqlite3 *, int (*)(void *, int), void *)) \
    X(15, int, changes, (sqlite3 *)) \
    X(19, const void *, column_blob, (sqlite3_stmt *, int)) \
    X(20, int, column_bytes, (sqlite3_stmt *, int)) \
    X(29, int64_t, column_int64, (sqlite3_stmt *, int)) \
    X(36, const unsigned char *, column_text, (sqlite3_stmt *, int)) \
    X(38, int, column_type, (sqlite3_stmt *, int)) \
    X(53, const char *, errmsg, (sqlite3 *)) \
    X(57, int, finalize, (sqlite3_stmt *)) \
    X(60, int, get_autocommit, (sqlite3 *)) \
    X(65, int64_t, last_insert_rowid, (sqlite3 *)) \
    X(67, int, libversion_number, (void)) \
    X(77, int, reset, (sqlite3_stmt *)) \
    X(94, int, step, (sqlite3_stmt *)) \
    X(131, void, mutex_enter, (sqlite3_mutex *)) \
    X(133, void, mutex_leave, (sqlite3_mutex *)) \
    X(148, void, randomness, (int, void *)) \
    X(164, sqlite3_mutex *, db_mutex, (sqlite3 *)) \
    X(166, int, extended_errcode, (sqlite3 *)) \
    X(194, int, bind_text64, (sqlite3_stmt *, int, const char *, uint64_t, dx_destructor, unsigned char)) \
    X(217, int, prepare_v3, (sqlite3 *, const char *, int, unsigned int, sqlite3_stmt **, const char **))

typedef struct {
#define X(place, result, name, parameters) result (*name) parameters;
    DX_SQLITE_ROUTINES(X)
#undef X
} dx_sqlite_api;

/* The oldest SQLite that the statements were tried on; a 4.x may have another table. */
#define DX_SQLITE_MIN 3046000
#define DX_SQLITE_BELOW 4000000

#endif
