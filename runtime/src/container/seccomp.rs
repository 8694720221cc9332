//! Seccomp profiles: the default one, computed from the container's capabilities, and those in files.
//!
//! A profile that was asked for and can't be had is an error, never no filter.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cri::SecurityProfile;
use cri::security_profile::ProfileType;
use serde_json::{Value, json};

use crate::error::{Error, IoContext};

/// The filter of a container in OCI's form; `None` when it is to have none.
pub(crate) fn profile(
    wanted: Option<&SecurityProfile>,
    privileged: bool,
    capabilities: &BTreeSet<String>,
) -> Result<Option<Value>, Error> {
    let Some(wanted) = wanted.filter(|_| !privileged) else { return Ok(None) };
    match wanted.profile_type() {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => Ok(Some(default_profile(capabilities))),
        ProfileType::Localhost => {
            let path = Path::new(wanted.localhost_ref.trim_start_matches("localhost/"));
            let text = fs::read(path).at("read seccomp profile", path)?;
            let mut profile: Value = serde_json::from_slice(&text)
                .map_err(|error| Error::Invalid(format!("seccomp profile {}: {error}", path.display())))?;
            if profile.get("defaultAction").is_none() {
                return Err(Error::Invalid(format!(
                    "seccomp profile {} has no defaultAction",
                    path.display()
                )));
            }
            swap_masks(&mut profile);
            Ok(Some(profile))
        }
    }
}

/// OCI gives a masked comparison as value = mask, valueTwo = what is left. libcontainer 0.7 reads them the
/// other way round, so a mask would never match.
fn swap_masks(profile: &mut Value) {
    let calls = profile.get_mut("syscalls").and_then(Value::as_array_mut).into_iter().flatten();
    for argument in calls.filter_map(|call| call.get_mut("args")?.as_array_mut()).flatten() {
        if argument.get("op").and_then(Value::as_str) == Some("SCMP_CMP_MASKED_EQ") {
            let (mask, rest) =
                (argument["value"].clone(), argument.get("valueTwo").cloned().unwrap_or(json!(0)));
            argument["value"] = rest;
            argument["valueTwo"] = mask;
        }
    }
}

/// Which calls the default profile allows, given the capabilities of the container.
fn default_profile(capabilities: &BTreeSet<String>) -> Value {
    const ALLOW: &str = "SCMP_ACT_ALLOW";
    let mut calls = vec![json!({ "names": ALWAYS, "action": ALLOW })];
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.contains(*capability) {
            calls.push(json!({ "names": names, "action": ALLOW }));
        }
    }
    // The personalities that are no security matter: Linux, 32 bit, no randomisation off, UNAME26, query.
    for personality in [0u64, 0x8, 0x20000, 0x20008, 0xffff_ffff] {
        let argument = json!({ "index": 0, "value": personality, "op": "SCMP_CMP_EQ" });
        calls.push(json!({ "names": ["personality"], "action": ALLOW, "args": [argument] }));
    }
    // AF_VSOCK reaches the hypervisor around every network policy.
    let not_vsock = json!({ "index": 0, "value": libc::AF_VSOCK, "op": "SCMP_CMP_NE" });
    calls.push(json!({ "names": ["socket"], "action": ALLOW, "args": [not_vsock] }));
    if !capabilities.contains("CAP_SYS_ADMIN") {
        // Clone, but without any namespace flag. clone3 keeps its flags in memory where a filter can't look;
        // "no such call" makes the C library fall back to clone.
        let no_namespaces =
            json!({ "index": 0, "value": 0x7e02_0000u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" });
        calls.push(json!({ "names": ["clone"], "action": ALLOW, "args": [no_namespaces] }));
        calls.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }));
    }
    let mut profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": architectures(),
        "syscalls": calls,
    });
    swap_masks(&mut profile);
    profile
}

fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &["SCMP_ARCH_NATIVE"],
    }
}

/// Calls that come with a capability: without it the kernel would refuse them anyway, or they are its door.
const WITH_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

