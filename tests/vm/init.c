/*
 * First process of the test guest: loads modules, takes the host's files read-only with a writable layer of its own over
 * them, runs the command that the kernel's command line names (guest=...), and switches the machine off.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void give_up(const char *what)
{
	perror(what);
	sync();
	reboot(RB_POWER_OFF);
	exit(1);
}

static void attach(const char *what, const char *where, const char *kind, unsigned long flags, const char *options)
{
	mkdir(where, 0755);
	if (mount(what, where, kind, flags, options) != 0)
		give_up(where);
}

static void load_modules(void)
{
	char name[64];

	for (int number = 0;; number++) {
		snprintf(name, sizeof name, "/modules/%02d.ko", number);
		int fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return;
		if (syscall(SYS_finit_module, fd, "", 0) != 0)
			give_up(name);
		close(fd);
	}
}

int main(void)
{
	static char line[4096];

	attach("proc", "/proc", "proc", 0, "");
	load_modules();
	attach("host", "/lower", "9p", MS_RDONLY, "trans=virtio,version=9p2000.L,msize=262144,cache=loose");
	attach("rw", "/rw", "tmpfs", 0, "");
	mkdir("/rw/upper", 0755);
	mkdir("/rw/work", 0755);
	attach("root", "/new", "overlay", 0, "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work");
	attach("proc", "/new/proc", "proc", 0, "");
	attach("sys", "/new/sys", "sysfs", 0, "");
	attach("dev", "/new/dev", "devtmpfs", 0, "");
	attach("run", "/new/run", "tmpfs", 0, "");
	if (chdir("/new") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
		give_up("new root");

	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, line, sizeof line - 1) <= 0)
		give_up("command line");
	char *command = strstr(line, "guest=");
	if (command == NULL)
		give_up("guest=");
	command += strlen("guest=");
	command[strcspn(command, " \n")] = '\0';
	char *script = strchr(command, ',');
	if (script == NULL)
		give_up("guest=PYTHON,SCRIPT");
	*script++ = '\0';

	pid_t child = fork();
	if (child == 0) {
		setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
		setenv("HOME", "/run", 1);
		setenv("TERM", "dumb", 1);
		setenv("QUARKCTL_STATE_DIR", "/run/quarkctl", 1);
		execl(command, command, script, (char *)NULL);
		_exit(127);
	}
	waitpid(child, NULL, 0);
	reboot(RB_POWER_OFF);
	return 0;
}
