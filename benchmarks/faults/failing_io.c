/* Preloaded into a process, makes its writes below a folder fail or fall short: see disturbances.py.

   FAIL_UNDER  the folder
   FAIL_WHEN   a file; from when it exists on, writes fail
   FAIL_MODE   eio: all of them fail; once: the first one does; short: they write half of what they are given
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int failed; /* by this process, in mode once */

static int is_mode(const char *mode) {
  const char *wanted = getenv("FAIL_MODE");
  return wanted && !strcmp(wanted, mode);
}

static int is_below(const char *path) {
  const char *folder = getenv("FAIL_UNDER");
  return folder && !strncmp(path, folder, strlen(folder));
}

static int is_active(void) {
  const char *when = getenv("FAIL_WHEN");
  return when && !access(when, F_OK);
}

static int is_of(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return is_below(path);
}

static int fails(void) {
  if (is_mode("short")) return 0;
  if (is_mode("once") && __sync_lock_test_and_set(&failed, 1)) return 0;
  errno = EIO;
  return 1;
}

static size_t shortened(size_t count) { return is_mode("short") && count > 1 ? count / 2 : count; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define TOUCHED(fd) (is_active() && is_of(fd))

ssize_t write(int fd, const void *from, size_t count) {
  if (TOUCHED(fd)) {
    if (fails()) return -1;
    count = shortened(count);
  }
  return REAL(write)(fd, from, count);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
  if (TOUCHED(fd)) {
    if (fails()) return -1;
    count = shortened(count);
  }
  return REAL(pwrite)(fd, from, count, at);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
  if (TOUCHED(fd)) {
    if (fails()) return -1;
    count = shortened(count);
  }
  return REAL(pwrite64)(fd, from, count, at);
}

/* Several buffers: a short write takes the first one only. */
ssize_t writev(int fd, const struct iovec *from, int count) {
  if (TOUCHED(fd)) {
    if (fails()) return -1;
    count = is_mode("short") ? 1 : count;
  }
  return REAL(writev)(fd, from, count);
}

ssize_t pwritev(int fd, const struct iovec *from, int count, off_t at) {
  if (TOUCHED(fd)) {
    if (fails()) return -1;
    count = is_mode("short") ? 1 : count;
  }
  return REAL(pwritev)(fd, from, count, at);
}

int fsync(int fd) { return TOUCHED(fd) && fails() ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return TOUCHED(fd) && fails() ? -1 : REAL(fdatasync)(fd); }

int rename(const char *from, const char *to) {
  return is_active() && is_below(to) && fails() ? -1 : REAL(rename)(from, to);
}
