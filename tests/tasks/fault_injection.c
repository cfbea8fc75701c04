/* Makes the n-th file operation below a folder fail, as a full or dying disk would.
 *
 * Loaded with LD_PRELOAD, so that writes out of C++ (Arrow) and C (Pillow) are caught as well as Python's. Operations
 * are counted across threads; descriptors are told apart by the path that /proc says they have, so nothing is kept that
 * a fork, a dup or a close could make wrong.
 *
 *   fault_root(path)                       operations on paths below `path` count
 *   fault_arm(kinds, at, error, sticky)    operation number `at` (from 1) of these kinds fails with `error`; sticky: and
 *                                          every later one. error 0: a write is cut short instead, everything else goes on
 *   fault_count()                          operations counted since
 *   fault_hits()                           operations that failed since
 *   fault_name()                           what the first failed operation was, such as "write manifest.parquet"
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Kinds, to be added up: what needs room or must reach the disk, what reads, what removes. */
enum { CHANGES = 1, READS = 2, REMOVALS = 4 };

static char root[PATH_MAX];
static size_t root_length;
static atomic_int kinds, at, error_number, sticky, count, hits;
static char first_hit[256];

void fault_root(const char *path) {
    snprintf(root, sizeof root, "%s/", path);
    root_length = strlen(root);
}

void fault_arm(int which, int number, int error, int stay) {
    at = number;
    error_number = error;
    sticky = stay;
    count = 0;
    hits = 0;
    first_hit[0] = 0;
    kinds = which;
}

int fault_count(void) { return count; }
int fault_hits(void) { return hits; }
const char *fault_name(void) { return first_hit; }

/* Whether this operation is the one that must fail. */
static int falls(int kind, const char *operation, const char *path) {
    if (!(kinds & kind) || !root_length || strncmp(path, root, root_length) != 0) return 0;
    int number = ++count;
    if (!at || number < at || (!sticky && number > at)) return 0;
    if (hits++ == 0) snprintf(first_hit, sizeof first_hit, "%s %s", operation, path + root_length);
    return 1;
}

static int falls_at(int kind, const char *operation, int folder, const char *path) {
    char whole[PATH_MAX * 2], link[64];
    if (path[0] == '/' || !kinds) return falls(kind, operation, path);
    if (folder == AT_FDCWD) {
        if (!getcwd(whole, PATH_MAX)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0) return 0;
        whole[length] = 0;
    }
    strncat(whole, "/", sizeof whole - strlen(whole) - 1);
    strncat(whole, path, sizeof whole - strlen(whole) - 1);
    return falls(kind, operation, whole);
}

static int falls_fd(int kind, const char *operation, int fd) {
    char path[PATH_MAX], link[64];
    if (!(kinds & kind)) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0 || path[0] != '/') return 0;
    path[length] = 0;
    return falls(kind, operation, path);
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* With error 0 everything but a write goes on. */
#define FAIL_IF(condition) \
    if ((condition) && error_number) { errno = error_number; return -1; }

static int open_kind(int flags) {
    return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) ? CHANGES : READS;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        MODE_OF(flags) \
        FAIL_IF(falls_at(open_kind(flags), "open", AT_FDCWD, path)) \
        return next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        NEXT(name); \
        MODE_OF(flags) \
        FAIL_IF(falls_at(open_kind(flags), "open", folder, path)) \
        return next(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

DIR *opendir(const char *path) {
    NEXT(opendir);
    if (falls_at(READS, "list", AT_FDCWD, path) && error_number) { errno = error_number; return NULL; }
    return next(path);
}

/* A short write is what a disk that fills up does first: half of the bytes, and no error yet. */
#define CUT(operation, fd, size) \
    if (falls_fd(CHANGES, operation, fd)) { \
        if (error_number) { errno = error_number; return -1; } \
        if ((size) > 1) size /= 2; \
    }

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write);
    CUT("write", fd, size)
    return next(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t place) {
    NEXT(pwrite);
    CUT("write", fd, size)
    return next(fd, data, size, place);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
    NEXT(pwrite64);
    CUT("write", fd, size)
    return next(fd, data, size, place);
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    NEXT(writev);
    CUT("write", fd, number)
    return next(fd, parts, number);
}

ssize_t sendfile64(int to, int from, off64_t *place, size_t size);
ssize_t sendfile64(int to, int from, off64_t *place, size_t size) {
    NEXT(sendfile64);
    CUT("write", to, size)
    return next(to, from, place, size);
}

ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *place, size_t size, unsigned flags) {
    NEXT(copy_file_range);
    CUT("write", to, size)
    return next(from, start, to, place, size, flags);
}

ssize_t read(int fd, void *data, size_t size) {
    NEXT(read);
    FAIL_IF(falls_fd(READS, "read", fd))
    return next(fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t place) {
    NEXT(pread);
    FAIL_IF(falls_fd(READS, "read", fd))
    return next(fd, data, size, place);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t place) {
    NEXT(pread64);
    FAIL_IF(falls_fd(READS, "read", fd))
    return next(fd, data, size, place);
}

int fsync(int fd) {
    NEXT(fsync);
    FAIL_IF(falls_fd(CHANGES, "fsync", fd))
    return next(fd);
}

int fdatasync(int fd) {
    NEXT(fdatasync);
    FAIL_IF(falls_fd(CHANGES, "fdatasync", fd))
    return next(fd);
}

int ftruncate64(int fd, off64_t size) {
    NEXT(ftruncate64);
    FAIL_IF(falls_fd(CHANGES, "ftruncate", fd))
    return next(fd, size);
}

/* Some file systems say only here that the disk was full; the descriptor is gone all the same. */
int close(int fd) {
    NEXT(close);
    int flags = kinds & CHANGES ? fcntl(fd, F_GETFL) : 0;
    int failed = flags > 0 && (flags & O_ACCMODE) != O_RDONLY && falls_fd(CHANGES, "close", fd);
    int done = next(fd);
    FAIL_IF(failed)
    return done;
}

int rename(const char *from, const char *to) {
    NEXT(rename);
    FAIL_IF(falls_at(CHANGES, "rename", AT_FDCWD, to))
    return next(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    NEXT(renameat);
    FAIL_IF(falls_at(CHANGES, "rename", to_folder, to))
    return next(from_folder, from, to_folder, to);
}

int link(const char *from, const char *to) {
    NEXT(link);
    FAIL_IF(falls_at(CHANGES, "link", AT_FDCWD, to))
    return next(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    NEXT(linkat);
    FAIL_IF(falls_at(CHANGES, "link", to_folder, to))
    return next(from_folder, from, to_folder, to, flags);
}

int unlink(const char *path) {
    NEXT(unlink);
    FAIL_IF(falls_at(REMOVALS, "unlink", AT_FDCWD, path))
    return next(path);
}

int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat);
    FAIL_IF(falls_at(REMOVALS, "unlink", folder, path))
    return next(folder, path, flags);
}

int rmdir(const char *path) {
    NEXT(rmdir);
    FAIL_IF(falls_at(REMOVALS, "rmdir", AT_FDCWD, path))
    return next(path);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    FAIL_IF(falls_at(CHANGES, "mkdir", AT_FDCWD, path))
    return next(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    NEXT(mkdirat);
    FAIL_IF(falls_at(CHANGES, "mkdir", folder, path))
    return next(folder, path, mode);
}
