/* Counts what a process asks of the file system, in all threads and in C++ too, and ends it or refuses at a given event.

   Loaded before all else (LD_PRELOAD). An event is a call that changes files below EVENTS_BELOW: a file that is made,
   written, renamed, removed or made durable, and a directory. EVENTS_KILL=n ends the process before the n-th event as
   SIGKILL does; EVENTS_FULL=n refuses the n-th and all later ones that need room, as a full disk does. How many there
   were stands in the file EVENTS_COUNT at the end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long events;
static long kill_at, full_at;
static const char *below;

__attribute__((constructor)) static void begin(void) {
  const char *kill_text = getenv("EVENTS_KILL"), *full_text = getenv("EVENTS_FULL");
  below = getenv("EVENTS_BELOW");
  kill_at = kill_text ? atol(kill_text) : 0;
  full_at = full_text ? atol(full_text) : 0;
}

__attribute__((destructor)) static void end(void) {
  const char *path = getenv("EVENTS_COUNT");
  FILE *file = path && events ? fopen(path, "w") : NULL;
  if (file) {
    fprintf(file, "%ld", (long)events);
    fclose(file);
  }
}

/* Whether a path is below the directory; of a relative one the file descriptor says where it begins. */
static int ours(int directory, const char *path) {
  char whole[PATH_MAX], link[64];
  if (!below || !path) return 0;
  if (path[0] == '/') return strncmp(path, below, strlen(below)) == 0;
  if (directory == AT_FDCWD) {
    if (!getcwd(whole, sizeof whole)) return 0;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, whole, sizeof whole - 1);
    if (length < 0) return 0;
    whole[length] = 0;
  }
  size_t length = strlen(whole);
  snprintf(whole + length, sizeof whole - length, "/%s", path);
  return strncmp(whole, below, strlen(below)) == 0;
}

static int ours_open(int file) {
  char link[64], whole[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = below ? readlink(link, whole, sizeof whole - 1) : -1;
  if (length < 0) return 0;
  whole[length] = 0;
  return strncmp(whole, below, strlen(below)) == 0;
}

/* Counts an event; whether it is refused. */
static int refused(int needs_room) {
  long number = ++events;
  if (kill_at && number >= kill_at) kill(getpid(), SIGKILL);
  if (full_at && number >= full_at && needs_room) {
    errno = ENOSPC;
    return 1;
  }
  return 0;
}

#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(name)                                            \
  int name(const char *path, int flags, ...) {                \
    REAL(int, #name, const char *, int, ...);                 \
    va_list rest;                                             \
    va_start(rest, flags);                                    \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                             \
    if (flags & O_CREAT && ours(AT_FDCWD, path) && refused(1)) return -1; \
    return real(path, flags, mode);                           \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                          \
  int name(int directory, const char *path, int flags, ...) { \
    REAL(int, #name, int, const char *, int, ...);            \
    va_list rest;                                             \
    va_start(rest, flags);                                    \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                             \
    if (flags & O_CREAT && ours(directory, path) && refused(1)) return -1; \
    return real(directory, path, flags, mode);                \
  }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size) {
  REAL(ssize_t, "write", int, const void *, size_t);
  return ours_open(file) && refused(1) ? -1 : real(file, data, size);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(ssize_t, "writev", int, const struct iovec *, int);
  return ours_open(file) && refused(1) ? -1 : real(file, parts, count);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t place) {
  REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
  return ours_open(file) && refused(1) ? -1 : real(file, data, size, place);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t place) {
  REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
  return ours_open(file) && refused(1) ? -1 : real(file, data, size, place);
}

int fsync(int file) {
  REAL(int, "fsync", int);
  return ours_open(file) && refused(1) ? -1 : real(file);
}

int fdatasync(int file) {
  REAL(int, "fdatasync", int);
  return ours_open(file) && refused(1) ? -1 : real(file);
}

int rename(const char *from, const char *to) {
  REAL(int, "rename", const char *, const char *);
  return ours(AT_FDCWD, to) && refused(1) ? -1 : real(from, to);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
  REAL(int, "renameat", int, const char *, int, const char *);
  return ours(to_directory, to) && refused(1) ? -1 : real(from_directory, from, to_directory, to);
}

int mkdir(const char *path, mode_t mode) {
  REAL(int, "mkdir", const char *, mode_t);
  return ours(AT_FDCWD, path) && refused(1) ? -1 : real(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode) {
  REAL(int, "mkdirat", int, const char *, mode_t);
  return ours(directory, path) && refused(1) ? -1 : real(directory, path, mode);
}

int unlink(const char *path) {
  REAL(int, "unlink", const char *);
  return ours(AT_FDCWD, path) && refused(0) ? -1 : real(path);
}

int unlinkat(int directory, const char *path, int flags) {
  REAL(int, "unlinkat", int, const char *, int);
  return ours(directory, path) && refused(0) ? -1 : real(directory, path, flags);
}

int rmdir(const char *path) {
  REAL(int, "rmdir", const char *);
  return ours(AT_FDCWD, path) && refused(0) ? -1 : real(path);
}
