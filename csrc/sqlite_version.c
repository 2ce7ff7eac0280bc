/* Whether others have committed: a question to the connection that writes, for which its own commits are no change. */
#include "sqlite_store.h"

/* The number, or -1. Under the connection's mutex from the first step to the last: while a read is open SQLite does not wait for the
 * lock of other processes, so a verb that began meanwhile would fail at once with "database is locked". */
int64_t dx_sqlite_version(dx_sqlite *store, dx_error *error)
{
    sqlite3 *db = store->writer.db;
    int64_t version = -1;
    if (db == NULL) {
        dx_describe(error, "version", SQLITE_MISUSE, "the store is closed");
        return -1;
    }
    sqlite3_mutex *mutex = dx_api.db_mutex(db);
    sqlite3_stmt *statement = NULL;
    dx_api.mutex_enter(mutex);
    if (dx_api.prepare_v3(db, "PRAGMA data_version", -1, 0, &statement, NULL) == SQLITE_OK && dx_api.step(statement) == SQLITE_ROW)
        version = dx_api.column_int64(statement, 0);
    else
        dx_describe(error, "version", dx_api.extended_errcode(db), dx_api.errmsg(db));
    dx_api.finalize(statement);
    dx_api.mutex_leave(mutex);
    return version;
}
