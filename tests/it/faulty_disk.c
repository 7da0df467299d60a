/*
 * A disk that fails when it is told to: loaded before the C library (LD_PRELOAD), it stands between a server and the
 * files of its database.
 *
 * FAULT_DATA is the path with which the database's files begin, FAULT_FILE a file that says what is wrong now:
 *   sync       nothing can be brought to the disk (EIO), and what was to be brought there is forgotten, as a page cache
 *              may: of the WAL, what it has grown by since it was brought there last
 *   full       no file can grow (ENOSPC); what it has room for already is written
 *   read-only  nothing can be opened for writing (EROFS)
 *   no-new     nothing can be made beside the file (EACCES)
 * Where there is no such file, or nothing in it, nothing is wrong.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whether this is what is wrong now. By system calls, as the functions of these names are our own. */
static int wrong(const char *what) {
    const char *path = getenv("FAULT_FILE");
    char said[16] = "";
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (fd < 0) return 0;
    ssize_t count = syscall(SYS_read, fd, said, sizeof said - 1);
    syscall(SYS_close, fd);
    return count > 0 && strcmp(said, what) == 0;
}

static int is_path_of_data(const char *path) {
    const char *data = getenv("FAULT_DATA");
    return data && strncmp(path, data, strlen(data)) == 0;
}

static int is_data(int fd) {
    char link[32], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) > 0 && is_path_of_data(path);
}

static int grows(int fd, off_t end) {
    struct stat file;
    return fstat(fd, &file) == 0 && end > file.st_size;
}

static int fails(int number) {
    errno = number;
    return -1;
}

/* How much of the WAL is on the disk. */
static off_t wal_synced;

static int is_wal(int fd) {
    char link[32], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 4 && strcmp(path + length - 4, "-wal") == 0;
}

static int sync_by(long number, int fd) {
    if (!is_data(fd)) return (int)syscall(number, fd);
    struct stat file;
    int has_size = is_wal(fd) && fstat(fd, &file) == 0;
    if (wrong("sync")) {
        if (has_size && file.st_size > wal_synced) syscall(SYS_ftruncate, fd, wal_synced);
        return fails(EIO);
    }
    int result = (int)syscall(number, fd);
    if (has_size && result == 0) wal_synced = file.st_size;
    return result;
}

int fsync(int fd) {
    return sync_by(SYS_fsync, fd);
}

int fdatasync(int fd) {
    return sync_by(SYS_fdatasync, fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset) {
    if (is_data(fd) && grows(fd, offset + (off_t)count) && wrong("full")) return fails(ENOSPC);
    return syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return pwrite64(fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (is_data(fd) && grows(fd, lseek(fd, 0, SEEK_CUR) + (off_t)count) && wrong("full")) return fails(ENOSPC);
    return syscall(SYS_write, fd, bytes, count);
}

int ftruncate64(int fd, off_t length) {
    if (is_data(fd) && grows(fd, length) && wrong("full")) return fails(ENOSPC);
    return (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate(int fd, off_t length) {
    return ftruncate64(fd, length);
}

static int open_at(const char *path, int flags, mode_t mode) {
    if (is_path_of_data(path)) {
        if ((flags & O_ACCMODE) != O_RDONLY && wrong("read-only")) return fails(EROFS);
        if ((flags & O_CREAT) && access(path, F_OK) != 0 && wrong("no-new")) return fails(EACCES);
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

/* A mode is passed only with O_CREAT, which is the only one of our files' flags that wants it. */
#define OPEN(path, flags)                                            \
    mode_t mode = 0;                                                 \
    if ((flags) & O_CREAT) {                                         \
        va_list more;                                                \
        va_start(more, flags);                                       \
        mode = (mode_t)va_arg(more, int);                            \
        va_end(more);                                                \
    }                                                                \
    return open_at(path, flags, mode)

int open64(const char *path, int flags, ...) {
    OPEN(path, flags);
}

int open(const char *path, int flags, ...) {
    OPEN(path, flags);
}
