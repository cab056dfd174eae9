/* Lets the n-th large allocation of a process fail, as allocations.py asks for; loaded by LD_PRELOAD, with glibc. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

static atomic_long seen;
static long failing, onwards;
static size_t smallest = (size_t)-1;

/* Begins to count allocations of at least `least` bytes; the one numbered `number` fails, and with `all` the later ones too. */
void allocations_fail(size_t least, long number, int all) {
  failing = number, onwards = all, smallest = least;
  atomic_store(&seen, 0);
}

long allocations_seen(void) { return atomic_load(&seen); }

static int fails(size_t size) {
  if (size < smallest) return 0;
  long number = atomic_fetch_add(&seen, 1) + 1;
  if (!failing || number < failing || (number > failing && !onwards)) return 0;
  errno = ENOMEM;
  return 1;
}

void *malloc(size_t size) { return fails(size) ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) {
  size_t whole;
  if (__builtin_mul_overflow(count, size, &whole)) whole = (size_t)-2;
  return fails(whole) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) { return fails(size) ? NULL : __libc_realloc(old, size); }

void *memalign(size_t alignment, size_t size) { return fails(size) ? NULL : __libc_memalign(alignment, size); }

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **place, size_t alignment, size_t size) {
  *place = memalign(alignment, size);
  return *place ? 0 : ENOMEM;
}

void *mmap(void *place, size_t size, int protection, int flags, int file, off_t offset) {
  if ((flags & MAP_ANONYMOUS) && fails(size)) return MAP_FAILED;
  return (void *)syscall(SYS_mmap, place, size, protection, flags, file, offset);
}

/* What Python calls. Its own arenas of 1 MiB pass: the objects in them are small. */
void *mmap64(void *place, size_t size, int protection, int flags, int file, off_t offset) {
  if (size > 1 << 20) return mmap(place, size, protection, flags, file, offset);
  return (void *)syscall(SYS_mmap, place, size, protection, flags, file, offset);
}
