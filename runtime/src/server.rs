//! Starts the server on its socket, and ends everything it ever started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cri::image_service_server::ImageServiceServer;
use cri::runtime_service_server::RuntimeServiceServer;
use futures::future::join_all;
use nix::mount::{MsFlags, mount};
use tokio::net::UnixListener;
use tracing::info;

use crate::Config;
use crate::cgroup::Cgroups;
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::image::{ImageService, Images};
use crate::record;
use crate::sandbox::unmount;
use crate::service::{RuntimeService, Services};
use crate::streaming::Streaming;

/// The largest message taken and given: a list of all containers of a big node.
const MESSAGE: usize = 16 << 20;
/// How long killed processes may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Adopts what runs and serves until the tasks are cancelled.
pub(crate) async fn start(config: Config) -> Result<Images, Error> {
    let socket = config.socket.clone();
    let core = open(config).await?;
    core.adopt_sandboxes().await?;
    core.adopt_containers().await?;
    let streaming = Streaming::start(core.clone()).await?;
    let listener = listen(&socket)?;
    let images = core.images.clone();
    let services = Services {
        runtime: RuntimeServiceServer::new(RuntimeService::new(core.clone(), streaming))
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(MESSAGE),
        images: ImageServiceServer::new(ImageService::new(images.clone())).max_decoding_message_size(MESSAGE),
    };
    info!(
        socket = %socket.display(),
        sandboxes = core.sandboxes.all().len(),
        containers = core.containers.all().len(),
        "container runtime serving"
    );
    let tasks = core.tasks.clone();
    core.config.tasks.spawn("cri", services.serve(listener, tasks));
    Ok(images)
}

/// The state of a runtime whose directories exist.
async fn open(config: Config) -> Result<Arc<Core>, Error> {
    for directory in [&config.root, &config.state] {
        fs::create_dir_all(directory).at("create", directory)?;
        // Sockets and root file systems: for nobody else.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).at("protect", directory)?;
    }
    let cgroups = Cgroups::detect()?;
    let images = Images::open(&config.root, &config.executable, config.clock.clone(), config.tasks.clone())
        .map_err(|error| Error::failed("open the images", error))?;
    let core = Arc::new(Core::new(config, cgroups, images));
    for directory in
        [core.paths.sandbox_states(), core.paths.container_states(), core.paths.container_records()]
    {
        fs::create_dir_all(&directory).at("create", &directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).at("protect", &directory)?;
    }
    hold_executable(&core.config.executable, &core.paths.executable())?;
    Ok(core)
}

/// Mounts our executable where the roles are started from, read-only.
fn hold_executable(executable: &Path, at: &Path) -> Result<(), Error> {
    // That of an earlier version; whoever runs from it keeps it.
    unmount(at)?;
    if !at.exists() {
        fs::File::create(at).at("create", at)?;
    }
    mount(Some(executable), at, None::<&str>, MsFlags::MS_BIND, None::<&str>).at("mount", at)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>).at("make read-only", at)
}

fn listen(socket: &Path) -> Result<UnixListener, Error> {
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent).at("create", parent)?;
    }
    // Left behind by a server that was killed.
    record::remove_file(socket)?;
    let listener = UnixListener::bind(socket).at("listen on", socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).at("protect", socket)?;
    Ok(listener)
}

/// Ends everything and leaves nothing but images.
pub(crate) async fn cleanup(config: &Config) -> Result<(), Error> {
    if !config.root.exists() && !config.state.exists() {
        return Ok(());
    }
    let core = open(config.clone()).await?;
    core.adopt_sandboxes().await?;
    core.adopt_containers().await?;
    let sandboxes = core.sandboxes.all();
    for result in join_all(sandboxes.iter().map(|sandbox| core.remove_sandbox(&sandbox.id))).await {
        result?;
    }
    // Those whose sandbox is gone.
    let containers = core.containers.all();
    for result in join_all(containers.iter().map(|container| core.remove_container(container))).await {
        result?;
    }
    let left = core.clone();
    core.tasks
        .blocking(move || {
            let group = format!("/{}", left.config.cgroup_root.trim_matches('/'));
            left.cgroups.kill(&left.shim_cgroup(), KILL_LIMIT)?;
            left.cgroups.remove(&left.shim_cgroup())?;
            left.cgroups.remove_if_empty(&group);
            unmount(&left.paths.executable())?;
            record::remove_file(&left.paths.executable())?;
            record::remove_dir_all(&left.paths.sandbox_states())?;
            record::remove_dir_all(&left.paths.container_states())?;
            record::remove_file(&left.config.socket)
        })
        .await
}
