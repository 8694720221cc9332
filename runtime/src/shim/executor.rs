//! The last step of a container's process: checks the executable, drops what is left to drop, executes.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libcontainer::capabilities::drop_privileges;
use libcontainer::seccomp::initialize_seccomp;
use libcontainer::syscall::linux::LinuxSyscall;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Spec};

/// Executes the process of a specification.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessExecutor {
    /// For a process that joins a container: libcontainer gives it no filter.
    pub(crate) seccomp: Option<LinuxSeccomp>,
    /// What the process is to hold once the filter is loaded, which takes more.
    pub(crate) capabilities: Option<LinuxCapabilities>,
}

impl Executor for ProcessExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = arguments(spec).ok_or(ExecutorError::InvalidArg)?;
        let path = find(&args[0], spec).map_err(ExecutorError::Other)?;
        if let Some(filter) = &self.seccomp {
            initialize_seccomp(filter).map_err(|error| ExecutorError::Other(format!("seccomp: {error}")))?;
        }
        if let Some(capabilities) = &self.capabilities {
            drop_privileges(capabilities, &LinuxSyscall)
                .map_err(|error| ExecutorError::Other(format!("capabilities: {error}")))?;
        }
        let words: Vec<CString> = args
            .iter()
            .map(|word| CString::new(word.as_str()).map_err(|_| ExecutorError::InvalidArg))
            .collect::<Result<_, _>>()?;
        let executable = CString::new(path.into_os_string().into_encoded_bytes())
            .map_err(|_| ExecutorError::InvalidArg)?;
        let error = match nix::unistd::execv(&executable, &words) {
            Err(error) => error,
            Ok(never) => match never {},
        };
        Err(ExecutorError::Other(format!("exec {:?}: {}", args[0], error.desc())))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let args = arguments(spec)
            .ok_or_else(|| ExecutorValidationError::ArgValidationError("no command specified".to_owned()))?;
        find(&args[0], spec).map(drop).map_err(ExecutorValidationError::ArgValidationError)
    }
}

fn arguments(spec: &Spec) -> Option<&Vec<String>> {
    spec.process().as_ref()?.args().as_ref().filter(|args| !args.is_empty())
}

/// The executable a word means, as the shell and runc look it up.
fn find(word: &str, spec: &Spec) -> Result<PathBuf, String> {
    if word.contains('/') {
        return match usable(Path::new(word)) {
            Ok(()) => Ok(PathBuf::from(word)),
            Err(why) => Err(format!("exec: {word:?}: {why}")),
        };
    }
    let environment: HashMap<&str, &str> = spec
        .process()
        .iter()
        .flat_map(|process| process.env().iter().flatten())
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let mut refused = None;
    for directory in environment.get("PATH").copied().unwrap_or_default().split(':') {
        let path = Path::new(if directory.is_empty() { "." } else { directory }).join(word);
        match usable(&path) {
            Ok(()) => return Ok(path),
            Err(why) if path.exists() => refused = Some(why),
            Err(_) => {}
        }
    }
    match refused {
        Some(why) => Err(format!("exec: {word:?}: {why}")),
        None => Err(format!("exec: {word:?}: executable file not found in $PATH")),
    }
}

fn usable(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("stat {}: no such file or directory", path.display()),
        _ => format!("stat {}: {error}", path.display()),
    })?;
    match () {
        () if metadata.is_dir() => Err("is a directory".to_owned()),
        () if metadata.permissions().mode() & 0o111 == 0 => Err("permission denied".to_owned()),
        () => Ok(()),
    }
}
