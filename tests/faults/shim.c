/* Fails the n-th operation of a process that puts something on a disk, in files below one folder.
 *
 * Loaded by LD_PRELOAD. `fail_at(n, number, stays, folder)` begins to count at once: the n-th write, fsync or rename
 * that concerns a path below `folder` fails with the error `number`, and all that follow too if it `stays`, as on a
 * full disk. `operations()` are those counted so far. With n = 0 nothing fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char below[PATH_MAX];
static long at, count;
static int with, stays;

void fail_at(long n, int number, int it_stays, const char *folder) {
    pthread_mutex_lock(&lock);
    at = n, with = number, stays = it_stays, count = 0;
    snprintf(below, sizeof below, "%s", folder);
    pthread_mutex_unlock(&lock);
}

long operations(void) { return count; }

/* Whether this operation is to fail. */
static int fails(const char *path) {
    if (!below[0] || strncmp(path, below, strlen(below))) return 0;
    pthread_mutex_lock(&lock);
    count++;
    int hit = at && (count == at || (stays && count > at));
    pthread_mutex_unlock(&lock);
    if (hit) errno = with;
    return hit;
}

static int fails_on(int file) {
    if (!below[0] || file < 3) return 0;
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int f, const void *b, size_t n) { REAL(ssize_t, "write", int, const void *, size_t); return fails_on(f) ? -1 : real(f, b, n); }
ssize_t pwrite(int f, const void *b, size_t n, off_t o) { REAL(ssize_t, "pwrite", int, const void *, size_t, off_t); return fails_on(f) ? -1 : real(f, b, n, o); }
ssize_t pwrite64(int f, const void *b, size_t n, off64_t o) { REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t); return fails_on(f) ? -1 : real(f, b, n, o); }
ssize_t writev(int f, const struct iovec *v, int n) { REAL(ssize_t, "writev", int, const struct iovec *, int); return fails_on(f) ? -1 : real(f, v, n); }
ssize_t copy_file_range(int i, off64_t *io, int o, off64_t *oo, size_t n, unsigned g) { REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned); return fails_on(o) ? -1 : real(i, io, o, oo, n, g); }
ssize_t sendfile64(int o, int i, off64_t *p, size_t n) { REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t); return fails_on(o) ? -1 : real(o, i, p, n); }
int fsync(int f) { REAL(int, "fsync", int); return fails_on(f) ? -1 : real(f); }
int fdatasync(int f) { REAL(int, "fdatasync", int); return fails_on(f) ? -1 : real(f); }
int ftruncate64(int f, off64_t n) { REAL(int, "ftruncate64", int, off64_t); return fails_on(f) ? -1 : real(f, n); }
int rename(const char *a, const char *b) { REAL(int, "rename", const char *, const char *); return fails(b) ? -1 : real(a, b); }
