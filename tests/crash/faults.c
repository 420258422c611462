/* Makes the n-th write or sync of a ledger's files fail: loaded with LD_PRELOAD in front of the C library. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long left = -1; /* calls until the fault; negative: none */
static int error, lasting, calls;

/* Arm: call number n (from 0) fails with an errno; all behind it too, if it is to last. */
void fault_at(long n, int with, int lasts)
{
	left = n;
	error = with;
	lasting = lasts;
	calls = 0;
}

int fault_calls(void)
{
	return calls;
}

static int fails(int fd)
{
	char link[64], name[4096];
	ssize_t size;

	if (left < 0)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	size = readlink(link, name, sizeof(name) - 1);
	name[size > 0 ? size : 0] = 0;
	if (!strstr(name, ".db"))
		return 0;
	calls++;
	if (left > 0) {
		left--;
		return 0;
	}
	left = lasting ? 0 : -1;
	errno = error;
	return 1;
}

#define WRAPPED(type, name, parameters, arguments)                      \
	type name parameters                                            \
	{                                                               \
		static type(*next) parameters;                          \
		if (!next)                                              \
			next = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
		return fails(fd) ? -1 : next arguments;                 \
	}

WRAPPED(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRAPPED(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRAPPED(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRAPPED(int, ftruncate, (int fd, off_t size), (fd, size))
WRAPPED(int, ftruncate64, (int fd, off64_t size), (fd, size))
WRAPPED(int, fsync, (int fd), (fd))
WRAPPED(int, fdatasync, (int fd), (fd))
