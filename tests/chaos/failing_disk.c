/* A disk that fails when it is told to: LD_PRELOADed, it answers calls on files below $FAILING_UNDER with the error
   number that the file $FAILING_NOW holds; while there is no such file, nothing is touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int number(void) { /* 0: healthy */
    static __thread int asking;
    const char *now = getenv("FAILING_NOW");
    if (asking || !now || access(now, R_OK)) return 0;
    asking = 1;
    int found = 0, saved = errno;
    FILE *file = fopen(now, "r");
    if (file) { if (fscanf(file, "%d", &found) != 1) found = 0; fclose(file); }
    asking = 0;
    errno = saved;
    return found;
}

static int below(const char *path) {
    const char *under = getenv("FAILING_UNDER");
    return under && path && !strncmp(path, under, strlen(under));
}

static int fails(const char *path) {
    int found = below(path) ? number() : 0;
    if (found) errno = found;
    return found;
}

static int fails_fd(int fd) {
    if (!number()) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return fails(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE(flags, last) mode_t mode = 0; va_list rest; va_start(rest, last); \
    if ((flags) & (O_CREAT | O_TMPFILE)) mode = va_arg(rest, mode_t); va_end(rest)

int open(const char *path, int flags, ...) { MODE(flags, flags); return fails(path) ? -1 : REAL(open)(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, flags); return fails(path) ? -1 : REAL(open64)(path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, flags); return fails(path) ? -1 : REAL(openat)(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, flags); return fails(path) ? -1 : REAL(openat64)(at, path, flags, mode); }
ssize_t write(int fd, const void *data, size_t size) { return fails_fd(fd) ? -1 : REAL(write)(fd, data, size); }
int fsync(int fd) { return fails_fd(fd) ? -1 : REAL(fsync)(fd); }
int ftruncate(int fd, off_t size) { return fails_fd(fd) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails_fd(fd) ? -1 : REAL(ftruncate64)(fd, size); }
int mkdir(const char *path, mode_t mode) { return fails(path) ? -1 : REAL(mkdir)(path, mode); }
int rename(const char *from, const char *to) { return fails(to) ? -1 : REAL(rename)(from, to); }
int unlink(const char *path) { return fails(path) ? -1 : REAL(unlink)(path); }
