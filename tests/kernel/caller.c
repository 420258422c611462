// Makes the calls of a VMM that guest_memfd knows, on a VM of the default type, and prints what each returned: one "NAME RESULT" a line.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

// As the kernel's own headers have them; the C library's may be older.
struct region { uint32_t slot, flags; uint64_t gpa, size, hva, offset; uint32_t fd, pad; uint64_t more[14]; };
struct attributes { uint64_t address, size, attributes, flags; };
struct file { uint64_t size, flags, more[6]; };
#define CREATE_VM _IO(0xAE, 0x01)
#define SET_REGION _IOW(0xAE, 0x49, struct region)
#define SET_ATTRIBUTES _IOW(0xAE, 0xd2, struct attributes)
#define CREATE_FILE _IOWR(0xAE, 0xd4, struct file)
enum { PAGE = 4096, PAGES = 16, PUNCH = 0x02 | 0x01, PRIVATE = 1 << 3, MMAP_AND_SHARED = 3, WITH_FILE = 1 << 2 };

static int shown(const char *name, int result)
{
	printf("%s %d\n", name, result < 0 ? -errno : 0);
	fflush(stdout);
	return result;
}

static void convert(int vm, uint64_t address, uint64_t attributes, uint64_t flags)
{
	struct attributes asked = { address, 4 * PAGE, attributes, flags };
	shown("convert", ioctl(vm, SET_ATTRIBUTES, &asked));
}

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR), vm = shown("vm", ioctl(kvm, CREATE_VM, 0));
	struct file made = { PAGES * PAGE, MMAP_AND_SHARED };
	int fd = shown("create", ioctl(vm, CREATE_FILE, &made));
	char *memory = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (kvm < 0 || vm < 0 || fd < 0 || memory == MAP_FAILED)
		return 1;
	struct region slot = { 3, WITH_FILE, 0x100000000, PAGES * PAGE, (uintptr_t)memory, 0, fd };
	shown("slot", ioctl(vm, SET_REGION, &slot));
	for (int page = 0; page < PAGES; page++)
		memory[page * PAGE] = 1;
	shown("punch", fallocate(fd, PUNCH, 4 * PAGE, 4 * PAGE));
	shown("punch", fallocate(fd, PUNCH, 100, PAGE));
	convert(vm, 0x100000000, PRIVATE, 0);	// this type of VM has no private memory
	convert(vm, 0x100000000, 0, 0);
	convert(vm, 0x100000000, 0, 1);	// no flags are known
	convert(vm, 0x100000010, 0, 0);	// no whole pages
	slot.size = 0;
	shown("slot", ioctl(vm, SET_REGION, &slot));
	return 0;
}