/// What every program may call. Names the kernel or the architecture does not know are skipped.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl", "arm_fadvise64_64", "arm_sync_file_range",
    "bind", "breakpoint", "brk", "cachestat", "cacheflush", "capget", "capset", "chdir", "chmod", "chown",
    "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
    "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "close", "close_range", "connect",
    "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl",
    "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2",
    "execve", "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fadvise64_64",
    "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat",
    "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr",
    "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex",
    "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "futimesat", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
    "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
    "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "get_robust_list",
    "getrusage", "getsid", "getsockname", "getsockopt", "get_thread_area", "gettid", "gettimeofday", "getuid",
    "getuid32", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "io_cancel", "ioctl", "io_destroy", "io_getevents", "io_pgetevents",
    "io_pgetevents_time64", "ioprio_get", "ioprio_set", "io_setup", "io_submit", "ipc", "kill",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr",
    "link", "linkat", "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "_llseek",
    "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier",
    "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2",
    "mlockall", "mmap", "mmap2", "modify_ldt", "mprotect", "mq_getsetattr", "mq_notify", "mq_open",
    "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap",
    "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap",
    "name_to_handle_at", "nanosleep", "newfstatat", "_newselect", "open", "openat", "openat2", "pause",
    "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll",
    "ppoll", "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease",
    "pselect6", "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink",
    "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages",
    "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "riscv_hwprobe",
    "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_get_priority_max", "sched_get_priority_min",
    "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity",
    "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl",
    "semget", "semop", "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg",
    "sendmsg", "sendto", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups",
    "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid",
    "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "set_robust_list",
    "setsid", "setsockopt", "set_thread_area", "set_tid_address", "set_tls", "setuid", "setuid32", "setxattr",
    "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4",
    "sigprocmask", "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64",
    "statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "sync_file_range2", "syncfs",
    "sysinfo", "tee", "tgkill", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
    "timer_gettime64", "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime",
    "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate", "truncate64",
    "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat",
    "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4", "waitid", "waitpid", "write", "writev",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(kind: ProfileType, reference: &str) -> SecurityProfile {
        SecurityProfile { profile_type: kind as i32, localhost_ref: reference.to_owned() }
    }

    fn allows(profile: &Value, name: &str) -> bool {
        profile["syscalls"].as_array().unwrap().iter().any(|call| {
            call["action"] == "SCMP_ACT_ALLOW"
                && call["names"].as_array().unwrap().iter().any(|known| known == name)
        })
    }

    #[test]
    fn the_default_profile_opens_with_capabilities() {
        let none = BTreeSet::new();
        let plain = profile(Some(&wanted(ProfileType::RuntimeDefault, "")), false, &none).unwrap().unwrap();
        let admin = BTreeSet::from(["CAP_SYS_ADMIN".to_owned()]);
        let admin = profile(Some(&wanted(ProfileType::RuntimeDefault, "")), false, &admin).unwrap().unwrap();
        for (name, without, with) in
            [("mount", false, true), ("read", true, true), ("reboot", false, false), ("clone3", false, true)]
        {
            assert_eq!((allows(&plain, name), allows(&admin, name)), (without, with), "{name}");
        }
        serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(plain).unwrap();
    }

    #[test]
    fn a_profile_that_is_missing_or_no_profile_is_an_error() {
        let none = BTreeSet::new();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("profile.json");
        let reference = wanted(ProfileType::Localhost, file.to_str().unwrap());
        assert!(profile(Some(&reference), false, &none).is_err());
        fs::write(&file, "{}").unwrap();
        assert!(profile(Some(&reference), false, &none).is_err());
        fs::write(&file, r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
        assert!(profile(Some(&reference), false, &none).unwrap().is_some());
    }

    #[test]
    fn privileged_and_unconfined_have_no_filter() {
        let none = BTreeSet::new();
        assert!(profile(Some(&wanted(ProfileType::RuntimeDefault, "")), true, &none).unwrap().is_none());
        assert!(profile(Some(&wanted(ProfileType::Unconfined, "")), false, &none).unwrap().is_none());
        assert!(profile(None, false, &none).unwrap().is_none());
    }

    #[test]
    fn masks_are_given_as_libcontainer_reads_them() {
        let mut profile = json!({ "syscalls": [{ "args": [
            { "index": 0, "value": 7, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ" },
            { "index": 0, "value": 7, "op": "SCMP_CMP_EQ" },
        ] }] });
        swap_masks(&mut profile);
        assert_eq!(profile["syscalls"][0]["args"][0]["value"], 1);
        assert_eq!(profile["syscalls"][0]["args"][0]["valueTwo"], 7);
        assert_eq!(profile["syscalls"][0]["args"][1]["value"], 7);
    }
}
