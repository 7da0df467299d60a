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
 *   slow       a read takes 2 ms
 * Where there is no such file, or nothing in it, nothing is wrong.
 *
 * FAULT_KILL ("FILES HOW N") kills the process (SIGKILL) at its N-th write, sync, truncation, rename, link or unlink:
 *   FILES  all         the operations on all files of the database count
 *          database    those on the database file alone: WAL, journal and copies do not count
 *   HOW    before      the operation is not carried out
 *          torn        of a write the first half is carried out
 *          power       as `before`, and all writes and truncations since the last sync of their file are undone: what
 *                      a power cut leaves. Renames, links and unlinks stay.
 * A process that comes to its end writes to the file FAULT_COUNT how many of these operations there were.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
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

/* The path of a descriptor; of one without a path, as a pipe's, something that is no path of ours. */
static void path_of(int fd, char path[PATH_MAX]) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = '\0';
}

static int is_data(int fd) {
    char path[PATH_MAX];
    path_of(fd, path);
    return is_path_of_data(path);
}

static int ends_with(int fd, const char *suffix) {
    char path[PATH_MAX];
    path_of(fd, path);
    size_t length = strlen(path), suffix_length = strlen(suffix);
    return length > suffix_length && strcmp(path + length - suffix_length, suffix) == 0;
}

static int grows(int fd, off_t end) {
    struct stat file;
    return fstat(fd, &file) == 0 && end > file.st_size;
}

static int fails(int number) {
    errno = number;
    return -1;
}

/* ---- Killing at the N-th operation. All of it happens with `operations` locked, one operation after another. */

static pthread_mutex_t operations = PTHREAD_MUTEX_INITIALIZER;
static enum { UNREAD, NEVER, BEFORE, TORN, POWER } kill_how;
static int kill_for_database_only;
static unsigned long kill_at, operations_seen;

/* A write or truncation that no sync has covered yet: what stood there, and how long the file was. */
struct unsynced {
    dev_t device;
    ino_t inode;
    int fd;
    off_t at;
    off_t size;
    size_t count;
    char *bytes;
};
static struct unsynced *unsynced;
static size_t unsynced_count, unsynced_max;

static void read_kill(void) {
    char files[16], how[16];
    const char *said = getenv("FAULT_KILL");
    kill_how = NEVER;
    if (!said || sscanf(said, "%15s %15s %lu", files, how, &kill_at) != 3) return;
    kill_for_database_only = strcmp(files, "database") == 0;
    kill_how = strcmp(how, "before") == 0 ? BEFORE : strcmp(how, "torn") == 0 ? TORN : POWER;
}

