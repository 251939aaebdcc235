/* Preloaded into a process under test: its clock on the wall is so many seconds ahead as the file named by
   GODWIT_TEST_CLOCK says. The monotonic clock stays as it is. A file beside it shows that it was asked. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long ahead(void) {
  const char *path = getenv("GODWIT_TEST_CLOCK");
  char asked[4096];
  long seconds = 0;
  FILE *file = path ? fopen(path, "r") : NULL;
  if (!file) return 0;
  if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
  fclose(file);
  if (seconds && snprintf(asked, sizeof asked, "%s.%ld", path, seconds) < (int)sizeof asked && (file = fopen(asked, "w"))) fclose(file);
  return seconds;
}

int clock_gettime(clockid_t id, struct timespec *now) {
  int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, now);
  if (result == 0 && id == CLOCK_REALTIME) now->tv_sec += ahead();
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec fine;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &fine)) return -1;
  now->tv_sec = fine.tv_sec;
  now->tv_usec = fine.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec fine;
  if (clock_gettime(CLOCK_REALTIME, &fine)) return -1;
  if (now) *now = fine.tv_sec;
  return fine.tv_sec;
}
