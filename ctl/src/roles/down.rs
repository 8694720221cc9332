//! `skiff down`: ends a cluster and leaves nothing of it behind but its data.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Tasks};
use clap::Args;
use network::NodeNetwork;
use network::machine::Segment;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::foreign::{self, Record};
use super::lock::Lock;
use super::place::Place;
use super::{DATA_DIR, facts, process};
use crate::failure::Because;
use crate::{Failure, kubeconfig};

/// How long running roles may take to end before they are killed.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
pub(crate) struct Down {
    /// The data directory of the cluster.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, env = "SKIFF_DATA_DIR")]
    data_dir: PathBuf,
    /// Delete the cluster's data too: its state, its certificates, its images.
    #[arg(long)]
    delete_data: bool,
}

impl Down {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        process::need_root("down")?;
        if !self.data_dir.exists() {
            eprintln!("nothing to do: {} does not exist", self.data_dir.display());
            return Ok(ExitCode::SUCCESS);
        }
        process::run(self.clean())
    }

    async fn clean(self) -> Result<ExitCode, Failure> {
        let data_dir = facts::data_dir(&self.data_dir)?;
        let places = Place::all(&data_dir)?;
        end_holder(&data_dir)?;
        for place in &places {
            end_holder(&place.data)?;
        }
        let id = facts::id(&data_dir);
        let run_dir = facts::run_dir(&id);
        let tasks = Tasks::new("down");
        let mut left = None;
        for place in &places {
            // What can't be ended there is told at the end: everything else goes all the same.
            if let Some(record) = Record::load(place)? {
                let ended = foreign::end(place, &record, &tasks, &Clock::system()).await;
                left = left.or(ended.err());
            }
            let config = place.runtime(Arc::new(runtime::LoopbackOnly), tasks.clone(), Clock::system())?;
            runtime::cleanup(&config).await.because(format!("containers of {}", place.name))?;
            let volumes = place.agent_data();
            nodeagent::cleanup(&volumes, &place.cgroup_root).because(volumes.display())?;
            NodeNetwork::cleanup(&place.id, &place.network_state())
                .because(format!("network of {}", place.name))?;
        }
        Segment::remove(&id, &facts::namespaces_dir(&id)).because("network of the nodes")?;
        remove_dir(&run_dir)?;
        // The parent stays while other clusters use it.
        let _ = std::fs::remove_dir("/run/skiff");
        let admin = data_dir.join("admin.kubeconfig");
        if data_dir == Path::new(DATA_DIR)
            && let (Some(file), Some(server)) = (kubeconfig::user_file(), kubeconfig::server(&admin)?)
        {
            kubeconfig::unmerge(&file, &server)?;
        }
        if self.delete_data {
            remove_dir(&data_dir)?;
        }
        left.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}

fn remove_dir(dir: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("{}: {error}", dir.display())))
        }
        _ => Ok(()),
    }
}

/// Ends the process that works on a directory.
fn end_holder(dir: &Path) -> Result<(), Failure> {
    let Some(pid) = Lock::holder(dir)? else { return Ok(()) };
    let about = format!("process {pid}, which uses {}", dir.display());
    let Some(raw) = Pid::from_raw(pid) else { return Ok(()) };
    // A pidfd means this process even if it ends and its number is given to another.
    let process = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(Failure::new(format!("{about}: {error}"))),
    };
    for (signal, patience) in [(Signal::TERM, PATIENCE), (Signal::KILL, PATIENCE)] {
        match pidfd_send_signal(&process, signal) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(Failure::new(format!("{about}: {error}"))),
        }
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        let patience = Timespec::try_from(patience).because(&about)?;
        if poll(&mut ended, Some(&patience)).because(&about)? > 0 {
            return Ok(());
        }
    }
    Err(Failure::new(format!("process {pid}, which uses {}, does not end", dir.display())))
}