static void die(void) {
    for (size_t at = unsynced_count; at-- > 0;) {
        struct unsynced *change = &unsynced[at];
        syscall(SYS_pwrite64, change->fd, change->bytes, change->count, change->at);
        syscall(SYS_ftruncate, change->fd, change->size);
    }
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* Counts an operation on this path. It is the last one where this says so. */
static int is_last(const char *path) {
    if (kill_how == UNREAD) read_kill();
    if (kill_how == NEVER || !is_path_of_data(path)) return 0;
    if (kill_for_database_only && strcmp(path, getenv("FAULT_DATA")) != 0) return 0;
    return ++operations_seen == kill_at;
}

static int is_last_of(int fd) {
    char path[PATH_MAX];
    path_of(fd, path);
    return is_last(path);
}

/* Remembers what a write or truncation is about to change. The index of the WAL is made anew at every start. */
static void remember(int fd, off_t at, size_t count) {
    struct stat file;
    if (kill_how != POWER || !is_data(fd) || ends_with(fd, "-shm") || fstat(fd, &file) != 0) return;
    if (unsynced_count == unsynced_max) {
        unsynced_max = unsynced_max ? 2 * unsynced_max : 256;
        unsynced = realloc(unsynced, unsynced_max * sizeof *unsynced);
        if (!unsynced) abort();
    }
    struct unsynced change = {.device = file.st_dev, .inode = file.st_ino, .fd = -1, .at = at, .size = file.st_size};
    for (size_t known = 0; known < unsynced_count && change.fd < 0; known++) {
        if (unsynced[known].device == change.device && unsynced[known].inode == change.inode) {
            change.fd = unsynced[known].fd;
        }
    }
    /* A descriptor of our own, as SQLite may close its. Never closed: that would drop the locks on the file. */
    if (change.fd < 0) change.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    off_t left = at < file.st_size ? file.st_size - at : 0;
    change.count = (off_t)count < left ? count : (size_t)left;
    change.bytes = malloc(change.count + 1);
    if (!change.bytes || change.fd < 0) abort();
    if (syscall(SYS_pread64, change.fd, change.bytes, change.count, at) != (ssize_t)change.count) abort();
    unsynced[unsynced_count++] = change;
}

/* A sync has brought a file to the disk. */
static void forget(const struct stat *file) {
    size_t kept = 0;
    for (size_t at = 0; at < unsynced_count; at++) {
        if (unsynced[at].device == file->st_dev && unsynced[at].inode == file->st_ino) {
            free(unsynced[at].bytes);
        } else {
            unsynced[kept++] = unsynced[at];
        }
    }
    unsynced_count = kept;
}

__attribute__((destructor)) static void write_count(void) {
    const char *path = getenv("FAULT_COUNT");
    char text[32];
    int length = snprintf(text, sizeof text, "%lu\n", operations_seen);
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    if (fd < 0) return;
    if (syscall(SYS_write, fd, text, length) != length) abort();
    syscall(SYS_close, fd);
}

/* ---- The operations. */

/* How much of the WAL is on the disk. */
static off_t wal_synced;

static int sync_by(long number, int fd) {
    if (!is_data(fd)) return (int)syscall(number, fd);
    pthread_mutex_lock(&operations);
    struct stat file;
    int has_size = fstat(fd, &file) == 0, is_wal = ends_with(fd, "-wal"), result;
    if (is_last_of(fd)) die();
    if (wrong("sync")) {
        if (has_size && is_wal && file.st_size > wal_synced) syscall(SYS_ftruncate, fd, wal_synced);
        result = fails(EIO);
    } else {
        result = (int)syscall(number, fd);
        if (has_size && is_wal && result == 0) wal_synced = file.st_size;
        if (has_size && result == 0) forget(&file);
    }
    pthread_mutex_unlock(&operations);
    return result;
}

int fsync(int fd) {
    return sync_by(SYS_fsync, fd);
}

int fdatasync(int fd) {
    return sync_by(SYS_fdatasync, fd);
}

ssize_t pread64(int fd, void *bytes, size_t count, off_t offset) {
    if (is_data(fd) && wrong("slow")) usleep(2000);
    return syscall(SYS_pread64, fd, bytes, count, offset);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset) {
    return pread64(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset) {
    if (!is_data(fd)) return syscall(SYS_pwrite64, fd, bytes, count, offset);
    pthread_mutex_lock(&operations);
    if (is_last_of(fd)) {
        if (kill_how == TORN) syscall(SYS_pwrite64, fd, bytes, count / 2, offset);
        die();
    }
    ssize_t result = -1;
    if (grows(fd, offset + (off_t)count) && wrong("full")) {
        errno = ENOSPC;
    } else {
        remember(fd, offset, count);
        result = syscall(SYS_pwrite64, fd, bytes, count, offset);
    }
    pthread_mutex_unlock(&operations);
    return result;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return pwrite64(fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (!is_data(fd)) return syscall(SYS_write, fd, bytes, count);
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t written = pwrite64(fd, bytes, count, at);
    if (written > 0) lseek(fd, at + written, SEEK_SET);
    return written;
}

int ftruncate64(int fd, off_t length) {
    if (!is_data(fd)) return (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&operations);
    if (is_last_of(fd)) die();
    int result = -1;
    if (grows(fd, length) && wrong("full")) {
        errno = ENOSPC;
    } else {
        struct stat file;
        if (fstat(fd, &file) == 0) remember(fd, length, file.st_size > length ? (size_t)(file.st_size - length) : 0);
        result = (int)syscall(SYS_ftruncate, fd, length);
    }
    pthread_mutex_unlock(&operations);
    return result;
}

int ftruncate(int fd, off_t length) {
    return ftruncate64(fd, length);
}

/* Counts an operation on names. */
static void name_changes(const char *path) {
    pthread_mutex_lock(&operations);
    if (is_last(path)) die();
    pthread_mutex_unlock(&operations);
}

int rename(const char *from, const char *to) {
    name_changes(to);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int link(const char *from, const char *to) {
    name_changes(to);
    return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    name_changes(to);
    return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}

int unlink(const char *path) {
    name_changes(path);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
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
