"""What Windows lacks of the standard library, as far as Coterie could use it."""

import os
import signal

NO_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"}
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
FUNCTIONS = {"signal", "getsignal", "raise_signal", "strsignal", "valid_signals", "Signals",
             "set_wakeup_fd", "default_int_handler", "Handlers", "NSIG"}  # fmt: skip
"""All that ``signal`` has on Windows but for ``CTRL_C_EVENT`` and the like."""
NO_FLAGS = {name for name in dir(os) if name.startswith("O_")} - {
    "O_RDONLY", "O_WRONLY", "O_RDWR", "O_APPEND", "O_CREAT", "O_EXCL", "O_TRUNC",
}  # fmt: skip
NOT_IN_OS = NO_FLAGS | {
    "chown", "chroot", "confstr", "copy_file_range", "ctermid", "eventfd", "fchdir", "fchmod",
    "fchown", "fdatasync", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgrouplist",
    "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority", "getresuid", "getsid", "getuid",
    "getxattr", "initgroups", "kill_pg", "killpg", "lchown", "lockf", "major", "memfd_create",
    "mkfifo", "mknod", "nice", "openpty", "pathconf", "pidfd_open", "pipe2", "posix_fadvise",
    "posix_fallocate", "posix_spawn", "pread", "preadv", "pwrite", "pwritev", "readv",
    "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile",
    "set_blocking", "setgid", "setpgid", "setpriority", "setsid", "setuid", "setxattr", "statvfs",
    "sync", "sysconf", "sysconf_names", "tcgetpgrp", "ttyname", "uname", "unshare", "wait", "wait3",
    "wait4", "waitid", "WNOHANG", "writev",
}  # fmt: skip
POSIX_SIGNALS = {name for name in dir(signal) if not name.startswith("__")} - SIGNALS - FUNCTIONS
