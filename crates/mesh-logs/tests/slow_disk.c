/* A disk that is slow: loaded into mesh-logs with LD_PRELOAD. While the file $MESH_TEST_SLOW exists, each write that
   SQLite makes takes ten milliseconds more. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static void wait_for_disk(void) {
  const char *slow = getenv("MESH_TEST_SLOW");
  if (slow && access(slow, F_OK) == 0) usleep(10000);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
  static ssize_t (*next)(int, const void *, size_t, off64_t);
  if (!next) next = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
  wait_for_disk();
  return next(file, bytes, count, at);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
  static ssize_t (*next)(int, const void *, size_t, off_t);
  if (!next) next = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
  wait_for_disk();
  return next(file, bytes, count, at);
}
